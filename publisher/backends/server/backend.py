"""Driving a site's own ``cvmfs_server``: everything is built, stored and compared before the transaction opens."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from publisher.backends.base import Changeset, Published, Revision
from publisher.backends.server.carry import Carrier, lease_path, open_site, require_base, revision_of
from publisher.backends.server.compare import compare, wanted
from publisher.backends.server.describe import can_store
from publisher.backends.server.job import Tally, prepare
from publisher.backends.server.preflight import changeset_findings, lease_findings, server_findings
from publisher.backends.server.program import Server, safe_description
from publisher.backends.server.recovery import question, require_free
from publisher.backends.server.site import ServerOptions, Site, Way, read_site
from publisher.backends.server.state import LOCK_NAME, Holder, transaction_of
from publisher.backends.server.sums import Sums
from publisher.cvmfs.export import export
from publisher.cvmfs.lock import exclusive
from publisher.cvmfs.reader import Reader
from publisher.errors import AfpubError, AlreadyPublishedError, RepositoryError
from publisher.names import Fqrn, RepoPath, TagName
from publisher.progress import Progress
from publisher.report import Report, collect, note


def never(_question: str) -> bool:
    """The answer to a question that nobody is asked."""
    return False


def always(_question: str) -> bool:
    """The answer of somebody who has agreed already."""
    return True


class ServerBackend:
    """A repository of a site's own server, published into with ``cvmfs_server``."""

    def __init__(
        self,
        fqrn: Fqrn,
        options: ServerOptions,
        *,
        wait_s: float = 0.0,
        ask: Callable[[str], bool] = never,
    ) -> None:
        """A back-end for a repository of this machine.

        Args:
            fqrn: its name.
            options: how the server is driven.
            wait_s: how long to wait for other publishers, in seconds.
            ask: whether a transaction that a dead afpub left open may be aborted; gets the question.

        Raises:
            RepositoryError: the server does not have it.
        """
        self._site = read_site(options, fqrn)
        self._options = options
        self._server = Server(site=self._site, program=options.program)
        self._wait_s = wait_s
        self._ask = ask

    @property
    def fqrn(self) -> Fqrn:
        """The repository's name."""
        return self._site.fqrn

    @property
    def site(self) -> Site:
        """What the server says of itself."""
        return self._site

    def open(self) -> Reader:
        """A verified reader of the newest revision."""
        return open_site(self._site)

    def head(self) -> Revision:
        """The newest revision."""
        with self.open() as reader:
            return revision_of(reader)

    def read(self, path: RepoPath) -> bytes | None:
        """The bytes of a small published file; None where there is none."""
        with self.open() as reader:
            return None if reader.lookup(path) is None else b"".join(reader.read(path))

    def export(self, path: RepoPath, folder: Path, progress: Progress) -> Path:
        """A verified plain copy of everything below a path, as a client would see it."""
        with self.open() as reader:
            export(reader, path, folder, progress=progress)
        return folder

    def examine(self) -> Report:
        """Whether the server is able to publish, whatever comes; asks about the transaction of a dead afpub."""
        found = transaction_of(self._site)
        agreed = found.holder is Holder.DEAD_AFPUB and self._ask(question(self._site, found))
        now = dt.datetime.now(tz=dt.UTC)
        findings = server_findings(self._site, self._options, now=now)
        if not agreed:
            return collect(findings)
        self._ask = always
        text = f"the transaction opened {found.whose}, which has ended, will be aborted"
        kept = [finding for finding in findings if finding.check != "transaction"]
        return collect((*kept, note("transaction", f"{self._site.transaction_lock}", text)))

    def preflight(self, changeset: Changeset) -> Report:
        """What would stop this changeset; nothing is touched."""
        report = self.examine()
        try:
            want = wanted(changeset)
            with self.open() as reader:
                described = self._way() is Way.DESCRIBE
                report += collect(changeset_findings(self._site, reader, want, changeset, described=described))
                report += collect(lease_findings(self._site, lease_path(self._site, reader, want)))
        except AfpubError:
            if report.ok:  # otherwise the reason is in the report
                raise
        return report

    def publish(self, changeset: Changeset, *, progress: Callable[[int, int], None] | None = None) -> Published:
        """The revision that the changeset made; see :class:`publisher.backends.base.Backend`."""
        start = time.monotonic()
        safe_description(changeset.description)
        with self._alone(), self.open() as reader, Sums(self._file("sums.sqlite")) as sums:
            require_free(self._site, self._server, self._ask, wait_s=self._wait_s)
            require_base(reader, changeset)
            want = wanted(changeset)
            tally = Tally(sum(entry.size_bytes for entry in want.files), progress)
            edits = compare(want, reader, sums, now_s=int(time.time()), progress=tally.add)
            _require_new_tag(reader, changeset, changes=not edits.empty)
            if edits.empty:
                tally.finish()
                return self._nothing(reader, changeset)
            index = self._file("contents.sqlite")
            job = prepare(self._site, self._way(), changeset, want, edits, index=index, tally=tally)
            done = Carrier(self._site, self._server, way=self._options.way, wait_s=self._wait_s).carry_out(
                job, reader, start
            )
            tally.finish()
            return done

    def tag(self, *, add: TagName | None, remove: TagName | None) -> None:
        """Gives the newest revision a name, or forgets one.

        Raises:
            ToolError: the server did not.
        """
        with self._alone():
            require_free(self._site, self._server, self._ask, wait_s=self._wait_s)
            if remove:
                self._server.untag(remove)
            if add:
                self._server.tag(add, "")

    def recover(self) -> str:
        """Aborts the transaction that a dead afpub left open, after asking; what was done, as a sentence.

        Raises:
            TransactionOpenError: the transaction is somebody else's, or the answer was no.
        """
        with self._alone():
            return require_free(self._site, self._server, self._ask, wait_s=0.0)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One afpub at a time; the server sees only whether a transaction is open."""
        path = self._site.spool / LOCK_NAME
        with exclusive(path, what=f"the repository {self._site.fqrn}", wait_s=self._wait_s):
            if os.geteuid() == 0:  # its owner must be able to use it too
                info = self._site.spool.stat()
                os.chown(path, info.st_uid, info.st_gid)
            yield

    def _file(self, name: str) -> Path:
        return self._options.work / f"{self._site.fqrn}.{name}"

    def _way(self) -> Way:
        way = self._options.way
        if way is Way.AUTO:
            return Way.COPY if can_store(self._site) else Way.DESCRIBE
        objection = can_store(self._site) if way is Way.DESCRIBE else ""
        if objection:
            raise RepositoryError(
                f"files cannot be described to this server: {objection}",
                hint='set way = "auto" or "copy" in afpub.toml',
            )
        return way

    def _nothing(self, reader: Reader, changeset: Changeset) -> Published:
        """The repository holds all of it already; a new tag is given to the newest revision."""
        tag = changeset.tag
        if tag and not any(each.name == tag for each in reader.tags()):
            self._server.tag(tag, changeset.description)
        return Published(revision=revision_of(reader), new=False)


def _require_new_tag(reader: Reader, changeset: Changeset, *, changes: bool) -> None:
    former = next((tag for tag in reader.tags() if tag.name == changeset.tag), None)
    if former is not None and (changes or former.root != reader.root_hash):
        raise AlreadyPublishedError(
            f"the tag {former.name!r} exists already: it names revision {former.revision}",
            hint="choose another tag; tags never move",
        )
