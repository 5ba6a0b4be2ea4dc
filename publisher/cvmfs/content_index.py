"""Which contents are in the store already: a cache, safe to delete at any time."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

_VERSION = 2
"""How contents are named: by BLAKE3; before, by SHA-256."""
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS contents (
        key BLOB PRIMARY KEY, digest BLOB NOT NULL, stored_bytes INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS pieces (
        beginning BLOB PRIMARY KEY, length INTEGER NOT NULL, key BLOB NOT NULL
    ) WITHOUT ROWID
    """,
)
_SELECT = "SELECT key, digest, stored_bytes FROM contents"
_LENGTH = "SELECT length FROM pieces WHERE beginning = ?"
Found = dict[bytes, tuple[bytes, int]]
"""Raw digests and stored sizes, by key."""


class StoredIndex:
    """What was written down, to be read by a process that does not change it."""

    def __init__(self, path: str) -> None:
        self._database: sqlite3.Connection | None = None
        if path:
            with contextlib.suppress(sqlite3.Error):
                self._database = sqlite3.connect(path, isolation_level=None)
                self._database.execute("PRAGMA query_only=ON")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            self._database.close()

    def get(self, keys: Sequence[bytes]) -> Found:
        """The raw digests and the stored sizes of those contents that are known, by key."""
        return {} if self._database is None else _look_up(self._database, keys)

    def length(self, beginning: bytes) -> int:
        """The length of the last piece of a big file that began so; negative if it was the end of it, 0 if unknown."""
        return 0 if self._database is None else _look_up_length(self._database, beginning)


def _look_up(database: sqlite3.Connection, keys: Sequence[bytes]) -> Found:
    marks = ", ".join("?" * len(keys))
    with contextlib.suppress(sqlite3.Error):
        rows = database.execute(f"{_SELECT} WHERE key IN ({marks})", tuple(keys))
        return {key: (bytes(digest), int(size)) for key, digest, size in rows}
    return {}


def _look_up_length(database: sqlite3.Connection, beginning: bytes) -> int:
    with contextlib.suppress(sqlite3.Error):
        for (length,) in database.execute(_LENGTH, (beginning,)):
            return int(length)
    return 0


class ContentIndex:
    """Remembers under which digest a content is stored: a rebuilt image need not be compressed again.

    Every answer is checked against the object's existence and size by the caller. A damaged file is made anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fresh: Found = {}
        self._fresh_pieces: dict[bytes, tuple[int, bytes]] = {}
        self._empty = True
        """Nothing is written down yet, so that looking there is of no use."""
        self._database = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection | None:
        for _ in range(2):
            database = None
            try:
                database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                database.execute("PRAGMA synchronous=OFF")
                if database.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                    database.execute("DROP TABLE IF EXISTS contents")
                    database.execute("DROP TABLE IF EXISTS pieces")
                    database.execute(f"PRAGMA user_version={_VERSION}")
                for statement in _SCHEMA:
                    database.execute(statement)
                self._empty = not database.execute(f"{_SELECT} LIMIT 1").fetchall()
            except sqlite3.Error:
                if database is not None:
                    database.close()
                with contextlib.suppress(OSError):
                    self.path.unlink()
            else:
                return database
        return None

    @property
    def empty(self) -> bool:
        """True when nothing is written down yet."""
        return self._empty

    def get(self, keys: Sequence[bytes]) -> Found:
        """The raw digests and the stored sizes of those contents that are known, by key."""
        with self._lock:
            found = {key: self._fresh[key] for key in keys if key in self._fresh}
            if self._database is None or self._empty or len(found) == len(keys):
                return found
            return _look_up(self._database, keys) | found

    def length(self, beginning: bytes) -> int:
        """See :meth:`StoredIndex.length`."""
        with self._lock:
            if fresh := self._fresh_pieces.get(beginning):
                return fresh[0]
            return 0 if self._database is None or self._empty else _look_up_length(self._database, beginning)

    def put_length(self, beginning: bytes, length: int, key: bytes) -> None:
        """Remembers how long a piece is that begins so; negative for the end of a file. The key is its content's."""
        with self._lock:
            self._fresh_pieces[beginning] = (length, key)

    def put(self, key: bytes, digest: bytes, stored_bytes: int) -> None:
        """Remembers a content until :meth:`flush` writes it down."""
        with self._lock:
            self._fresh[key] = (digest, stored_bytes)

    def flush(self) -> None:
        """Writes down what is new, when the objects are on disk; failing loses time later, nothing else."""
        with self._lock:
            if self._database is None:
                return
            rows = sorted((key, *value) for key, value in self._fresh.items())  # sorted keys are added much faster
            with contextlib.suppress(sqlite3.Error), self._database:
                self._database.execute("BEGIN")
                self._database.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", rows)
                pieces = ((beginning, *value) for beginning, value in self._fresh_pieces.items())
                self._database.executemany("INSERT OR REPLACE INTO pieces VALUES (?, ?, ?)", pieces)
                self._fresh.clear()
                self._fresh_pieces.clear()
                self._empty = False

    def forget(self, is_kept: Callable[[bytes], bool]) -> None:
        """Forgets all contents whose raw digest is not kept; failing loses nothing, as every answer is checked.

        Args:
            is_kept: is asked in the order of the digests.
        """
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._database is None:
                return
            rows = self._database.execute("SELECT key, digest FROM contents ORDER BY digest")  # sorted in a file
            gone = ((key,) for key, digest in rows if not is_kept(bytes(digest)))
            with self._database:
                self._database.execute("BEGIN")
                self._database.execute("CREATE TEMP TABLE gone (key BLOB)")
                self._database.executemany("INSERT INTO gone VALUES (?)", gone)
                self._database.execute("DELETE FROM contents WHERE key IN (SELECT key FROM gone)")
                self._database.execute("DELETE FROM pieces WHERE key IN (SELECT key FROM gone)")
                self._database.execute("DROP TABLE gone")
