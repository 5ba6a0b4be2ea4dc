"""The object store, written to."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from publisher.cvmfs.chunker import ChunkRule
from publisher.cvmfs.compression import Compressor
from publisher.cvmfs.content_index import ContentIndex, StoredIndex
from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.disk import write_new
from publisher.cvmfs.packer import Index, Packed, Plan, content_key, storing
from publisher.cvmfs.storage import Storage
from publisher.errors import AfpubError

_PREFIX = "afpub-"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreTotals:
    """What was written so far."""

    objects: int = 0
    """New objects."""
    stored_bytes: int = 0
    """Their bytes on disk."""


class ObjectStore:
    """Adds objects to a repository; safe to be used by several threads.

    Objects are written to a scratch folder and get their names only when their bytes are known to be on disk,
    many at a time. So whatever bears an object's name is whole, after a power cut too. Where there are very many,
    a thread brings one batch into the storage while the next one is made.
    """

    def __init__(self, storage: Storage, *, algorithm: Algorithm, index: ContentIndex | None = None) -> None:
        self.storage = storage
        self.algorithm = algorithm
        self._index = index
        self._lock = threading.Lock()
        self._waiting: dict[str, str] = {}
        """Temporary files by the names that they will get."""
        self._waiting_bytes = 0
        self._leaving: dict[str, str] = {}
        """The last batch that was handed to the thread."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._batch: Future[None] | None = None
        self._counter = itertools.count()
        self._size_of = storage.size_of
        self._most_objects, self._most_bytes = storage.batch
        self._asks_first = not storage.shared
        """Otherwise whoever sends an object asks whether it is there, several at a time."""
        self._temporary = f"{storage.scratch}/{_PREFIX}"
        self._objects = 0
        self._stored_bytes = 0
        storage.prepare()

    @property
    def totals(self) -> StoreTotals:
        """What was written so far."""
        with self._lock:
            return StoreTotals(objects=self._objects, stored_bytes=self._stored_bytes)

    def add(self, data: bytes, kind: ObjectKind, compressor: Compressor) -> Digest:
        """Stores a content and gives its digest; see :meth:`add_all`."""
        return self.add_all((data,), kind, compressor)[0]

    def add_all(self, contents: Sequence[bytes], kind: ObjectKind, compressor: Compressor) -> list[Digest]:
        """Stores contents and gives their digests; known ones are neither compressed nor written again.

        Raises:
            DiskError: the disk is full or broken.
        """
        index = self._index
        if index is None:
            return [self._store(data, kind, compressor)[0] for data in contents]
        how = storing(self.algorithm, compressor)
        keys = [content_key(data, how) for data in contents]
        known = index.get(keys)
        digests = []
        for key, data in zip(keys, contents, strict=True):
            raw, size_bytes = known.get(key, (b"", 0))
            digest = Digest(raw=raw, algorithm=self.algorithm) if raw else None
            if digest is None or not self._has(digest.object_name(kind), size_bytes):
                digest, size_bytes = self._store(data, kind, compressor)
                index.put(key, digest.raw, size_bytes)
            digests.append(digest)
        return digests

    def _store(self, data: bytes, kind: ObjectKind, compressor: Compressor) -> tuple[Digest, int]:
        stored = compressor.compress(data)
        digest = self.algorithm.digest(stored)
        self.put(digest, kind, stored)
        return digest, len(stored)

    def put(self, digest: Digest, kind: ObjectKind, stored: bytes) -> None:
        """Stores the bytes of an object under a digest that was computed from them."""
        name = digest.object_name(kind)
        if self._asks_first and self._has(name, len(stored)):
            return
        temporary = f"{self._temporary}{os.getpid()}-{next(self._counter)}"
        write_new(temporary, stored)
        self._take(name, temporary, len(stored))

    def plan(self, compressor: Compressor, rule: ChunkRule) -> Plan:
        """How others pack contents for this store; what they write is given to :meth:`adopt`."""
        index = self._index
        path = "" if index is None or index.empty else str(index.path)
        return Plan(
            algorithm=self.algorithm,
            compressor=compressor,
            index=path,
            scratch=self._temporary,
            rule=rule,
            objects=self.storage.local,
        )

    @property
    def index(self) -> Index:
        """Says which contents are likely to be here."""
        return StoredIndex("") if self._index is None else self._index

    def look(self, packed: Iterable[Packed], kind: ObjectKind) -> None:
        """Says which objects, known from before, are about to be adopted."""
        known = [each.digest for each in packed if not each.temporary and not each.seen]
        self.storage.look([self.algorithm.object_name(digest, kind) for digest in known])

    def adopt(self, packed: Packed, kind: ObjectKind) -> bool:
        """Takes an object that was packed for this store; False when it was taken to be here already, and is not.

        Raises:
            DiskError: the disk is full or broken.
        """
        if packed.beginning and self._index is not None:
            length = -packed.length if packed.last else packed.length
            self._index.put_length(packed.beginning, length, packed.key)
        if packed.seen:
            return True
        name = self.algorithm.object_name(packed.digest, kind)
        here = (self._asks_first or not packed.temporary) and self._has(name, packed.stored_bytes)
        if not packed.temporary:
            return here
        if here:
            os.unlink(packed.temporary)  # noqa: PTH108 - a path as text
        else:
            self._take(name, packed.temporary, packed.stored_bytes)
        if packed.key and self._index is not None:
            self._index.put(packed.key, packed.digest, packed.stored_bytes)
        return True

    def _take(self, name: str, temporary: str, size_bytes: int) -> None:
        """Lets a temporary file wait for its name, unless another one does."""
        with self._lock:
            twin = name in self._waiting or name in self._leaving
            if not twin:
                self._waiting[name] = temporary
                self._waiting_bytes += size_bytes
                self._objects += 1
                self._stored_bytes += size_bytes
            full = len(self._waiting) >= self._most_objects or self._waiting_bytes >= self._most_bytes
        if twin:
            os.unlink(temporary)  # noqa: PTH108 - a path as text
            return
        self.storage.send(name, temporary)
        if full:
            self._send_off()

    def _has(self, name: str, size_bytes: int) -> bool:
        """True when the object is there with the right size; one that was cut short is written again."""
        with self._lock:
            if name in self._waiting or name in self._leaving:
                return True
        return self._size_of(name) == size_bytes

    def flush(self) -> None:
        """Waits for the disk, then gives all waiting objects their names.

        Raises:
            DiskError: the disk is full or broken.
        """
        self._wait()
        with self._lock:
            waiting = dict(self._waiting)
        self._put(waiting)
        with self._lock:
            for name in waiting:
                del self._waiting[name]
            self._waiting_bytes = 0
        self._note()

    def _put(self, waiting: Mapping[str, str]) -> None:
        if waiting:
            there = self.storage.put_objects(waiting)
            with self._lock:
                self._objects -= len(there)
                self._stored_bytes -= sum(size_bytes for _, size_bytes in there)
        with self._lock:
            self._leaving = {}

    def _send_off(self) -> None:
        """Hands what waits to the thread, when it is done with the last batch."""
        self._wait()
        self._note()
        with self._lock:
            self._leaving, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        self._batch = self._thread.submit(self._put, self._leaving)

    def _wait(self) -> None:
        """Waits for the thread; raises what it raised, and then its batch waits again."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        try:
            batch.result()
        except BaseException:
            with self._lock:
                self._waiting, self._leaving = self._leaving | self._waiting, {}
            raise

    def _note(self) -> None:
        """Has the index write down what it knows; each of its answers is checked, so that it may be early."""
        if self._index is not None:
            self._index.flush()

    def forget(self, is_kept: Callable[[bytes], bool]) -> None:
        """Forgets contents whose objects are about to be removed: those whose raw digest is not kept."""
        if self._index is not None:
            self._index.forget(is_kept)

    def sweep(self) -> None:
        """Removes what publishers left in the scratch folder; only for the holder of the repository's lock."""
        self.storage.stop()
        with contextlib.suppress(AfpubError):
            self._wait()
        with contextlib.suppress(OSError):
            for path in self.storage.scratch.iterdir():
                if path.name.startswith(_PREFIX):
                    path.unlink()
        with self._lock:
            self._waiting.clear()
            self._waiting_bytes = 0
