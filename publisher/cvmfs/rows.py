"""One row of a catalog: a file, directory, link or special file as the format has it."""

from __future__ import annotations

import os
import stat
from enum import IntFlag
from functools import lru_cache
from typing import NamedTuple

from publisher.cvmfs import xattr
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.digest import DIGEST_BYTES, Algorithm, Digest
from publisher.errors import FormatError
from publisher.tree import FORMAT_OF_KIND, Entry, Kind

MARKER = ".cvmfscatalog"
"""The file that says that its directory begins a nested catalog."""
VIRTUAL = "/.cvmfs"
"""The hidden directory that some repositories have for their tags."""
_KIND_OF_FORMAT = {bits: kind for kind, bits in FORMAT_OF_KIND.items()}
_ALGORITHM_SHIFT = 8
_COMPRESSION_SHIFT = 11
_THREE_BITS = 7
_LIMIT_32 = 1 << 32
DIRECTORY_SIZE = 4096
"""What a directory's size says; any value is legal, a constant keeps catalogs the same on every disk."""


class Flag(IntFlag):
    """Bits of the flags column. Source: cvmfs/catalog_sql.h (2.12)."""

    DIRECTORY = 1
    MOUNT_POINT = 2
    """Row in the parent catalog."""
    FILE = 4
    """Everything that is no directory."""
    SYMLINK = 8
    SPECIAL = 16
    NESTED_ROOT = 32
    """Row in the nested catalog."""
    CHUNKED = 64
    EXTERNAL = 128
    BIND_MOUNT = 0x4000
    HIDDEN = 0x8000
    DIRECT_IO = 0x10000


_TYPE_BITS = Flag.DIRECTORY | Flag.FILE | Flag.SYMLINK | Flag.SPECIAL
_TYPE_OF_KIND = dict.fromkeys(Kind, Flag.FILE | Flag.SPECIAL) | {
    Kind.FILE: Flag.FILE,
    Kind.DIRECTORY: Flag.DIRECTORY,
    Kind.SYMLINK: Flag.FILE | Flag.SYMLINK,
}
# Plain numbers: combining a number with an enumeration takes fifty times longer than with another number.
_MOUNT_POINT, _BIND_MOUNT, _HIDDEN, _CHUNKED, _EXTERNAL = map(
    int, (Flag.MOUNT_POINT, Flag.BIND_MOUNT, Flag.HIDDEN, Flag.CHUNKED, Flag.EXTERNAL)
)
_BITS_OF_KIND = {kind: (FORMAT_OF_KIND[kind], int(flags)) for kind, flags in _TYPE_OF_KIND.items()}
"""The type bits of the mode and of the flags."""


def type_flags(kind: Kind) -> Flag:
    """The type bits that belong to a kind of entry."""
    return _TYPE_OF_KIND[kind]


class Chunk(NamedTuple):
    """A piece of a big file."""

    offset: int
    size_bytes: int
    digest: bytes
    """Raw digest, of the file's algorithm."""


class Row(NamedTuple):
    """One row of table ``catalog`` with its chunks, the path hashes replaced by the path.

    A tuple, as entries are.
    """

    path: str
    """``""`` for the root of the repository, else ``/a/b``."""
    mode: int
    """All of ``st_mode``, the type too."""
    uid: int = 0
    gid: int = 0
    size: int = 0
    """Bytes of a file or link target, device number of a device, anything for a directory."""
    mtime: int = 0
    mtimens: int | None = None
    flags: int = 0
    links: int = 1
    """Link count."""
    group: int = 0
    """Hard link group, 0 for none."""
    digest: bytes | None = None
    target: str = ""
    xattr: bytes | None = None
    chunks: tuple[Chunk, ...] = ()

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The path of the directory that holds it."""
        return self.path.rpartition("/")[0]

    @property
    def kind(self) -> Kind:
        """What it is, which the mode decides."""
        return _KIND_OF_FORMAT[stat.S_IFMT(self.mode)]

    @property
    def is_directory(self) -> bool:
        """True for directories."""
        return stat.S_ISDIR(self.mode)

    @property
    def mount_point(self) -> bool:
        """True where a nested catalog begins, seen from the parent."""
        return bool(self.flags & _MOUNT_POINT)

    @property
    def bind_mount(self) -> bool:
        """True where another revision is bound in."""
        return bool(self.flags & _BIND_MOUNT)

    @property
    def hidden(self) -> bool:
        """True for what is not listed."""
        return bool(self.flags & _HIDDEN)

    @property
    def chunked(self) -> bool:
        """True for files in pieces."""
        return bool(self.flags & _CHUNKED)

    @property
    def external(self) -> bool:
        """True for files whose data lie outside of the repository."""
        return bool(self.flags & _EXTERNAL)

    @property
    def algorithm(self) -> Algorithm:
        """What names the objects of the row."""
        return Algorithm.from_flag_bits((self.flags >> _ALGORITHM_SHIFT) & _THREE_BITS)

    @property
    def compression(self) -> Compression:
        """How the objects of the row are stored."""
        number = (self.flags >> _COMPRESSION_SHIFT) & _THREE_BITS
        if number > Compression.NONE:
            raise FormatError(f"unknown compression number {number}")
        return Compression(number)

    @property
    def content(self) -> Digest | None:
        """The digest of the whole file's object."""
        return None if self.digest is None else Digest(raw=self.digest, algorithm=self.algorithm)

    def entry(self, path: str) -> Entry:
        """The row as an entry of a tree in which it has the given path."""
        kind = self.kind
        return Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(self.mode),
            uid=self.uid,
            gid=self.gid,
            mtime_s=self.mtime,
            mtime_ns=self.mtimens or 0,
            size_bytes=self._shown_size(kind),
            target=self.target,
            rdev=self.size if kind in (Kind.CHAR, Kind.BLOCK) else 0,
            xattrs=xattr.decode(self.xattr),
            link_group=self.group,
        )

    def _shown_size(self, kind: Kind) -> int:
        if kind is Kind.FILE:
            return self.size
        return len(os.fsencode(self.target)) if kind is Kind.SYMLINK else 0


def tree_place(row: Row) -> bytes:
    """Sorts rows as a tree has them: each directory before what it holds, siblings by the bytes of their names."""
    return os.fsencode(row.path).replace(b"/", b"\0")  # which is in no name, and before all that is


class Content(NamedTuple):
    """Where the bytes of a published file are."""

    size_bytes: int
    algorithm: Algorithm
    compression: Compression
    digest: bytes | None = None
    chunks: tuple[Chunk, ...] = ()

    @property
    def flags(self) -> int:
        """The bits that say how the content is stored."""
        return _content_flags(self.algorithm, self.compression, chunked=bool(self.chunks))


@lru_cache
def _content_flags(algorithm: Algorithm, compression: Compression, *, chunked: bool) -> int:
    bits = (algorithm.flag_bits << _ALGORITHM_SHIFT) | (compression << _COMPRESSION_SHIFT)
    return int(bits | (Flag.CHUNKED if chunked else 0))


def row_of_entry(entry: Entry, path: str, content: Content | None, *, nanoseconds: bool) -> Row:
    """The row of an entry that is published at a path; links are counted later.

    Raises:
        RepositoryError: the format cannot hold its attributes.
    """
    kind = entry.kind
    format_bits, flags = _BITS_OF_KIND[kind]
    size, group = 0, entry.link_group
    digest: bytes | None = None
    chunks: tuple[Chunk, ...] = ()
    if content is not None:
        size, digest, chunks = content.size_bytes, content.digest, content.chunks
        flags |= content.flags
    elif kind is Kind.DIRECTORY:
        size, group = DIRECTORY_SIZE, 0
    elif kind is Kind.SYMLINK:
        size = len(os.fsencode(entry.target))
    elif kind is Kind.CHAR or kind is Kind.BLOCK:
        size = entry.rdev
    return Row(
        path=path,
        mode=format_bits | entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        size=size,
        mtime=entry.mtime_s,
        mtimens=entry.mtime_ns if nanoseconds else None,
        flags=flags,
        group=group,
        digest=digest,
        target=entry.target,
        xattr=xattr.encode(entry.xattrs, where=path or "/") if entry.xattrs else None,
        chunks=chunks,
    )


def name_fault(name: str) -> str:
    """Why a name of a directory entry is hostile; empty when it is not."""
    if not name:
        return "is empty"
    if name in {".", ".."}:
        return f"is {name!r}"
    if "/" in name or "\0" in name:
        return f"is {name!r}, which would lead out of its directory"
    return ""


def row_fault(row: Row) -> str:
    """Why a row cannot be read; empty when it can."""
    if not 0 <= row.mode < _LIMIT_32 or stat.S_IFMT(row.mode) not in _KIND_OF_FORMAT:
        return f"the mode {row.mode:o} is of no known type"
    faults = (
        (row.size < 0, f"the size {row.size} is negative"),
        (not (0 <= row.uid < _LIMIT_32 and 0 <= row.gid < _LIMIT_32), f"the owner is {row.uid}:{row.gid}"),
        (
            row.digest is not None and len(row.digest) != DIGEST_BYTES,
            f"the digest has {len(row.digest or b'')} bytes",
        ),
        ("\0" in row.target, "the link's target holds a zero byte"),
        (not 0 <= (row.mtimens or 0) < 1_000_000_000, f"the nanoseconds are {row.mtimens}"),
    )
    return next((text for wrong, text in faults if wrong), "") or _kind_fault(row)


def _kind_fault(row: Row) -> str:
    kind = row.kind
    if kind is Kind.SYMLINK and not row.target:
        return "the symbolic link has no target"
    if kind is not Kind.FILE:
        return ""
    if row.digest is None and not row.chunked and not row.external:
        return "the file has no digest"
    if row.chunked and not row.external:
        return chunk_fault(row.chunks, row.size)
    return ""


def chunk_fault(chunks: tuple[Chunk, ...], size_bytes: int) -> str:
    """Why chunks do not make up a file; empty when they do."""
    if not chunks:
        return "the file is in chunks, but there are none"
    end = 0
    for chunk in chunks:
        if chunk.offset != end or chunk.size_bytes <= 0:
            return f"the chunks have a gap or overlap at byte {end}"
        if len(chunk.digest) != DIGEST_BYTES:
            return f"the digest of the chunk at byte {end} has {len(chunk.digest)} bytes"
        end += chunk.size_bytes
    return "" if end == size_bytes else f"the chunks end at byte {end}, the file at {size_bytes}"
