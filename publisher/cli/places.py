"""Which repository a command means, and with which keys."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from publisher.backends.embedded import EmbeddedBackend
from publisher.backends.server.backend import ServerBackend, never
from publisher.backends.server.site import ServerOptions, Way
from publisher.cli.common import Session
from publisher.cvmfs.bucket import Bucket
from publisher.cvmfs.crew import Hands
from publisher.cvmfs.keys import KeyFiles
from publisher.cvmfs.location import is_bucket, storage_of
from publisher.cvmfs.reader import Reader, open_repository
from publisher.cvmfs.settings import read_settings
from publisher.cvmfs.storage import Storage
from publisher.errors import UsageError
from publisher.names import Fqrn
from publisher.progress import Progress
from publisher.project.load import Project
from publisher.project.settings import SERVER, Settings, find_project, load_settings

_SPOOL = "spool"
"""Local files of a repository in a bucket, below the work folder of the project."""


def now() -> dt.datetime:
    """The present, as every step of one command sees it."""
    return dt.datetime.now(tz=dt.UTC)


def revision_of(text: str) -> str | int:
    """A revision as the command line names it: digits are its number, everything else a tag or root digest."""
    return int(text) if text.isdecimal() else text


ProjectBackend = EmbeddedBackend | ServerBackend
"""What a project publishes into."""


def backend_of(
    project: Project, *, wait_s: float = 0.0, ask: Callable[[str], bool] = never, progress: Progress | None = None
) -> ProjectBackend:
    """Where a project publishes.

    Args:
        project: the project.
        wait_s: how long to wait for other publishers, in seconds.
        ask: whether the transaction of a dead afpub may be aborted.
        progress: hears about uploads into a bucket.

    Raises:
        RepositoryError: there is no repository yet.
    """
    settings = project.settings
    if settings.backend == SERVER:
        return server_of(settings, wait_s=wait_s, ask=ask)
    storage = storage_of(settings.repository, spool=settings.work / _SPOOL, progress=progress)
    return EmbeddedBackend(storage, fqrn=settings.fqrn, keys=settings.keys, wait_s=wait_s)


def ready_backend(
    session: Session, project: Project, *, wait_s: float, recover: bool, progress: Progress | None = None
) -> ProjectBackend:
    """Where a project publishes, when it is able to; a site's server is examined before anything is done.

    Raises:
        CheckFailedError: it is not able to; the findings have been shown.
        RepositoryError: there is no repository yet.
    """

    def ask(question: str) -> bool:
        return recover or (session.screen.interactive and typer.confirm(question, err=True))

    backend = backend_of(project, wait_s=wait_s, ask=ask, progress=progress)
    if isinstance(backend, ServerBackend):
        report = backend.examine()
        session.screen.report(report)
        session.conclude(report, "nothing was published")
    return backend


def server_of(settings: Settings, *, wait_s: float = 0.0, ask: Callable[[str], bool] = never) -> ServerBackend:
    """The site's own server.

    Raises:
        RepositoryError: it does not have the repository.
    """
    own = settings.server
    options = ServerOptions(
        work=settings.work / "server",
        config=own.config,
        program=own.program,
        way=Way(own.way),
        whitelist_days=own.whitelist_days,
    )
    return ServerBackend(settings.fqrn, options, wait_s=wait_s, ask=ask)


def published_at(settings: Settings) -> tuple[str, Path]:
    """The folder or address that a project's repository is read from, and its public key.

    Raises:
        RepositoryError: the server does not have the repository.
    """
    if settings.backend == SERVER:
        site = server_of(settings).site
        return f"{site.location}", site.public_key
    return f"{settings.repository}", KeyFiles(folder=settings.keys, fqrn=settings.fqrn).public_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A repository that a command reads, and perhaps writes."""

    location: str
    """A folder, the address of a bucket, or an http(s) address."""
    keys: Path | None = None
    """Folder of its keys; None where none is known."""
    public_key: Path | None = None
    settings: Settings | None = None
    """Of the project whose server has it."""
    spool: Path | None = None
    """Folder for local files of a repository in a bucket; None for the usual one."""

    def storage(self, progress: Progress | None = None) -> Storage:
        """Where to write to.

        Raises:
            UsageError: it is an http(s) address, or belongs to another program.
        """
        self._check_own()
        return storage_of(self.location, spool=self.spool, progress=progress)

    @property
    def folder(self) -> Path:
        """The local folder.

        Raises:
            UsageError: it is an address, or belongs to another program.
        """
        self._check_own()
        if "://" in self.location:
            raise UsageError(f"{self.location} is no folder", hint="give the folder of the repository")
        return Path(self.location)

    def _check_own(self) -> None:
        if self.settings is not None:
            raise UsageError(
                f"{self.location} belongs to cvmfs_server, which does this itself",
                hint="look at: cvmfs_server help",
            )

    def fqrn(self) -> Fqrn:
        """The name that the repository gives itself; not verified."""
        with open_repository(self.location) as reader:
            return Fqrn(reader.fqrn)

    def key_folder(self) -> Path:
        """The folder of the keys.

        Raises:
            UsageError: none is known.
        """
        if self.keys is None:
            raise UsageError("where are the keys of the repository?", hint="name their folder: --keys FOLDER")
        return self.keys

    def backend(
        self, *, wait_s: float = 0.0, progress: Progress | None = None, hands: Hands | None = None
    ) -> ProjectBackend:
        """The repository as a back-end that can be published into."""
        if self.settings is not None:
            return server_of(self.settings, wait_s=wait_s)
        storage, keys = self.storage(progress), self.key_folder()
        return EmbeddedBackend(storage, fqrn=self.fqrn(), keys=keys, wait_s=wait_s, hands=hands)

    def hands(self) -> Hands:
        """Processes to pack what is published here; none for a site's server, which packs itself."""
        if self.settings is not None:
            return Hands(1)
        storage = self.storage()
        with open_repository(storage) as reader:
            return Hands(read_settings(storage, algorithm=reader.manifest.algorithm).jobs)

    def open(self, session: Session, *, at: str = "") -> Reader:
        """A reader of the newest revision, or of another one, verified when a public key is known."""
        key = self.public_key
        if key is None and self.keys is not None:
            own = KeyFiles(folder=self.keys, fqrn=self.fqrn()).public_key
            key = own if own.exists() else None
        if key is None:
            session.screen.say("no public key is known: digests are checked, signatures are not (--key FILE)")
        reader = open_repository(self.location, public_key=key.read_bytes() if key else None)
        return reader.at(revision_of(at)) if at else reader


def find_place(session: Session, repo: str, *, keys: Path | None = None, public_key: Path | None = None) -> Place:
    """The repository of the command line, or that of the project.

    Keys that are not named are those of the project when it is the project's repository, else those in the
    folder ``keys`` beside it.

    Raises:
        UsageError: neither is there.
    """
    root = find_project(session.folder)
    settings = load_settings(root) if root else None
    if not repo:
        if settings is None:
            raise UsageError("which repository?", hint="name it: --repo FOLDER or --repo http://host/cvmfs/NAME")
        if settings.backend == SERVER:
            location, own = published_at(settings)
            return Place(location=location, keys=keys, public_key=public_key or own, settings=settings)
        repo = f"{settings.repository}"
    if settings is not None and _is_that_of(settings, repo):
        return Place(
            location=f"{settings.repository}",
            keys=keys or settings.keys,
            public_key=public_key,
            spool=settings.work / _SPOOL,
        )
    if "://" in repo:
        return Place(location=repo, keys=keys, public_key=public_key)
    folder = Path(repo).resolve()
    beside = folder.parent / "keys"
    return Place(location=f"{folder}", keys=keys or (beside if beside.is_dir() else None), public_key=public_key)


def _is_that_of(settings: Settings, repo: str) -> bool:
    if is_bucket(repo):
        same = is_bucket(settings.repository) and Bucket.parse(f"{settings.repository}").where
        return Bucket.parse(repo).where == same
    return "://" not in repo and Path(repo).resolve() == Path(settings.repository).resolve()
