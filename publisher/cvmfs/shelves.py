"""Records of millions of objects, by the first byte of their digests: in memory while they are few, else in a file."""

from __future__ import annotations

import tempfile
import weakref
from typing import IO, Final

from publisher.cvmfs.disk import failing_as

SHELVES: Final = 256
_MEMORY_BYTES = 16 << 20
"""Most bytes of records in memory."""


class Shelves:
    """256 heaps of records, each read as a whole; the file has no name and ends with the process."""

    def __init__(self) -> None:
        self._heaps = [bytearray() for _ in range(SHELVES)]
        self._pieces: list[list[tuple[int, int]]] = [[] for _ in range(SHELVES)]
        """Where what was put away lies in the file: offsets and lengths."""
        self._file: IO[bytes] | None = None
        self._memory_bytes = 0

    def add(self, number: int, record: bytes) -> None:
        """Puts a record on a shelf.

        Raises:
            DiskError: there is no room for temporary files.
        """
        self._heaps[number] += record
        self._memory_bytes += len(record)
        if self._memory_bytes > _MEMORY_BYTES:
            self._put_away()

    def read(self, number: int) -> bytes:
        """All records of a shelf, in the order in which they came.

        Raises:
            DiskError: they cannot be read.
        """
        found = bytearray()
        with failing_as("read", "temporary files"):
            for offset, length in self._pieces[number]:
                assert self._file is not None
                self._file.seek(offset)
                found += self._file.read(length)
        return bytes(found + self._heaps[number])

    def _put_away(self) -> None:
        with failing_as("write", f"temporary files in {tempfile.gettempdir()}"):
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="afpub-")  # noqa: SIM115 - as long as this lives
                weakref.finalize(self, self._file.close)
            offset = self._file.seek(0, 2)
            for heap, pieces in zip(self._heaps, self._pieces, strict=True):
                if heap:
                    self._file.write(heap)
                    pieces.append((offset, len(heap)))
                    offset += len(heap)
                    heap.clear()
            self._file.flush()
        self._memory_bytes = 0
