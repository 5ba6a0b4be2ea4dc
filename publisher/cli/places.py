"""Which repository a command means, and with which keys."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from publisher.backends.embedded import EmbeddedBackend
from publisher.cli.common import Session
from publisher.cvmfs.keys import KeyFiles
from publisher.cvmfs.reader import Reader, open_repository
from publisher.errors import UsageError
from publisher.names import Fqrn
from publisher.project.load import Project
from publisher.project.settings import find_project, load_settings


def now() -> dt.datetime:
    """The present, as every step of one command sees it."""
    return dt.datetime.now(tz=dt.UTC)


def revision_of(text: str) -> str | int:
    """A revision as the command line names it: digits are its number, everything else a tag or root digest."""
    return int(text) if text.isdecimal() else text


def backend_of(project: Project, *, wait_s: float = 0.0) -> EmbeddedBackend:
    """Where a project publishes.

    Raises:
        RepositoryError: there is no repository yet.
    """
    settings = project.settings
    return EmbeddedBackend(settings.repository, fqrn=settings.fqrn, keys=settings.keys, wait_s=wait_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A repository that a command reads, and perhaps writes."""

    location: str
    """A folder or an http(s) address."""
    keys: Path | None = None
    """Folder of its keys; None where none is known."""
    public_key: Path | None = None

    @property
    def folder(self) -> Path:
        """The local folder.

        Raises:
            UsageError: it is an address.
        """
        if "://" in self.location:
            raise UsageError(f"{self.location} can be read only", hint="give the folder of the repository")
        return Path(self.location)

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

    def backend(self, *, wait_s: float = 0.0) -> EmbeddedBackend:
        """The repository as a back-end that can be published into."""
        return EmbeddedBackend(self.folder, fqrn=self.fqrn(), keys=self.key_folder(), wait_s=wait_s)

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
        return Place(location=f"{settings.repository}", keys=keys or settings.keys, public_key=public_key)
    if "://" in repo:
        return Place(location=repo, keys=keys, public_key=public_key)
    folder = Path(repo).resolve()
    if settings is not None and folder == settings.repository.resolve():
        return Place(location=f"{folder}", keys=keys or settings.keys, public_key=public_key)
    beside = folder.parent / "keys"
    return Place(location=f"{folder}", keys=keys or (beside if beside.is_dir() else None), public_key=public_key)
