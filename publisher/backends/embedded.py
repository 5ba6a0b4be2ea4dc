"""The embedded back-end: a repository in the real CVMFS format in a local folder or a bucket."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

from publisher.backends.base import Changeset, Published, Revision
from publisher.cvmfs.bucket import Bucket
from publisher.cvmfs.crew import Hands
from publisher.cvmfs.digest import Algorithm, Digest
from publisher.cvmfs.export import export
from publisher.cvmfs.keys import KeyFiles, private_key_findings, read_key_file
from publisher.cvmfs.location import Location, storage_of
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.preflight import preflight
from publisher.cvmfs.publish import PublishProgress, publish
from publisher.cvmfs.reader import Reader, open_repository
from publisher.cvmfs.s3.conditions import HINT, check_conditions
from publisher.cvmfs.s3.connection import Connection
from publisher.cvmfs.settings import read_settings
from publisher.cvmfs.source import is_there
from publisher.cvmfs.storage import Storage
from publisher.errors import AfpubError, RepositoryError
from publisher.names import Fqrn, RepoPath
from publisher.progress import Progress
from publisher.report import Report, collect, error, note, warning


class EmbeddedBackend:
    """A repository that is published into by writing its files."""

    def __init__(
        self, location: Location, *, fqrn: Fqrn, keys: Path, wait_s: float = 0.0, hands: Hands | None = None
    ) -> None:
        """Finds the repository; the hands, if there are any, pack what is published."""
        storage = storage_of(location)
        if not is_there(storage, MANIFEST_NAME):
            raise RepositoryError(
                f"there is no repository in {storage.where}",
                hint=f"make it: afpub repo create {fqrn} --at {storage.where} --keys {keys}",
            )
        self._storage = storage
        self._fqrn = fqrn
        self._keys = keys
        self._wait_s = wait_s
        self._hands = hands

    @property
    def fqrn(self) -> Fqrn:
        """The repository's name."""
        return self._fqrn

    def open(self) -> Reader:
        """A verified reader of the newest revision."""
        public_key = read_key_file(KeyFiles(folder=self._keys, fqrn=self._fqrn).public_key)
        return open_repository(self._storage, fqrn=self._fqrn, public_key=public_key)

    def head(self) -> Revision:
        """The newest revision."""
        with self.open() as reader:
            return Revision(number=reader.revision, root_hash=str(reader.root_hash))

    def read(self, path: RepoPath) -> bytes | None:
        """The bytes of a small published file; None where there is none."""
        with self.open() as reader:
            return None if reader.lookup(path) is None else b"".join(reader.read(path))

    def preflight(self, changeset: Changeset) -> Report:
        """What would stop this changeset: keys that others can read, a tag that is taken, limits of the repository."""
        findings = list(private_key_findings(KeyFiles(folder=self._keys, fqrn=self._fqrn)))
        with self.open() as reader:
            if changeset.tag and any(tag.name == changeset.tag for tag in reader.tags()):
                findings.append(
                    error(
                        "tag",
                        self._storage.where,
                        f"the tag {changeset.tag!r} exists already",
                        hint=f"give the release a new version, or: afpub repo tag --remove {changeset.tag}",
                    )
                )
            limits = read_settings(self._storage, algorithm=reader.manifest.algorithm).limits
            return collect(findings) + preflight(reader, changeset.grafts, changeset.removals, limits)

    def publish(self, changeset: Changeset, *, progress: Callable[[int, int], None] | None = None) -> Published:
        """The revision that the changeset made; see :class:`publisher.backends.base.Backend`."""

        def tell(state: PublishProgress) -> None:
            if progress:
                progress(state.bytes_done, state.bytes_total)

        done = publish(
            self._storage,
            keys_folder=self._keys,
            now=dt.datetime.now(tz=dt.UTC),
            grafts=changeset.grafts,
            removals=changeset.removals,
            tag=changeset.tag,
            description=changeset.description,
            base=Digest.parse(changeset.base.root_hash),
            progress=tell,
            wait_s=self._wait_s,
            hands=self._hands,
        )
        return Published(
            revision=Revision(number=done.revision, root_hash=f"{done.root_hash}"),
            new=done.changed,
            files=done.files,
            read_bytes=done.read_bytes,
            stored_bytes=done.stored_bytes,
            objects=done.objects_new,
            seconds=done.seconds,
        )

    def export(self, path: RepoPath, folder: Path, progress: Progress) -> Path:
        """A verified plain copy of everything below a path, as a client would see it."""
        with self.open() as reader:
            export(reader, path, folder, progress=progress)
        return folder


def examine_bucket(address: str) -> Report:
    """Whether a bucket can be written to, and keeps two publishers apart: tried with an object."""
    bucket = Bucket.parse(address)
    server = Connection(bucket)
    try:
        check_conditions(server)
    except RepositoryError as exc:
        if exc.hint == HINT and _has_one_publisher(storage_of(address)):
            text = (
                f"{server.server} does not keep two publishers apart; the repository is set to have one (one_publisher)"
            )
            return collect([warning("bucket", bucket.where, text)])
        return collect([error("bucket", bucket.where, exc.message, hint=exc.hint)])
    text = f"{server.server} takes objects, and keeps two publishers apart"
    return collect([note("bucket", bucket.where, text)])


def _has_one_publisher(storage: Storage) -> bool:
    try:
        return read_settings(storage, algorithm=Algorithm.SHA1).one_publisher
    except AfpubError:
        return False
