"""What a plain copy remembers of itself: which entries are right, and which nested catalogs are complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

from publisher.cvmfs.disk import sync_filesystem
from publisher.cvmfs.reader import Stored
from publisher.errors import DiskError, RepositoryError

_SAVE_S = 20.0
"""How often what is known is written down, in seconds."""
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    (
        "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, content TEXT, mode INTEGER, size INTEGER, "
        "mtime_ns INTEGER) WITHOUT ROWID"
    ),
    "CREATE TABLE IF NOT EXISTS catalogs (path BLOB PRIMARY KEY, digest TEXT) WITHOUT ROWID",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of an entry that was written."""

    content: str
    """Differs wherever the entry does."""
    mode: int
    size_bytes: int
    mtime_ns: int


def mark_of(stored: Stored) -> str:
    """Text that is another one when an entry is written differently."""
    entry = stored.entry
    text = f"{entry.kind} {entry.mode:o} {entry.mtime_s}.{entry.mtime_ns} {stored.content_key} {entry.target}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def known_of(info: os.stat_result, stored: Stored) -> Known:
    """What an entry on disk is to be compared by."""
    return Known(content=mark_of(stored), mode=info.st_mode, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)


class ExportState:
    """The memory of one copy; losing it costs time, nothing else."""

    def __init__(self, path: Path, *, of: str) -> None:
        self._path = path
        self._database = self._open()
        row = self._database.execute("SELECT value FROM about WHERE key='of'").fetchone()
        if row is not None and row[0] != of:
            self._database.close()
            raise RepositoryError(
                f"{path.parent} is a copy of {row[0]}, not of {of}", hint="give another folder for this copy"
            )
        self._database.execute("INSERT OR REPLACE INTO about VALUES ('of', ?)", (of,))
        self._database.execute("BEGIN")
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.checkpoint()
        finally:
            self._database.close()

    def checkpoint(self) -> None:
        """Waits until the copy's files are on disk, then writes down what is known of them."""
        sync_filesystem(self._path.parent)
        self._database.execute("COMMIT")
        self._database.execute("BEGIN")
        self._saved = time.monotonic()

    def _open(self) -> sqlite3.Connection:
        for _ in range(2):
            database = None
            try:
                database = sqlite3.connect(self._path, isolation_level=None)
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute("PRAGMA synchronous=NORMAL")
            except sqlite3.Error as exc:
                reason = exc
                if database is not None:
                    database.close()
                with contextlib.suppress(OSError):
                    self._path.unlink()
            else:
                return database
        raise DiskError(f"cannot write {self._path}: {reason}")

    def file(self, path: str) -> Known | None:
        """What is known of a file."""
        row = self._database.execute(
            "SELECT content, mode, size, mtime_ns FROM files WHERE path=?", (os.fsencode(path),)
        ).fetchone()
        return Known(content=row[0], mode=row[1], size_bytes=row[2], mtime_ns=row[3]) if row else None

    def catalog(self, path: str) -> str:
        """The nested catalog whose directory is complete, as text; empty when it is not."""
        row = self._database.execute("SELECT digest FROM catalogs WHERE path=?", (os.fsencode(path),)).fetchone()
        return str(row[0]) if row else ""

    def below(self, path: str) -> tuple[set[str], dict[str, str]]:
        """The entries and complete catalogs below a directory."""
        first, last = os.fsencode(path) + b"/", os.fsencode(path) + b"0"  # "0" follows "/"
        files = self._database.execute("SELECT path FROM files WHERE path > ? AND path < ?", (first, last))
        names = {os.fsdecode(row[0]) for row in files}
        catalogs = self._database.execute(
            "SELECT path, digest FROM catalogs WHERE path > ? AND path < ?", (first, last)
        )
        return names, {os.fsdecode(row[0]): row[1] for row in catalogs}

    def paths(self) -> set[str]:
        """Everything that was put into the copy."""
        return {os.fsdecode(row[0]) for row in self._database.execute("SELECT path FROM files")}

    def add(self, rows: Iterable[tuple[str, Known]]) -> None:
        """Remembers entries that are complete."""
        self._database.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
            [(os.fsencode(path), *astuple(known)) for path, known in rows],
        )
        if time.monotonic() - self._saved > _SAVE_S:
            self.checkpoint()

    def forget(self, paths: Iterable[str]) -> None:
        """Forgets entries."""
        rows = [(os.fsencode(path),) for path in paths]
        self._database.executemany("DELETE FROM files WHERE path=?", rows)

    def forget_catalogs(self, paths: Iterable[str]) -> None:
        """Forgets that directories were complete; called before anything in them changes."""
        rows = [(os.fsencode(path),) for path in paths]
        known = {path for (path,) in self._database.execute("SELECT path FROM catalogs")} if rows else set()
        if known.isdisjoint(path for (path,) in rows):
            return
        self._database.executemany("DELETE FROM catalogs WHERE path=?", rows)
        self.checkpoint()

    def finish(self, catalogs: Mapping[str, str]) -> None:
        """Remembers the nested catalogs of a copy that is complete."""
        self._database.execute("DELETE FROM catalogs")
        rows = [(os.fsencode(path), digest) for path, digest in catalogs.items()]
        self._database.executemany("INSERT INTO catalogs VALUES (?, ?)", rows)
