"""Digests of published files, remembered between publishes: a cache, safe to delete at any time."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from publisher.cvmfs.reader import Reader, Stored, read_content

_SCHEMA = "CREATE TABLE IF NOT EXISTS sums (content TEXT PRIMARY KEY, sha256 BLOB NOT NULL) WITHOUT ROWID"


class Sums:
    """Which SHA-256 the bytes of a published content have; what is not known is read once, and verified.

    Objects never change, so what is known stays true. A damaged file is made anew.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._fresh: dict[str, bytes] = {}
        self._database = _open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        if self._database is not None:
            self._database.close()
            self._database = None

    def of_published(self, reader: Reader, stored: Stored) -> bytes:
        """The SHA-256 of a published file.

        Raises:
            TrustError: an object is damaged.
            RepositoryError: an object is missing.
        """
        known = self.known(stored)
        if known is None:
            digest = hashlib.sha256()
            for piece in read_content(reader.source, stored):
                digest.update(piece)
            known = digest.digest()
            self.add(((stored, known),))
        return known

    def known(self, stored: Stored) -> bytes | None:
        """The SHA-256 if it is remembered."""
        key = _key(stored)
        with self._lock:
            if key in self._fresh:
                return self._fresh[key]
            if self._database is not None:
                with contextlib.suppress(sqlite3.Error):
                    row = self._database.execute("SELECT sha256 FROM sums WHERE content=?", (key,)).fetchone()
                    return bytes(row[0]) if row else None
        return None

    def add(self, pairs: Iterable[tuple[Stored, bytes]]) -> None:
        """Remembers digests."""
        with self._lock:
            self._fresh |= {_key(stored): digest for stored, digest in pairs}

    def flush(self) -> None:
        """Writes down what is new; failing loses time later, nothing else."""
        with self._lock:
            if self._database is not None and self._fresh:
                with contextlib.suppress(sqlite3.Error):
                    self._database.executemany("INSERT OR REPLACE INTO sums VALUES (?, ?)", self._fresh.items())
                    self._database.commit()


def _key(stored: Stored) -> str:
    """Text that is the same for two files only when their bytes are; of a file in pieces, the pieces decide."""
    if not stored.chunks:
        return stored.content_key
    pieces = b"".join(b"%d:%b" % (chunk.size_bytes, chunk.digest) for chunk in stored.chunks)
    return f"{hashlib.sha256(pieces).hexdigest()}P{stored.algorithm}{stored.compression:d}"


def _open(path: Path) -> sqlite3.Connection | None:
    for _ in range(2):
        database = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, check_same_thread=False)
            database.execute(_SCHEMA)
        except (sqlite3.Error, OSError):
            if database is not None:
                database.close()
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            return database
    return None
