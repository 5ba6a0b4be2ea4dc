"""Turning bytes into objects: read, hash, compress, write under a temporary name. What every worker does.

Knows nothing of repositories and their rules, so that a worker process starts quickly and needs little memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from blake3 import blake3

from publisher.cvmfs.chunker import ChunkRule, Read, cuts_behind, next_length
from publisher.cvmfs.compression import Compression, Compressor
from publisher.cvmfs.digest import Algorithm, ObjectKind
from publisher.cvmfs.disk import failing_as, write_new
from publisher.errors import DiskError

READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How files to publish are opened: a link or a pipe in the place of one is noticed, not followed or waited for."""
_REMEMBERED = 50_000
"""Most contents that a packer remembers to have packed: bounds its memory."""
_BEGINNING = 4096
"""Bytes by which a piece is taken for one that was cut before."""
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
    """Names the content in the index; empty for what it need not know."""
    digest: bytes
    """Raw digest of the object."""
    stored_bytes: int
    temporary: str
    """The file that holds the object; empty for a content that the store has already."""
    length: int
    """Bytes of the content."""
    seen: bool = False
    """The object was looked for, and is there."""
    beginning: bytes = b""
    """For a piece of a big file that was cut now, what names its first bytes."""
    last: bool = False
    """For such a piece: it is the end of the file."""


class Task(Protocol):
    """Something to be packed."""

    def pack(self, packer: Packer) -> list[Packed]:
        """Packs it; may raise :class:`DiskError`."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts that are packed together."""

    parts: tuple[Part, ...]

    def pack(self, packer: Packer) -> list[Packed]:
        """See :meth:`Packer.pack`."""
        return packer.pack(self.parts)

    def __reduce__(self) -> tuple[object, ...]:
        return _parts, (tuple(map(tuple, self.parts)),)  # plain tuples are pickled three times faster


def _parts(values: Iterable[Iterable[Any]]) -> Parts:
    return Parts(tuple(map(Part._make, values)))


class Index(Protocol):
    """What the store has already."""

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, tuple[bytes, int]]:
        """The digests and stored sizes of those contents that it has, by key."""
        ...

    def length(self, beginning: bytes) -> int:
        """The length of the last piece that began so; negative if it was the end of its file, 0 if unknown."""
        ...


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

    def __init__(self, plan: Plan, index: Index) -> None:
        self._algorithm = plan.algorithm
        self._compressor = plan.compressor
        self._rule = plan.rule
        self._how = storing(plan.algorithm, plan.compressor)
        self._how_plain = storing(plan.algorithm, _PLAIN)
        self._scratch = f"{plan.scratch}{os.getpid()}-{os.urandom(4).hex()}-"
        self._objects = plan.objects
        self._index = index
        self._cutting = blake3(f"{plan.rule}".encode()).digest()
        self._mine: dict[bytes, tuple[bytes, int]] = {}
        self._count = 0

    def pack(self, parts: Sequence[Part]) -> list[Packed]:
        """What became of each part, in the same order; of each piece, for a file that is to be cut.

        Raises:
            DiskError: a file cannot be read, is not what the part says any more, or an object cannot be written.
        """
        if parts[0].cut:
            return [known or self.pack((piece,))[0] for part in parts for piece, known in self.pieces(part)]
        contents = [_content(part) for part in parts]
        keys = [self._key(part, data) for part, data in zip(parts, contents, strict=True)]
        known = self._index.get(keys)
        if len(self._mine) > _REMEMBERED:
            self._mine.clear()
        return [
            self._packed(part, key, data, known.get(key)) for part, key, data in zip(parts, keys, contents, strict=True)
        ]

    def pieces(self, whole: Part) -> Iterator[tuple[Part, Packed | None]]:
        """The pieces of a big file, and what became of those that the store is known to have.

        To look for the next cut takes four times as long as to look for a content. So where a piece begins as one did
        that was cut before, that length is tried first.

        Raises:
            DiskError: the file cannot be read, or is not what the part says any more.
        """
        with _opened(whole) as (read, mtime_ns):
            start = 0
            while start < whole.size:
                rest = whole.size - start
                expected = self._expected_length(read, start, rest)
                piece = _piece(whole, start, expected, mtime_ns)
                known = self._known(piece) if expected else None
                if known is None:
                    piece = _piece(whole, start, next_length(read, start, rest, self._rule), mtime_ns)
                yield piece, known
                start += piece.length

    def _expected_length(self, read: Read, start: int, rest: int) -> int:
        """How long a piece was that began so; 0 if that is unknown, or not worth asking."""
        rule = self._rule
        if rule.fixed or rest <= rule.least:
            return 0
        length = self._index.length(self._beginning(read(start, _BEGINNING)))
        if not rule.least <= abs(length) <= rule.most:
            return 0
        if length < 0:
            return rest if length == -rest else 0
        return length if length < rest and cuts_behind(read, start, length, rule) else 0

    def _known(self, piece: Part) -> Packed | None:
        data = _content(piece)
        key = self._key(piece, data)
        stored = self._index.get((key,)).get(key)
        return self._there(piece, key, stored) if stored else None

    def _key(self, part: Part, data: bytes) -> bytes:
        return content_key(data, self._how_plain if part.plain else self._how)

    def _beginning(self, data: bytes) -> bytes:
        """Names the first bytes of a piece, cut by this rule."""
        return blake3(data[:_BEGINNING], key=self._cutting).digest()

    def _packed(self, part: Part, key: bytes, data: bytes, known: tuple[bytes, int] | None) -> Packed:
        packed = self._there(part, key, known) if known else None
        if packed is None:
            packed = self._twin(key, len(data)) or self._new(part, key, data)
        if part.size <= self._rule.least or self._rule.fixed:
            return packed
        return packed._replace(beginning=self._beginning(data), last=part.start + part.length == part.size)

    def _there(self, part: Part, key: bytes, known: tuple[bytes, int]) -> Packed | None:
        if self._objects and not self._is_there(kind_of(part), *known):
            return None
        return Packed(key, *known, "", part.length, bool(self._objects))

    def _twin(self, key: bytes, length: int) -> Packed | None:
        twin = self._mine.get(key)
        return Packed(key, *twin, "", length) if twin else None

    def _new(self, part: Part, key: bytes, data: bytes) -> Packed:
        packed = self.store(data, _PLAIN if part.plain else self._compressor)
        self._mine[key] = (packed.digest, packed.stored_bytes)
        return packed._replace(key=key)

    def store(self, data: bytes, compressor: Compressor) -> Packed:
        """Writes a content that nobody has stored before.

        Raises:
            DiskError: it cannot be written.
        """
        stored = compressor.compress(data)
        digest = self._algorithm.raw_digest(stored)
        temporary = f"{self._scratch}{self._count}"
        self._count += 1
        write_new(temporary, stored)
        return Packed(b"", digest, len(stored), temporary, len(data))

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


@contextlib.contextmanager
def _opened(whole: Part) -> Iterator[tuple[Read, int]]:
    """Reads a big file here and there; with the time that its pieces must have."""
    source = whole.source
    if isinstance(source, bytes):
        if len(source) != whole.size:
            raise changed(f"/{whole.name}")
        yield lambda start, count: source[start : start + count], whole.mtime_ns
        return
    with failing_as("read", source):
        descriptor = os.open(source, READ_ONLY)
        try:
            info = os.fstat(descriptor)
            if info.st_size != whole.size:
                raise changed(source)
            yield lambda start, count: os.pread(descriptor, count, start), info.st_mtime_ns
        finally:
            os.close(descriptor)


def _piece(whole: Part, start: int, length: int, mtime_ns: int) -> Part:
    source = whole.source
    if isinstance(source, bytes):
        source = source[start : start + length]
    return whole._replace(source=source, start=start, length=length, mtime_ns=mtime_ns, cut=False)


def changed(what: object) -> DiskError:
    """The error for a file that is not what the tree says any more."""
    return DiskError(
        f"{what} changed while it was published",
        hint="let nothing write to the folder meanwhile, and run it again",
    )
