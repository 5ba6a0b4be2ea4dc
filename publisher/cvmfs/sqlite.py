"""SQLite databases as bytes: repositories hold whole database files, so nothing lies on disk meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing

from publisher.errors import FormatError

_MAGIC = b"SQLite format 3\0"
_PAGE_BYTES = 1024
DAMAGE = (sqlite3.Error, UnicodeDecodeError, MemoryError)
"""What reading a damaged database raises: its messages may quote damaged text, and its sizes be without end."""


def build(statements: Iterable[str], fill: Callable[[sqlite3.Connection], None]) -> bytes:
    """The bytes of a new database: made by the statements, then filled in one transaction."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        database.execute("BEGIN")
        for statement in statements:
            database.execute(statement)
        fill(database)
        database.execute("COMMIT")
        return database.serialize()


def open_bytes(data: bytes, *, tables: frozenset[str], where: str) -> sqlite3.Connection:
    """A connection to a database that somebody else wrote; text comes as bytes.

    Raises:
        FormatError: it is no database, or one of the tables is missing or something else than a table.
    """
    if not data.startswith(_MAGIC):
        raise FormatError(f"{where} is no SQLite database")
    if data[18:20] != b"\x01\x01":
        raise FormatError(f"{where} is a database in write-ahead mode, which clients cannot read")
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        database.deserialize(data)
        database.text_factory = bytes
        for pragma in ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON"):
            database.execute(f"PRAGMA {pragma}")
        found = {
            name.decode("utf-8", "replace")
            for name, kind in database.execute("SELECT name, type FROM sqlite_master")
            if kind == b"table" and isinstance(name, bytes)
        }
    except DAMAGE as exc:
        database.close()
        raise FormatError(f"{where} is a damaged SQLite database ({exc})") from None
    missing = sorted(tables - found)
    if missing:
        database.close()
        raise FormatError(f"{where} has no table {missing[0]}")
    return database


def is_intact(data: bytes) -> bool:
    """True when SQLite finds nothing wrong in the bytes of a database, and nothing follows it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        try:
            database.deserialize(data)
            ((pages,),) = database.execute("PRAGMA page_count")
            ((page_bytes,),) = database.execute("PRAGMA page_size")
            ((answer,),) = database.execute("PRAGMA integrity_check(1)")
        except DAMAGE:
            return False
        return bool(answer == "ok" and pages * page_bytes == len(data))


def properties(database: sqlite3.Connection, *, where: str) -> dict[str, str]:
    """The table of keys and values that every database of a repository has.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        rows = database.execute("SELECT key, CAST(value AS TEXT) FROM properties").fetchall()
    except DAMAGE as exc:
        raise FormatError(f"{where} is a damaged SQLite database ({exc})") from None
    return {as_text(key, where=where): as_text(value, where=where) for key, value in rows}


def as_text(value: object, *, where: str) -> str:
    """A text column's value, which must not be NULL nor of another type.

    Raises:
        FormatError: it is.
    """
    if not isinstance(value, bytes):
        raise FormatError(f"{where} has {'NULL' if value is None else 'a number'} where text belongs")
    return value.decode("utf-8", "surrogateescape")


def as_int(value: object, *, where: str) -> int:
    """An integer column's value, which must not be NULL nor of another type.

    Raises:
        FormatError: it is.
    """
    if not isinstance(value, int):
        raise FormatError(f"{where} has {'NULL' if value is None else 'text'} where a number belongs")
    return value
