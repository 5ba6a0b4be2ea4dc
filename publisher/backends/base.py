"""What every back-end does: take a changeset, make it one revision, all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from publisher.names import Fqrn, RepoPath, TagName
from publisher.progress import Progress
from publisher.report import Report
from publisher.tree import Graft


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """A state of a repository."""

    number: int
    root_hash: str
    """Text of the root catalog's digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changeset:
    """Everything that one revision changes."""

    base: Revision
    """The state that the changes were made for."""
    grafts: tuple[Graft, ...] = field(default=(), repr=False)
    removals: tuple[RepoPath, ...] = ()
    tag: TagName | None = None
    description: str = ""
    """Words without spaces or shell characters: some servers pass it through a shell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a publish did."""

    revision: Revision
    new: bool
    """False when the repository held all of it already."""
    files: int = 0
    read_bytes: int = 0
    """Bytes read from the source trees."""
    stored_bytes: int = 0
    """Bytes of new objects."""
    objects: int = 0
    """New objects."""
    seconds: float = 0.0
    open_seconds: float = 0.0
    """How long a transaction was open, in which nobody else can publish; 0 where there is none."""
    notes: tuple[str, ...] = ()
    """What the release manager should know, each a sentence."""


class Backend(Protocol):
    """A repository that can be published into. The contract is tests/contract.

    Atomic: readers see the old revision or the new one. Idempotent: a changeset that changes nothing makes
    no revision. The signed manifest is the commit point.
    """

    @property
    def fqrn(self) -> Fqrn:
        """The repository's name."""

    def head(self) -> Revision:
        """The newest revision."""

    def preflight(self, changeset: Changeset) -> Report:
        """What would stop this changeset, found before anything is touched."""

    def publish(self, changeset: Changeset, *, progress: Callable[[int, int], None] | None = None) -> Published:
        """The revision that the changeset made.

        Args:
            changeset: what to change.
            progress: called with bytes done and bytes in all.

        Raises:
            StaleBaseError: the repository is not at ``changeset.base`` any more.
            TransactionOpenError: another publisher is at work.
            TrustError: the whitelist has expired or a key does not fit.
            DiskError: the disk is full, or a source file cannot be read or changed meanwhile.
        """

    def read(self, path: RepoPath) -> bytes | None:
        """The bytes of a small published file; None where there is none."""

    def export(self, path: RepoPath, folder: Path, progress: Progress) -> Path:
        """A verified plain copy of everything below a path, as a client would see it.

        Args:
            path: a directory of the repository.
            folder: becomes the copy of that directory; what is right in it already is not written again.
            progress: hears about it.

        Returns:
            The folder.
        """
