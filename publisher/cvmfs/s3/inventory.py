"""Which objects are in a bucket: asked for one by one, or listed where that is cheaper and fits into memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from publisher.cvmfs.s3 import connection
from publisher.cvmfs.s3.connection import Connection

_QUESTIONS = 32
"""After so many questions for single objects it is cheaper to list them."""
_MOST_LISTED = 2000
"""Most objects of a folder that is listed: a bucket has 256 of them, and each object takes about 50 bytes here.
Of a bucket with more, half a million in all, listing takes longer than asking for what a publish needs."""
_REMEMBERED = 100_000
"""Most answers that are kept: some 20 MB."""


class Inventory:
    """What is known to be in the bucket; safe to be used by several threads."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets everything: others may have changed it."""
        with self._lock:
            self._asked: dict[str, int | None] = {}
            self._listed: dict[str, bytearray] = {}
            """A line ``NAME SIZE`` for each object, by folder; a tenth of what a dictionary takes."""
            self._questions = 0

    def size(self, name: str) -> int | None:
        """The size of an object; None where there is none.

        Raises:
            RepositoryError: the server does not say.
        """
        with self._lock:
            known, size_bytes = self._recall(name)
            if known:
                return size_bytes
            self._questions += 1
            many = self._questions == _QUESTIONS
        if many:
            self._list(name.rpartition("/")[0])
        size_bytes = self._server.size_of(name)
        with self._lock:
            known, noted = self._recall(name)  # it may have been sent, or listed, meanwhile
        if known:
            return noted
        self.note(name, size_bytes)
        return size_bytes

    def look(self, names: Iterable[str]) -> None:
        """Asks for many objects, several at the same time, so that their sizes are known."""
        with self._lock:
            unknown = [name for name in names if not self._recall(name)[0]]
        if len(unknown) > 1:
            with ThreadPoolExecutor(connection.THREADS, thread_name_prefix="s3") as pool:
                for _ in pool.map(self.size, unknown):
                    pass

    def note(self, name: str, size_bytes: int | None) -> None:
        """Remembers what is there now."""
        folder, _, tail = name.rpartition("/")
        with self._lock:
            if folder in self._listed and size_bytes is not None:
                self._listed[folder] += _line(tail, size_bytes)
                self._asked.pop(name, None)
                return
            if len(self._asked) >= _REMEMBERED:
                self._asked.clear()
            self._asked[name] = size_bytes

    def _recall(self, name: str) -> tuple[bool, int | None]:
        """Whether the answer is known, and what it is."""
        if name in self._asked:
            return True, self._asked[name]
        folder, _, tail = name.rpartition("/")
        lines = self._listed.get(folder)
        if lines is None:
            return False, None
        start = lines.rfind(f"\n{tail} ".encode())  # what was noted last is what is there
        if start < 0:
            return True, None
        start += len(tail) + 2
        return True, int(lines[start : lines.index(b"\n", start)])

    def _list(self, folder: str) -> None:
        """Lists one folder, and all others if it is small: digests are spread evenly."""
        sample = list(itertools.islice(self._server.listing(folder), _MOST_LISTED + 1))
        if len(sample) > _MOST_LISTED:
            return
        folders = [f"data/{number:02x}" for number in range(256)]
        with ThreadPoolExecutor(connection.THREADS, thread_name_prefix="s3") as pool:
            found = list(pool.map(self._lines, folders))
        with self._lock:
            self._listed = dict(zip(folders, found, strict=True))

    def _lines(self, folder: str) -> bytearray:
        lines = bytearray(b"\n")
        for name, size_bytes in self._server.listing(folder):
            lines += _line(name.rpartition("/")[2], size_bytes)
        return lines


def _line(tail: str, size_bytes: int) -> bytes:
    return f"{tail} {size_bytes}\n".encode()
