"""Uploads that go on while the publisher packs what comes next."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore

from publisher.cvmfs.disk import failing_as
from publisher.cvmfs.s3 import connection
from publisher.cvmfs.s3.connection import OBJECT_AGE_S, Connection, attributes
from publisher.cvmfs.s3.inventory import Inventory
from publisher.errors import RepositoryError
from publisher.progress import Progress

_QUEUE_BYTES = 256 << 20
"""Most bytes that wait to be sent, unless a single object has more."""
_QUEUE_OBJECTS = 4096
_MEMORY_BYTES = 64 << 20
"""Most bytes of objects that are in memory, being sent. An object of more goes in parts: an object with fewer never
does, so that nothing of it can be left in the server when the publisher dies."""
_PART_BYTES = 16 << 20
_TELL_S = 0.2


class Uploads:
    """A bounded queue of objects that are sent by several threads.

    The order does not matter; that all of them are there is known when :meth:`finish` returns.
    """

    def __init__(self, server: Connection, inventory: Inventory, progress: Progress) -> None:
        self._server = server
        self._inventory = inventory
        self._progress = progress
        self._change = threading.Condition()
        self._pool: ThreadPoolExecutor | None = None
        self._sent: dict[str, bool] = {}
        """False while an object is under way."""
        self._there: dict[str, int] = {}
        """Sizes of those that were there already."""
        self._begun = 0
        self._pending = 0
        self._queued_bytes = 0
        self._memory_bytes = 0
        self._trouble: BaseException | None = None

    def begin(self, name: str, temporary: str, *, replace: bool = False) -> None:
        """Takes a file, waiting while there are enough; it is removed when the object is there.

        Raises:
            RepositoryError: an upload failed.
        """
        with failing_as("read", temporary), self._change:
            if name in self._sent:
                return
            size_bytes = os.stat(temporary).st_size  # noqa: PTH116 - a path as text
            self._change.wait_for(lambda: self._trouble is not None or self._has_room(size_bytes))
            self._raise_trouble()
            self._sent[name] = False
            self._begun += 1
            self._pending += 1
            self._queued_bytes += size_bytes
            if self._pool is None:
                self._pool = ThreadPoolExecutor(connection.THREADS, thread_name_prefix="s3")
            pool = self._pool
        pool.submit(self._run, name, temporary, size_bytes, replace)

    def finish(self, names: Collection[str]) -> list[tuple[str, int]]:
        """Waits until objects that were begun are there; names and sizes of those that were there already.

        Raises:
            RepositoryError: an upload failed; those that were not sent can be begun again.
        """
        with self._change:
            begun = self._begun
            for name in names:
                while self._sent.get(name) is False:
                    if self._begun == begun:  # otherwise packing goes on, and is what is told
                        self._tell()
                    self._change.wait(_TELL_S)
                if name not in self._sent:
                    self._raise_trouble()
                    raise RepositoryError(f"{name} was not sent to {self._server.where}", hint="run it again")
            if self._begun == begun:
                self._tell()
            for name in names:
                del self._sent[name]
            return [(name, self._there.pop(name)) for name in names if name in self._there]

    def stop(self) -> None:
        """Sends nothing more; when this returns no file is being read any more."""
        with self._change:
            self._trouble = self._trouble or InterruptedError()
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        with self._change:
            self._sent.clear()
            self._there.clear()
            self._begun = self._pending = self._queued_bytes = self._memory_bytes = 0
            self._trouble = None
            self._change.notify_all()

    def _tell(self) -> None:
        self._progress.advance(self._begun - self._pending, self._begun, "objects uploaded")

    def _has_room(self, size_bytes: int) -> bool:
        return self._pending == 0 or (
            self._queued_bytes + size_bytes <= _QUEUE_BYTES and self._pending < _QUEUE_OBJECTS
        )

    def _raise_trouble(self) -> None:
        """Raises what went wrong, once, when no upload is under way any more."""
        if self._trouble is not None:
            self._change.wait_for(lambda: not self._pending)
            trouble, self._trouble = self._trouble, None
            raise trouble

    def _run(self, name: str, temporary: str, size_bytes: int, replace: bool) -> None:
        trouble: BaseException | None = InterruptedError()
        try:
            with self._change:
                stopped = self._trouble is not None
            if not stopped:
                self._send(name, temporary, size_bytes, replace=replace)
                trouble = None
        except Exception as exc:  # noqa: BLE001 - raised by whoever waits
            trouble = exc
        with self._change:
            self._pending -= 1
            self._queued_bytes -= size_bytes
            if trouble is None:
                self._sent[name] = True
            else:
                self._sent.pop(name, None)
                self._trouble = self._trouble or trouble
            self._change.notify_all()

    def _send(self, name: str, temporary: str, size_bytes: int, *, replace: bool) -> None:
        if not replace and self._inventory.size(name) == size_bytes:
            with self._change:
                self._there[name] = size_bytes
        else:
            self._put(name, temporary, size_bytes)
            self._inventory.note(name, size_bytes)
        with failing_as("remove", temporary):
            Path(temporary).unlink(missing_ok=True)

    def _put(self, name: str, temporary: str, size_bytes: int) -> None:
        share = min(size_bytes, _MEMORY_BYTES)
        with self._change:
            self._change.wait_for(lambda: self._memory_bytes + share <= _MEMORY_BYTES)
            self._memory_bytes += share
        try:
            with self._server.asking(f"write {name} to"):
                obstore.put(
                    self._server.store,
                    name,
                    Path(temporary),
                    attributes=attributes(OBJECT_AGE_S),
                    use_multipart=size_bytes > _MEMORY_BYTES,
                    chunk_size=_PART_BYTES,
                    max_concurrency=2,
                )
        finally:
            with self._change:
                self._memory_bytes -= share
                self._change.notify_all()
