"""File trees as values: what is to be published, and what was read back."""

from __future__ import annotations

import itertools
import marshal
import operator
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, overload

from publisher.errors import DiskError
from publisher.names import RepoPath

_PLAIN = 1 << 17
"""Entries of a tree that are kept as they are: packing takes time, and memory matters for big trees only."""
_NAME = operator.attrgetter("name")
"""Sorts ASCII names as their bytes would, and much faster."""
_PACK = 1 << 10
"""Entries packed together."""


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


class Entry(NamedTuple):
    """One file, directory, link or special file; a tuple, since there are very many, and nothing is made faster.

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
    content: str | bytes | None = None
    """Where the bytes of a file are: the path of a file on disk, or the bytes themselves. Path objects would take
    longer to make than all else that an entry has."""
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


class Kept(Sequence[Entry]):
    """The entries of a tree of any size in memory: those beyond the first ones are packed, in a tenth of the space."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        rest = iter(entries)
        self._plain = tuple(itertools.islice(rest, _PLAIN))
        self._packs: list[bytes] = []
        self._count = len(self._plain)
        while some := tuple(itertools.islice(rest, _PACK)):
            self._packs.append(zlib.compress(marshal.dumps([_flat(entry) for entry in some]), 1))
            self._count += len(some)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        yield from self._plain
        for pack in self._packs:
            yield from map(_entry_of, _unpacked(pack))

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...

    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        at = range(self._count)[index]
        if at < len(self._plain):
            return self._plain[at]
        pack, place = divmod(at - len(self._plain), _PACK)
        return _entry_of(_unpacked(self._packs[pack])[place])


_Flat = tuple[Any, ...]
"""The fields of an entry in their order, as plain values."""


def _flat(entry: Entry) -> _Flat:
    path, kind, *rest = entry
    return (path, kind.value, *rest)


def _entry_of(flat: _Flat) -> Entry:
    path, kind, *rest = flat
    return Entry(path, Kind(kind), *rest)


def _unpacked(pack: bytes) -> list[_Flat]:
    found: list[_Flat] = marshal.loads(zlib.decompress(pack))  # noqa: S302 - written by this object
    return found


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
            items = list(scan)
        ascii_only = "".join(map(_NAME, items)).isascii()
        items.sort(key=_NAME if ascii_only else _name_bytes, reverse=True)
        return [(item, f"{prefix}{item.name}") for item in items]


def _name_bytes(item: os.DirEntry[str]) -> bytes:
    return os.fsencode(item.name)


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
        content=path if kind is Kind.FILE else None,
        target=target,
        rdev=info.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
        xattrs=attributes,
        link_group=group,
    )
