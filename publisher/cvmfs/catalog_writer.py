"""File catalogs, written."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.cvmfs import sqlite
from publisher.cvmfs.catalog import CatalogRef, RawRow
from publisher.cvmfs.compression import METADATA
from publisher.cvmfs.counters import Statistics
from publisher.cvmfs.packer import Packed, Packer
from publisher.cvmfs.pathhash import PathHash, parent_hash, path_hash
from publisher.cvmfs.rows import Row, tree_place

_TABLES = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
    (
        "CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, "
        "hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER, "
        "name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB, "
        "CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2))"
    ),
    (
        "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB, "
        "CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size), "
        "FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2))"
    ),
    (
        "CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, "
        "CONSTRAINT pk_nested_catalogs PRIMARY KEY (path))"
    ),
    (
        "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, "
        "CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path))"
    ),
    "CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter))",
)
_PARENT_INDEX = "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)"
"""Made when the rows are there: sorting them at once is faster than one by one, and leaves no half-empty pages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogContents:
    """All that goes into a new catalog."""

    rows: Sequence[Row]
    """In any order."""
    nested: tuple[CatalogRef, ...]
    binds: tuple[CatalogRef, ...]
    properties: Mapping[str, str]
    statistics: Statistics


def encode_catalog(contents: CatalogContents) -> bytes:
    """The bytes of a (uncompressed) catalog; its rows are in tree order, siblings by the bytes of their names."""
    return sqlite.build(_TABLES, _filler(contents))


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogTask:
    """A catalog to be stored, by whoever packs."""

    contents: CatalogContents

    def pack(self, packer: Packer) -> list[Packed]:
        """Encodes and stores it."""
        return [packer.store(encode_catalog(self.contents), METADATA)]


def columns_of(rows: Sequence[Row]) -> Iterator[RawRow]:
    """The columns of rows, text as bytes, as :meth:`Catalog.columns` gives them; rows of table ``chunks`` behind."""
    hashes = {row.path: path_hash(row.path) for row in rows if row.is_directory}
    for row in rows:
        yield _columns(row, hashes)
    for row in rows:
        for chunk in row.chunks:
            yield (*path_hash(row.path), chunk.offset, chunk.size_bytes, chunk.digest)


def outline_of(rows: Mapping[str, Row], mount: str) -> tuple[int, list[RawRow]]:
    """What :meth:`Catalog.outline` gives of a catalog with these rows."""
    return len(rows), [_columns(rows[mount], {})]


def _filler(contents: CatalogContents) -> Callable[[sqlite3.Connection], None]:
    def fill(database: sqlite3.Connection) -> None:
        columns = columns_of(sorted(contents.rows, key=tree_place))
        values = [(key, os.fsencode(value)) for key, value in contents.properties.items()]
        database.executemany("INSERT INTO properties VALUES (?, CAST(? AS TEXT))", values)
        database.executemany(
            "INSERT INTO catalog VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)",
            itertools.islice(columns, len(contents.rows)),
        )
        database.execute(_PARENT_INDEX)
        database.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", columns)
        for table, refs in (("nested_catalogs", contents.nested), ("bind_mountpoints", contents.binds)):
            database.executemany(
                f"INSERT INTO {table} VALUES (CAST(? AS TEXT), ?, ?)",  # noqa: S608 - the names are our own
                [(os.fsencode(ref.path), str(ref.digest), ref.size_bytes) for ref in refs],
            )
        database.executemany("INSERT INTO statistics VALUES (?, ?)", contents.statistics.rows())

    return fill


def _columns(row: Row, directories: Mapping[str, PathHash]) -> RawRow:
    path = row.path
    parent, _, name = path.rpartition("/")
    return (
        *(directories.get(path) or path_hash(path)),
        *((directories.get(parent) if path else None) or parent_hash(path)),
        (row.group << 32) | row.links,
        row.digest,
        row.size,
        row.mode,
        row.mtime,
        row.mtimens,
        int(row.flags),
        os.fsencode(name),
        os.fsencode(row.target) if row.target else b"",
        row.uid,
        row.gid,
        row.xattr,
    )
