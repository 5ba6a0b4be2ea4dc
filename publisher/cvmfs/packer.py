"""Turning bytes into objects: read, hash, compress, write under a temporary name. What every worker does.

Knows nothing of repositories and their rules, so that a worker process starts quickly and needs little memory.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blake3 import blake3

from publisher.cvmfs.chunker import ChunkRule, Read, lengths
from publisher.cvmfs.compression import Compression, Compressor
from publisher.cvmfs.digest import Algorithm, ObjectKind
from publisher.cvmfs.disk import failing_as, write_new
from publisher.errors import DiskError

READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How files to publish are opened: a link or a pipe in the place of one is noticed, not followed or waited for."""
_REMEMBERED = 50_000
"""Most contents that a packer remembers to have packed: bounds its memory."""


_PLAIN = Compressor(compression=Compression.NONE)


class Part(NamedTuple):
    """A file or a piece of one, to be packed."""

    source: str | bytes
    """The path of the file, or the bytes of this part themselves."""
    name: str
    """The entry, for messages where there is no file."""
    size: int
    """Bytes of the whole file."""
    start: int
    length: int
    mtime_ns: int
    """What the file's time must be; -1 where any will do."""
    plain: bool = False
    """Stored as it is, whatever the plan says."""
    cut: bool = False
    """A big file, which the packer cuts: it answers with its pieces."""


class Packed(NamedTuple):
    """What became of a part."""

    key: bytes
    """Names the content in the index."""
    digest: bytes
    """Raw digest of the object."""
    stored_bytes: int
    temporary: str
    """The file that holds the object; empty for a content that the store has already."""
    length: int
    """Bytes of the content."""
    seen: bool = False
    """The object was looked for, and is there."""


Known = Callable[[Sequence[bytes]], Mapping[bytes, tuple[bytes, int]]]
"""The digests and stored sizes of those contents that the store has, by key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How contents are packed; the same for all workers of a publish."""

    algorithm: Algorithm
    compressor: Compressor
    index: str
    """The content index; empty for none."""
    scratch: str
    """What the paths of temporary files begin with."""
    rule: ChunkRule
    """Where big files are cut."""
    objects: str
    """What the paths of objects begin with, where they are files; else empty, and whoever gets the answer looks."""


def storing(algorithm: Algorithm, compressor: Compressor) -> bytes:
    """32 bytes that stand for a way to store contents."""
    return blake3(f"{algorithm} {compressor.key}".encode()).digest()


def content_key(data: bytes, how: bytes) -> bytes:
    """What names a content, stored in a certain way (:func:`storing`), in the index."""
    return blake3(data, key=how).digest()


class Packer:
    """Packs parts; each content once."""

    def __init__(self, plan: Plan, known: Known) -> None:
        self._algorithm = plan.algorithm
        self._compressor = plan.compressor
        self._rule = plan.rule
        self._how = storing(plan.algorithm, plan.compressor)
        self._how_plain = storing(plan.algorithm, _PLAIN)
        self._scratch = f"{plan.scratch}{os.getpid()}-{os.urandom(4).hex()}-"
        self._objects = plan.objects
        self._known = known
        self._mine: dict[bytes, tuple[bytes, int]] = {}
        self._count = 0

    def pack(self, parts: Sequence[Part]) -> list[Packed]:
        """What became of each part, in the same order; of each piece, for a file that is to be cut.

        Raises:
            DiskError: a file cannot be read, is not what the part says any more, or an object cannot be written.
        """
        if parts[0].cut:
            return [packed for part in parts for piece in pieces(part, self._rule) for packed in self.pack((piece,))]
        contents = [_content(part) for part in parts]
        keys = [
            content_key(data, self._how_plain if part.plain else self._how)
            for part, data in zip(parts, contents, strict=True)
        ]
        known = self._known(keys)
        if len(self._mine) > _REMEMBERED:
            self._mine.clear()
        return [
            self._packed(part, key, data, known.get(key)) for part, key, data in zip(parts, keys, contents, strict=True)
        ]

    def _packed(self, part: Part, key: bytes, data: bytes, known: tuple[bytes, int] | None) -> Packed:
        if known is not None and (not self._objects or self._is_there(kind_of(part), *known)):
            return Packed(key, *known, "", len(data), bool(self._objects))
        if twin := self._mine.get(key):
            return Packed(key, *twin, "", len(data))
        stored = data if part.plain else self._compressor.compress(data)
        digest = self._algorithm.raw_digest(stored)
        temporary = f"{self._scratch}{self._count}"
        self._count += 1
        write_new(temporary, stored)
        self._mine[key] = (digest, len(stored))
        return Packed(key, digest, len(stored), temporary, len(data))

    def _is_there(self, kind: ObjectKind, digest: bytes, stored_bytes: int) -> bool:
        try:
            return os.stat(self._objects + self._algorithm.object_name(digest, kind)).st_size == stored_bytes  # noqa: PTH116 - a path as text
        except OSError:
            return False


def kind_of(part: Part) -> ObjectKind:
    """The kind of object that a part becomes."""
    return ObjectKind.FILE if part.length == part.size else ObjectKind.CHUNK


def _content(part: Part) -> bytes:
    source = part.source
    if isinstance(source, bytes):
        if len(source) != part.length:
            raise changed(f"/{part.name}")
        return source
    try:
        descriptor = os.open(source, READ_ONLY)
        try:
            return _read(descriptor, part)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise DiskError(f"cannot read {source}: {exc.strerror}") from exc


def _read(descriptor: int, part: Part) -> bytes:
    """The bytes of a part, with as few calls as can be; checks that the file is as it was, before and after."""
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode) or before.st_size != part.size or part.mtime_ns not in {-1, before.st_mtime_ns}:
        raise changed(part.source)
    data = os.pread(descriptor, part.length, part.start)
    while len(data) < part.length:
        more = os.pread(descriptor, part.length - len(data), part.start + len(data))
        if not more:
            raise changed(part.source)
        data += more
    after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise changed(part.source)
    return data


def pieces(whole: Part, rule: ChunkRule) -> Iterator[Part]:
    """The pieces of a big file.

    Raises:
        DiskError: it cannot be read, or is not what the part says any more.
    """
    source = whole.source
    if isinstance(source, bytes):
        if len(source) != whole.size:
            raise changed(f"/{whole.name}")
        for part in _parts(whole, lambda start, count: source[start : start + count], rule):
            yield part._replace(source=source[part.start : part.start + part.length])
        return
    with failing_as("read", source):
        descriptor = os.open(source, READ_ONLY)
        try:
            info = os.fstat(descriptor)
            if info.st_size != whole.size:
                raise changed(source)
            yield from _parts(whole._replace(mtime_ns=info.st_mtime_ns), functools.partial(_read_at, descriptor), rule)
        finally:
            os.close(descriptor)


def _read_at(descriptor: int, start: int, count: int) -> bytes:
    return os.pread(descriptor, count, start)


def _parts(whole: Part, read: Read, rule: ChunkRule) -> Iterator[Part]:
    start = 0
    for length in lengths(read, whole.size, rule):
        yield whole._replace(start=start, length=length, cut=False)
        start += length


def changed(what: object) -> DiskError:
    """The error for a file that is not what the tree says any more."""
    return DiskError(
        f"{what} changed while it was published",
        hint="let nothing write to the folder meanwhile, and run it again",
    )
