"""File catalogs, read without trusting them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publisher.cvmfs import sqlite, xattr
from publisher.cvmfs.counters import Statistics, parse_statistics
from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.pathhash import PathHash, path_hash
from publisher.cvmfs.rows import Chunk, Row, name_fault, row_fault
from publisher.errors import FormatError

SCHEMA = "2.5"
SCHEMA_REVISION = "7"
_NEEDED = frozenset({"properties", "catalog", "chunks", "nested_catalogs", "statistics"})
_COLUMNS = (
    "md5path_1",
    "md5path_2",
    "parent_1",
    "parent_2",
    "hardlinks",
    "hash",
    "size",
    "mode",
    "mtime",
    "mtimens",
    "flags",
    "name",
    "symlink",
    "uid",
    "gid",
    "xattr",
)
RawRow = tuple[object, ...]
"""The columns of a row as they came from the database."""
_INTEGERS = (0, 1, 2, 3, 4, 6, 7, 8, 10, 13, 14)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogRef:
    """How a catalog names another one that is mounted in it."""

    path: str
    digest: Digest
    size_bytes: int
    """Of the uncompressed database; 0 where the writer did not know."""


class Catalog:
    """One open catalog. Everything it gives was checked; damage raises FormatError."""

    def __init__(self, data: bytes, *, where: str) -> None:
        self.where = where
        self.size_bytes = len(data)
        self._database = sqlite.open_bytes(data, tables=_NEEDED, where=where)
        try:
            self.properties: Mapping[str, str] = sqlite.properties(self._database, where=where)
            self._check_schema()
            self._select = self._selection()
            self._nested = self._refs("nested_catalogs")
            self._binds = self._refs("bind_mountpoints") if self._has_binds() else ()
            self._mounts = tuple({ref.path: ref for ref in refs} for refs in (self._nested, self._binds))
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Frees the memory."""
        self._database.close()

    def _check_schema(self) -> None:
        schema = self.properties.get("schema", "")
        revision = self.properties.get("schema_revision", "0")
        if schema not in {"2.4", SCHEMA} or not revision.isdigit() or int(revision) > int(SCHEMA_REVISION):
            raise FormatError(f"{self.where} has the unknown schema {schema!r}, revision {revision!r}")

    def _selection(self) -> str:
        have = {
            os.fsdecode(name)
            for name in (row[1] for row in self._query("PRAGMA table_info(catalog)"))
            if isinstance(name, bytes)
        }
        missing = [name for name in _COLUMNS if name not in have and name not in {"xattr", "mtimens"}]
        if missing or (self.properties.get("schema_revision") == SCHEMA_REVISION and "mtimens" not in have):
            raise FormatError(f"{self.where} has no column {(missing or ['mtimens'])[0]}")
        columns = ", ".join(name if name in have else f"NULL AS {name}" for name in _COLUMNS)
        return f"SELECT {columns} FROM catalog"  # noqa: S608 - the names are our own

    def _query(self, statement: str, values: tuple[object, ...] = ()) -> list[RawRow]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite.DAMAGE as exc:
            raise FormatError(f"{self.where} is a damaged database ({exc})") from None

    @property
    def root_prefix(self) -> str:
        """Where it is mounted; empty for a root catalog."""
        return self.properties.get("root_prefix", "")

    @property
    def revision(self) -> int:
        """The catalog's own revision.

        Raises:
            FormatError: it has none.
        """
        text = self.properties.get("revision", "")
        if not text.isdigit():
            raise FormatError(f"{self.where} has no revision")
        return int(text)

    @property
    def last_modified_s(self) -> int:
        """When it was written, seconds since 1970; 0 where it does not say."""
        text = self.properties.get("last_modified", "0")
        return int(text) if text.isdigit() else 0

    @property
    def previous(self) -> Digest | None:
        """The catalog that was mounted here before."""
        text = self.properties.get("previous_revision", "")
        return Digest.parse(text) if text.strip("0") else None

    def statistics(self) -> Statistics:
        """The 24 counters.

        Raises:
            FormatError: one is missing.
        """
        rows = self._query("SELECT counter, value FROM statistics")
        values = {
            sqlite.as_text(name, where=self.where): sqlite.as_int(value, where=self.where) for name, value in rows
        }
        return parse_statistics(values, where=self.where)

    def row_counts(self) -> tuple[int, int]:
        """The number of rows of tables ``catalog`` and ``chunks``."""
        ((rows,),) = self._query("SELECT count(*) FROM catalog")
        ((chunks,),) = self._query("SELECT count(*) FROM chunks")
        return sqlite.as_int(rows, where=self.where), sqlite.as_int(chunks, where=self.where)

    def nested(self) -> tuple[CatalogRef, ...]:
        """The catalogs mounted in this one."""
        return self._nested

    def binds(self) -> tuple[CatalogRef, ...]:
        """The root catalogs of other revisions that are bound in."""
        return self._binds

    def mounted(self, row: Row) -> CatalogRef | None:
        """The catalog that holds what is in a directory; None when this one does.

        Raises:
            FormatError: the row and the list of mounted catalogs say different things.
        """
        found = self._mounts[row.bind_mount].get(row.path)
        if (found is not None) != (row.mount_point or row.bind_mount):
            raise FormatError(f"{self.where}: {row.path} is a mount point in one table, and not in the other")
        return found

    def _has_binds(self) -> bool:
        return bool(self._query("SELECT name FROM sqlite_master WHERE type='table' AND name='bind_mountpoints'"))

    def _refs(self, table: str) -> tuple[CatalogRef, ...]:
        size = "size" if int(self.properties.get("schema_revision", "0")) > 0 else "0"
        rows = self._query(f"SELECT path, sha1, {size} FROM {table} ORDER BY path")  # noqa: S608 - our own names
        return tuple(
            CatalogRef(
                path=sqlite.as_text(path, where=self.where),
                digest=Digest.parse(sqlite.as_text(digest, where=self.where)),
                size_bytes=sqlite.as_int(size_bytes, where=self.where),
            )
            for path, digest, size_bytes in rows
        )

    def find(self, path: str) -> Row | None:
        """The row of a path."""
        found = self._query(f"{self._select} WHERE md5path_1=? AND md5path_2=?", path_hash(path))
        return self.decode(found[0], path.rpartition("/")[0], root=path == self.root_prefix) if found else None

    def listing(self, directory: str) -> list[Row]:
        """The rows of a directory, sorted by the bytes of their names.

        Raises:
            FormatError: a row is damaged, or a name is hostile or there twice.
        """
        found = self._query(f"{self._select} WHERE parent_1=? AND parent_2=?", path_hash(directory))
        rows = [self.decode(raw, directory) for raw in found if not self._is_own_root(raw, directory)]
        names = {row.path: row for row in rows}
        if len(names) != len(rows):
            raise FormatError(f"{self.where}: the directory {directory or '/'} has a name twice")
        return sorted(rows, key=lambda row: os.fsencode(row.name))

    def _is_own_root(self, raw: RawRow, directory: str) -> bool:
        """A catalog mounted at /a/b holds the row of /a/b, whose parent is not in it."""
        prefix = self.root_prefix
        return bool(prefix) and prefix.rpartition("/")[0] == directory and raw[:2] == path_hash(prefix)

    def root(self) -> Row:
        """The row of the directory at which it is mounted.

        Raises:
            FormatError: there is none.
        """
        row = self.find(self.root_prefix)
        if row is None or not row.is_directory:
            raise FormatError(f"{self.where} has no row for its own root")
        return row

    def objects(self) -> Iterator[tuple[bytes, ObjectKind]]:
        """The raw digests of all contents that it names, whatever the flags of the rows say."""
        for table, kind in (("catalog", ObjectKind.FILE), ("chunks", ObjectKind.CHUNK)):
            for (raw,) in self._query(f"SELECT DISTINCT hash FROM {table} WHERE hash IS NOT NULL"):  # noqa: S608 - own
                yield Digest(raw=_blob(raw, self.where) or b"", algorithm=Algorithm.SHA1).raw, kind

    def raw_rows(self) -> dict[PathHash, list[RawRow]]:
        """All rows as they are, by the hash of their parent."""
        groups: dict[PathHash, list[RawRow]] = {}
        for raw in self._query(self._select):
            groups.setdefault((raw[2], raw[3]), []).append(raw)  # type: ignore[arg-type]
        return groups

    def outline(self) -> tuple[int, list[RawRow]]:
        """The number of its rows, and the columns of the one of its root: cheap to compare."""
        root = self._query(f"{self._select} WHERE md5path_1=? AND md5path_2=?", path_hash(self.root_prefix))
        return self.row_counts()[0], root

    def columns(self) -> Iterator[RawRow]:
        """All rows of table ``catalog``, then those of ``chunks``, each in the order of their path hashes."""
        chunks = "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks"
        try:
            yield from self._database.execute(f"{self._select} ORDER BY md5path_1, md5path_2")
            yield from self._database.execute(f"{chunks} ORDER BY md5path_1, md5path_2, offset")
        except sqlite.DAMAGE as exc:
            raise FormatError(f"{self.where} is a damaged database ({exc})") from None

    def rows(self) -> Iterator[Row]:
        """All rows in tree order, the catalog's root first."""
        root = self.root()
        yield root
        waiting = [root]
        while waiting:
            row = waiting.pop()
            if row is not root:
                yield row
            if row.is_directory and not row.mount_point and not row.bind_mount:
                waiting.extend(reversed(self.listing(row.path)))

    def decode(self, raw: RawRow, directory: str, *, root: bool = False) -> Row:
        """A row as it is listed in a directory.

        Raises:
            FormatError: it is damaged or hostile.
        """
        name = sqlite.as_text(raw[11], where=f"{self.where}: the directory {directory or '/'}")
        path = f"{directory}/{name}" if name or directory else ""
        where = f"{self.where}: {path or '/'}"
        fault = "" if root and not path else name_fault(name)
        if fault:
            raise FormatError(f"{self.where}: a name in {directory or '/'} {fault}")
        for column in _INTEGERS:
            sqlite.as_int(raw[column], where=where)
        if raw[:2] != path_hash(path):
            raise FormatError(f"{where}: the path hash is not that of the path")
        row = self._row(raw, path, where)
        fault = row_fault(row)
        if fault:
            raise FormatError(f"{where}: {fault}")
        return row

    def _row(self, raw: RawRow, path: str, where: str) -> Row:
        hardlinks, size, mode, mtime, flags, uid, gid = (
            sqlite.as_int(raw[index], where=where) for index in (4, 6, 7, 8, 10, 13, 14)
        )
        row = Row(
            path=path,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime,
            mtimens=None if raw[9] is None else sqlite.as_int(raw[9], where=where),
            flags=flags,
            links=hardlinks & 0xFFFFFFFF,
            group=hardlinks >> 32,
            digest=_blob(raw[5], where),
            target=sqlite.as_text(raw[12], where=where),
            xattr=_blob(raw[15], where),
            chunks=self._chunks(raw, where) if flags & 64 else (),
        )
        try:
            xattr.decode(row.xattr)
            _ = row.algorithm, row.compression
        except FormatError as exc:
            raise FormatError(f"{where}: {exc.message}") from None
        return row

    def _chunks(self, raw: RawRow, where: str) -> tuple[Chunk, ...]:
        found = self._query(
            "SELECT offset, size, hash FROM chunks WHERE md5path_1=? AND md5path_2=? ORDER BY offset", raw[:2]
        )
        return tuple(
            Chunk(
                offset=sqlite.as_int(offset, where=where),
                size_bytes=sqlite.as_int(size, where=where),
                digest=_blob(digest, where) or b"",
            )
            for offset, size, digest in found
        )


def _blob(value: object, where: str) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    raise FormatError(f"{where} has a number where bytes belong")
