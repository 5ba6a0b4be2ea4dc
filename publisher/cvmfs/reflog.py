"""``.cvmfsreflog``: every root catalog, certificate, tag database and metainfo that was ever published."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from enum import IntEnum

from publisher.cvmfs import sqlite
from publisher.cvmfs.digest import Digest
from publisher.errors import FormatError

REFLOG_NAME = ".cvmfsreflog"
_WHERE = f"the reflog {REFLOG_NAME}"
_TABLES = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
    "CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash))",
)


class RefKind(IntEnum):
    """What a reflog row is about. Source: cvmfs/reflog_sql.h (2.12)."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    METAINFO = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Ref:
    """One row of a reflog."""

    digest: Digest
    kind: RefKind
    added_s: int
    """When it came in, seconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reflog:
    """A reflog, in the order in which it was written."""

    fqrn: str
    refs: tuple[Ref, ...] = ()

    def holds(self, digest: Digest, kind: RefKind) -> bool:
        """True when the object is in it."""
        return any(ref.digest == digest and ref.kind is kind for ref in self.refs)

    def with_refs(self, refs: Iterable[Ref]) -> Reflog:
        """The reflog with rows added; those that are in it already keep their time."""
        have = {ref.digest for ref in self.refs}
        new = {ref.digest: ref for ref in refs if ref.digest not in have}
        return Reflog(fqrn=self.fqrn, refs=(*self.refs, *new.values()))


def encode_reflog(reflog: Reflog) -> bytes:
    """The bytes of ``.cvmfsreflog``."""

    def fill(database: sqlite3.Connection) -> None:
        rows = (("schema", "1.0"), ("schema_revision", "0"), ("fqrn", reflog.fqrn))
        database.executemany("INSERT INTO properties VALUES (?, ?)", rows)
        refs = [(str(ref.digest), int(ref.kind), ref.added_s) for ref in reflog.refs]
        database.executemany("INSERT INTO refs VALUES (?, ?, ?)", refs)

    return sqlite.build(_TABLES, fill)


def parse_reflog(data: bytes) -> Reflog:
    """The reflog in the bytes of ``.cvmfsreflog``.

    Raises:
        FormatError: it is damaged.
    """
    with closing(sqlite.open_bytes(data, tables=frozenset({"properties", "refs"}), where=_WHERE)) as database:
        try:
            rows = database.execute("SELECT hash, type, timestamp FROM refs ORDER BY rowid").fetchall()
        except sqlite.DAMAGE as exc:
            raise FormatError(f"{_WHERE} is damaged ({exc})") from None
        names = sqlite.properties(database, where=_WHERE)
    return Reflog(fqrn=names.get("fqrn", ""), refs=tuple(_ref(row) for row in rows))


def _ref(row: tuple[object, object, object]) -> Ref:
    kind = sqlite.as_int(row[1], where=_WHERE)
    if kind not in set(RefKind):
        raise FormatError(f"{_WHERE} has a row of unknown type {kind}")
    return Ref(
        digest=Digest.parse(sqlite.as_text(row[0], where=_WHERE)),
        kind=RefKind(kind),
        added_s=sqlite.as_int(row[2], where=_WHERE),
    )
