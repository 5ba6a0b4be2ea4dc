"""Bringing the contents of files into the store: several at a time, big ones in pieces, each read once."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from publisher.cvmfs.chunker import ChunkRule, chunks
from publisher.cvmfs.compression import Compressor
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.disk import failing_as
from publisher.cvmfs.rows import Chunk, Content
from publisher.cvmfs.store import ObjectStore
from publisher.errors import DiskError, RepositoryError
from publisher.tree import Entry, Kind

_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
_AHEAD = 3
"""How many jobs wait for each worker: keeps both busy."""
_AHEAD_BYTES = 96 << 20
"""Most bytes of them all, so that memory does not grow with the number of workers."""

_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class _BigFile:
    """A file whose pieces are on their way."""

    entry: Entry
    pieces: list[tuple[int, int, Future[bytes]]] = field(default_factory=list)
    whole: Future[bytes] | None = None


class ContentWriter:
    """Stores the contents of entries with a few threads; hashing and compressing let Python run on meanwhile."""

    def __init__(self, store: ObjectStore, compressor: Compressor, rule: ChunkRule, *, jobs: int) -> None:
        self._store = store
        self._compressor = compressor
        self._rule = rule
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="contents")
        self._running: dict[Future[object], int] = {}
        """What is under way, with its bytes."""
        self._stopped = threading.Event()

    def store_all(self, entries: Iterable[Entry], progress: Callable[[int, int], None]) -> dict[str, Content]:
        """The contents of all files among the entries, by path.

        Args:
            entries: the tree; read once.
            progress: gets the number of files and bytes that were just read.

        Raises:
            DiskError: a file cannot be read, or is not what the tree says any more.
        """
        found: dict[str, Content] = {}
        try:
            self._feed(entries, found, progress)
        except BaseException:
            self._stopped.set()
            self._pool.shutdown(wait=True, cancel_futures=True)
            raise
        self._pool.shutdown(wait=True)
        return found

    def _feed(self, entries: Iterable[Entry], found: dict[str, Content], progress: Callable[[int, int], None]) -> None:
        small: list[Entry] = []
        small_bytes = 0
        batches: list[Future[list[tuple[str, Content]]]] = []
        big: list[_BigFile] = []
        for entry in entries:
            if entry.kind is not Kind.FILE:
                continue
            if entry.size_bytes > self._rule.least:
                big.append(self._cut(entry))
                progress(1, entry.size_bytes)
                continue
            small.append(entry)
            small_bytes += entry.size_bytes
            if len(small) >= _BATCH_FILES or small_bytes >= _BATCH_BYTES:
                batches.append(self._submit(small_bytes, self._store_small, tuple(small)))
                progress(len(small), small_bytes)
                small, small_bytes = [], 0
        if small:
            batches.append(self._submit(small_bytes, self._store_small, tuple(small)))
            progress(len(small), small_bytes)
        for batch in batches:
            found.update(batch.result())
        for file in big:
            found[file.entry.path] = self._content(file)

    def _submit(self, size_bytes: int, work: Callable[..., object], *values: object) -> Future:  # type: ignore[type-arg]
        """Hands out work, waiting while much of it is under way; a failure is raised as soon as it is seen."""
        while self._running and (
            len(self._running) >= self._jobs * _AHEAD or sum(self._running.values()) + size_bytes > _AHEAD_BYTES
        ):
            for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                del self._running[future]
                future.result()
        future = self._pool.submit(work, *values)
        self._running[future] = size_bytes
        return future

    def _store_small(self, entries: tuple[Entry, ...]) -> list[tuple[str, Content]]:
        contents = []
        for entry in entries:
            if self._stopped.is_set():
                return []
            data = entry.content if isinstance(entry.content, bytes) else _read(entry)
            if len(data) != entry.size_bytes:
                raise _changed(entry)
            contents.append(data)
        digests = self._store.add_all(contents, ObjectKind.FILE, self._compressor)
        return [(entry.path, self._whole(entry, digest)) for entry, digest in zip(entries, digests, strict=True)]

    def _whole(self, entry: Entry, digest: Digest) -> Content:
        return Content(
            size_bytes=entry.size_bytes,
            algorithm=digest.algorithm,
            compression=self._compressor.compression,
            digest=digest.raw,
        )

    def _cut(self, entry: Entry) -> _BigFile:
        file = _BigFile(entry)
        held: bytes | None = None  # the first piece is a chunk only if there is a second one
        offset = 0
        for piece in self._pieces(entry):
            if held is not None:
                file.pieces.append(
                    (offset, len(held), self._submit(len(held), self._store_piece, held, ObjectKind.CHUNK))
                )
                offset += len(held)
            held = piece
        assert held is not None
        if file.pieces:
            file.pieces.append((offset, len(held), self._submit(len(held), self._store_piece, held, ObjectKind.CHUNK)))
        else:
            file.whole = self._submit(len(held), self._store_piece, held, ObjectKind.FILE)
        if offset + len(held) != entry.size_bytes:
            raise _changed(entry)
        return file

    def _pieces(self, entry: Entry) -> Iterator[bytes]:
        if isinstance(entry.content, bytes):
            yield from chunks(io.BytesIO(entry.content), self._rule, expected_bytes=entry.size_bytes)
            return
        with _opened(entry) as stream:
            yield from chunks(stream, self._rule, expected_bytes=entry.size_bytes)

    def _store_piece(self, data: bytes, kind: ObjectKind) -> bytes:
        return self._store.add(data, kind, self._compressor).raw

    def _content(self, file: _BigFile) -> Content:
        algorithm = self._store.algorithm
        if file.whole is not None:
            return self._whole(file.entry, Digest(raw=file.whole.result(), algorithm=algorithm))
        return Content(
            size_bytes=file.entry.size_bytes,
            algorithm=algorithm,
            compression=self._compressor.compression,
            chunks=tuple(
                Chunk(offset=offset, size_bytes=size, digest=future.result()) for offset, size, future in file.pieces
            ),
        )


@contextlib.contextmanager
def _opened(entry: Entry) -> Iterator[io.FileIO]:
    """The file of an entry; raises DiskError when it is not what the tree says, before reading and after."""
    if not isinstance(entry.content, Path):
        raise RepositoryError(f"/{entry.path} is a file without content")
    with failing_as("read", entry.content):
        descriptor = os.open(entry.content, _READ_ONLY)
        with io.FileIO(descriptor) as stream:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode) or before.st_size != entry.size_bytes:
                raise _changed(entry)
            yield stream
            after = os.fstat(descriptor)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise _changed(entry)


def _read(entry: Entry) -> bytes:
    """All bytes of a small file, with as few calls as can be; checks what :func:`_opened` checks."""
    path = entry.content
    if not isinstance(path, Path):
        raise RepositoryError(f"/{entry.path} is a file without content")
    try:
        descriptor = os.open(path, _READ_ONLY)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode) or before.st_size != entry.size_bytes:
                raise _changed(entry)
            data = os.read(descriptor, entry.size_bytes + 1)
            while len(data) < entry.size_bytes:
                more = os.read(descriptor, entry.size_bytes + 1 - len(data))
                if not more:
                    break
                data += more
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise DiskError(f"cannot read {path}: {exc.strerror}") from exc
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _changed(entry)
    return data


def _changed(entry: Entry) -> DiskError:
    return DiskError(
        f"{entry.content if isinstance(entry.content, Path) else '/' + entry.path} changed while it was published",
        hint="let nothing write to the folder meanwhile, and run it again",
    )
