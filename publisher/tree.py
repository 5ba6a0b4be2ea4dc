"""File trees as values: what is to be published, and what was read back."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from publisher.errors import DiskError
from publisher.names import RepoPath


class Kind(StrEnum):
    """The type of an entry."""

    FILE = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHAR = "char"
    BLOCK = "block"


_KIND_OF_FORMAT = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}
FORMAT_OF_KIND = {kind: bits for bits, kind in _KIND_OF_FORMAT.items()}
"""The type bits of ``st_mode`` for each kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file, directory, link or special file.

    Names are text as :func:`os.fsdecode` gives it, so that any bytes survive
    (:func:`os.fsencode` gives them back).
    """

    path: str
    """Path below the tree's root without a leading slash; ``""`` is the root itself."""
    kind: Kind
    mode: int
    """Permission bits with set-id and sticky (``st_mode & 0o7777``)."""
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    """Modification time in whole seconds since 1970, may be negative."""
    mtime_ns: int = 0
    """Nanosecond part, 0..999999999."""
    size_bytes: int = 0
    """Bytes of content for a file, bytes of the target for a symbolic link, else 0."""
    content: Path | bytes | None = None
    """Where the bytes of a file are: a file on disk, or the bytes themselves."""
    target: str = ""
    """Target of a symbolic link."""
    rdev: int = 0
    """Device number of a device, as :func:`os.makedev` gives it."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    """Extended attributes, sorted by name."""
    link_group: int = 0
    """Hard links of one file in one directory share a number; 0 for none."""

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The path of the directory that holds the entry."""
        return self.path.rpartition("/")[0]


Tree = Iterable[Entry]
"""Entries in pre-order: the root first, each directory before what it holds, siblings by name bytes.

Can be iterated more than once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graft:
    """A tree to be put into a repository in the place of whatever is there."""

    at: RepoPath
    tree: Tree = field(repr=False)
    catalogs: frozenset[str] = frozenset()
    """Paths in the tree that begin a nested catalog; ``""`` is the tree's root."""


def pre_order(entries: Iterable[Entry]) -> list[Entry]:
    """The entries sorted as a :data:`Tree` has them."""
    return sorted(entries, key=lambda entry: os.fsencode(entry.path).split(b"/") if entry.path else [])


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderTree:
    """The tree of a folder on disk, read anew at each iteration."""

    folder: Path
    xattrs: bool = False
    """Read extended attributes too."""

    def __iter__(self) -> Iterator[Entry]:
        links: dict[tuple[int, int, str], int] = {}
        path = f"{self.folder}"
        try:
            yield _entry(path, "", self.folder.stat(), xattrs=self.xattrs, links=links)
            waiting = self._listing(path, "")
            while waiting:
                item, inner = waiting.pop()
                path = item.path
                entry = _entry(path, inner, item.stat(follow_symlinks=False), xattrs=self.xattrs, links=links)
                yield entry
                if entry.kind is Kind.DIRECTORY:
                    waiting += self._listing(path, f"{inner}/")
        except OSError as exc:
            raise DiskError(
                f"cannot read {path}: {exc.strerror}",
                hint="let nothing write to the folder meanwhile" if isinstance(exc, FileNotFoundError) else "",
            ) from exc

    @staticmethod
    def _listing(folder: str, prefix: str) -> list[tuple[os.DirEntry[str], str]]:
        """What a folder holds, the last first, with the paths in the tree; a stack, so that no tree is too deep."""
        with os.scandir(folder) as scan:
            items = sorted(scan, key=lambda item: os.fsencode(item.name), reverse=True)
        return [(item, f"{prefix}{item.name}") for item in items]


def _entry(
    path: str,
    name: str,
    info: os.stat_result,
    *,
    xattrs: bool,
    links: dict[tuple[int, int, str], int],
) -> Entry:
    kind = _KIND_OF_FORMAT[stat.S_IFMT(info.st_mode)]
    seconds, nanoseconds = divmod(info.st_mtime_ns, 1_000_000_000)
    target, size, group = "", 0, 0
    if kind is Kind.FILE:
        size = info.st_size
        if info.st_nlink > 1:
            group = links.setdefault((info.st_dev, info.st_ino, name.rpartition("/")[0]), len(links) + 1)
    elif kind is Kind.SYMLINK:
        target = os.readlink(path)
        size = len(os.fsencode(target))
    attributes: tuple[tuple[str, bytes], ...] = ()
    if xattrs:
        attributes = tuple(
            (key, os.getxattr(path, key, follow_symlinks=False))
            for key in sorted(os.listxattr(path, follow_symlinks=False))
        )
    return Entry(
        path=name,
        kind=kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        mtime_s=seconds,
        mtime_ns=nanoseconds,
        size_bytes=size,
        content=Path(path) if kind is Kind.FILE else None,
        target=target,
        rdev=info.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
        xattrs=attributes,
        link_group=group,
    )
