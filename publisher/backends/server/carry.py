"""The transaction itself: opened, written, published, judged; whatever happens, none of ours stays open."""

from __future__ import annotations

import os
import time
from typing import BinaryIO

from publisher import tools
from publisher.backends.base import Changeset, Published, Revision
from publisher.backends.server.compare import Wanted
from publisher.backends.server.confirm import differences
from publisher.backends.server.describe import description, require_objects
from publisher.backends.server.job import Job
from publisher.backends.server.program import Server
from publisher.backends.server.recovery import close_transaction
from publisher.backends.server.site import Site, Way
from publisher.backends.server.state import clear_mark, lock_identity, new_mark, note_open, write_mark
from publisher.backends.server.tarball import cannot_ingest, members, write_tar
from publisher.backends.server.writer import Writer
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.keys import read_key_file
from publisher.cvmfs.reader import Reader, open_repository
from publisher.errors import AfpubError, RepositoryError, StaleBaseError, ToolError

_POLL_S = 0.05


class Carrier:
    """Carries jobs out on one server."""

    def __init__(self, site: Site, server: Server, *, way: Way, wait_s: float) -> None:
        self._site = site
        self._server = server
        self._way = way
        self._wait_s = wait_s

    def carry_out(self, job: Job, reader: Reader, start: float) -> Published:
        """Opens the transaction, writes, publishes; whatever happens, no transaction of ours stays open.

        Args:
            job: what is to be done.
            reader: the revision that it was prepared for.
            start: when the publish began (:func:`time.monotonic`).

        Raises:
            AfpubError: nothing was published, or the message says what was.
        """
        changeset = job.changeset
        below = lease_path(self._site, reader, job.want)
        write_mark(self._site, new_mark(base=changeset.base.root_hash, what=changeset.tag or ""))
        opened_s = time.monotonic()
        try:
            done = self._ingest(job) if self._ingests(job) else self._write(job, below)
            return self._judge(job, done, start=start, open_s=time.monotonic() - opened_s)
        except BaseException as exc:
            self._give_up(exc)
            raise

    def _ingests(self, job: Job) -> bool:
        if self._way is not Way.INGEST:
            return False
        site = self._site
        usual = site.algorithm is Algorithm.SHA1 and site.compressor is not None
        objection = cannot_ingest(
            job.edits,
            below=common_folder(job.want),
            sha1_zlib=usual and site.compressor.compression is Compression.ZLIB,  # type: ignore[union-attr]
            chunk_bytes=site.chunk_rule.least if site.chunk_rule else None,
        )
        if objection:
            job.notes.append(f"files were copied, not ingested: {objection}")
        return not objection

    def _write(self, job: Job, below: str) -> tools.Completed:
        server, changeset = self._server, job.changeset
        lease = below if self._site.gateway else ""
        try:
            server.transaction(below=lease, wait_s=self._wait_s)
        except AfpubError:
            if lock_identity(self._site) is None:
                clear_mark(self._site)
            raise
        note_open(self._site, new_mark(base=changeset.base.root_hash, what=changeset.tag or ""))
        with open_site(self._site) as reader:
            require_base(reader, changeset)  # who waited may find another revision
        if job.fresh:
            require_objects(self._site, job.fresh)
        described = {path: description(content) for path, content in job.contents.items()}
        Writer(self._site, described, job.tally.add).apply(job.edits)
        return server.publish(tag=changeset.tag, description=changeset.description)

    def _ingest(self, job: Job) -> tools.Completed:
        """The transaction is the server's own: it opens and closes it, and aborts it when something fails."""
        top = common_folder(job.want)
        changeset = job.changeset

        def feed(sink: BinaryIO) -> None:
            while lock_identity(self._site) is None:
                time.sleep(_POLL_S)
            note_open(self._site, new_mark(base=changeset.base.root_hash, what=changeset.tag or ""))
            with open_site(self._site) as reader:
                require_base(reader, changeset)
            write_tar(sink, members(job.edits), below=top, progress=job.tally.add)

        done = self._server.ingest(below=top, feed=feed)
        if done.ok and changeset.tag:
            self._server.tag(changeset.tag, changeset.description)
        return done

    def _judge(self, job: Job, done: tools.Completed, *, start: float, open_s: float) -> Published:
        """What happened, by the manifest; the server's exit code is a hint only."""
        changeset, site = job.changeset, self._site
        with open_site(self._site) as reader:
            now = revision_of(reader)
            moved = now.root_hash != changeset.base.root_hash
            faults = list(differences(job.want, reader, job.contents)) if moved else []
        closed = close_transaction(site, self._server)
        if moved and not faults:
            notes = list(job.notes)
            if not done.ok:
                notes.append(
                    f"cvmfs_server failed (exit code {done.returncode}) after it had signed revision {now.number}, "
                    f"which holds everything; {closed or 'the transaction was closed'}"
                )
            return Published(
                revision=now,
                new=True,
                files=sum(1 for _ in job.want.files),
                read_bytes=job.read_bytes,
                stored_bytes=job.stored_bytes,
                objects=job.objects,
                seconds=time.monotonic() - start,
                open_seconds=open_s,
                notes=tuple(notes),
            )
        if moved and done.ok:
            raise RepositoryError(
                f"revision {now.number} of {site.fqrn} is not what was to be published: {faults[0]}",
                hint="another publisher or a hook changed it; the earlier revision has a tag of its own",
                detail="\n".join(faults[:20]),
            )
        raise ToolError(
            f"cvmfs_server did not publish {site.fqrn} (exit code {done.returncode}): nothing was published; "
            f"{closed or 'the transaction was closed'}",
            hint="the lines above are the server's own; afpub doctor looks for the reason",
            detail=done.tail,
        )

    def _give_up(self, exc: BaseException) -> None:
        """Drops our transaction after a failure; a failure of that is told with the first one."""
        trouble = close_transaction(self._site, self._server)
        if trouble and isinstance(exc, AfpubError):
            exc.hint = f"{trouble}; {exc.hint}" if exc.hint else trouble


def open_site(site: Site) -> Reader:
    """A verified reader of the newest revision."""
    key = read_key_file(site.public_key)
    return open_repository(site.location, fqrn=site.fqrn, public_key=key)


def revision_of(reader: Reader) -> Revision:
    """The revision that a reader reads."""
    return Revision(number=reader.revision, root_hash=str(reader.root_hash))


def require_base(reader: Reader, changeset: Changeset) -> None:
    """Raises StaleBaseError when the repository is not at the changeset's base."""
    if str(reader.root_hash) != changeset.base.root_hash:
        raise StaleBaseError(
            f"{reader.source.where} moved on to revision {reader.revision} ({reader.root_hash}) since "
            f"{changeset.base.root_hash}",
            hint="run it again: it starts from the newest revision",
        )


def common_folder(want: Wanted) -> str:
    """The folder that holds all that changes."""
    paths = [path.rpartition("/")[0] for path in (*want.tops, *want.removals)]
    return os.path.commonpath(paths) if all(paths) else ""


def lease_path(site: Site, reader: Reader, want: Wanted) -> str:
    """The smallest part of the repository that a lease must cover; the folder that holds it must be there."""
    if not site.gateway:
        return ""
    path = common_folder(want)
    while path and reader.lookup(path.rpartition("/")[0]) is None:
        path = path.rpartition("/")[0]
    return path
