"""One catalog being changed, held in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from publisher.cvmfs.catalog import SCHEMA, SCHEMA_REVISION, Catalog, CatalogRef
from publisher.cvmfs.catalog_writer import CatalogContents, outline_of
from publisher.cvmfs.counters import Counters, Statistics, count
from publisher.cvmfs.digest import ZERO, Digest
from publisher.cvmfs.fingerprint import fingerprint, fingerprint_of
from publisher.cvmfs.rows import Flag, Row, tree_place

_WRITTEN_ANEW = {
    "schema",
    "schema_revision",
    "revision",
    "last_modified",
    "previous_revision",
    "root_prefix",
    "TTL",
}


OpenCatalog = Callable[[CatalogRef], Catalog]
"""Gives an open catalog; it may be closed when many others have been opened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Former:
    """The catalog that was mounted at a path before."""

    ref: CatalogRef
    open: OpenCatalog = field(repr=False, compare=False)
    """Opens it, when it must be looked at."""
    revision: int
    nested: dict[str, CatalogRef]
    subtree: Counters
    properties: dict[str, str]


@dataclass(kw_only=True, slots=True)
class Draft:
    """A catalog being changed: its rows, and what is mounted in it."""

    mount: str
    rows: dict[str, Row] = field(default_factory=dict)
    nested: dict[str, CatalogRef] = field(default_factory=dict)
    binds: tuple[CatalogRef, ...] = ()
    former: Former | None = None
    dirty: bool = False
    unfinished: int = 0
    """Nested catalogs in it that are being written."""

    def put(self, row: Row) -> None:
        """Adds a row, or replaces the one of the same path."""
        self.rows[row.path] = row
        self.dirty = True

    def drop(self, path: str) -> list[str]:
        """Removes a row and all below it in this catalog; gives the mount points among them."""
        self.dirty = True
        below = f"{path}/"
        gone = [each for each in self.rows if each == path or each.startswith(below)]
        return [each for each in gone if self.rows.pop(each).mount_point]

    def settle_links(self) -> None:
        """Puts every link count right: 2 and the sub-directories for directories, the members for hard links."""
        directories = [row for row in self.rows.values() if row.is_directory]
        below = Counter(row.parent for row in directories if row.path != self.mount)
        for row in directories:
            if not row.mount_point and not row.bind_mount and row.links != 2 + below[row.path]:
                self.rows[row.path] = row._replace(links=2 + below[row.path])
        if any(not row.is_directory and (row.group or row.links > 1) for row in self.rows.values()):
            self._settle_groups()

    def _settle_groups(self) -> None:
        members: dict[Row, list[str]] = {}
        for row in sorted(self.rows.values(), key=tree_place):
            if not row.is_directory and (row.group or row.links > 1):
                # Links of one file are equal in everything but the name; what is not, is a file of its own.
                members.setdefault(row._replace(path=row.parent, links=1), []).append(row.path)
        number = 0
        for alike, paths in members.items():
            alone = len(paths) == 1 or not alike.group
            number += not alone
            for path in paths:
                row = self.rows[path]
                links, own = (1, 0) if alone else (len(paths), number)
                if (row.links, row.group) != (links, own):
                    self.rows[path] = row._replace(links=links, group=own)

    def unchanged(self, ttl_s: int | None) -> bool:
        """True when the catalog that was here before says the same."""
        former = self.former
        if former is None or any(self.mounted_changes()):
            return False
        if ttl_s is not None and former.properties.get("TTL", str(ttl_s)) != str(ttl_s):
            return False
        if not self.dirty:
            return True
        catalog = former.open(former.ref)
        if catalog.outline() != outline_of(self.rows, self.mount):  # so are most of those that differ
            return False
        return fingerprint(catalog) == fingerprint_of(tuple(self.rows.values()))

    def mounted_changes(self) -> tuple[list[CatalogRef], list[CatalogRef]]:
        """The nested catalogs that went, and those that came."""
        before = self.former.nested if self.former else {}
        went = [ref for path, ref in before.items() if _digest(self.nested, path) != ref.digest]
        came = [ref for path, ref in self.nested.items() if _digest(before, path) != ref.digest]
        return went, came

    def contents(self, *, revision: int, now_s: int, ttl_s: int | None, subtree: Counters) -> CatalogContents:
        """All that goes into the new catalog."""
        former = self.former
        properties = {"schema": SCHEMA, "schema_revision": SCHEMA_REVISION}
        if self.mount:
            properties["root_prefix"] = self.mount
        if former is not None:
            properties |= {key: value for key, value in former.properties.items() if key not in _WRITTEN_ANEW}
        if ttl_s is not None:
            properties["TTL"] = str(ttl_s)
        properties["last_modified"] = str(now_s)
        properties["revision"] = str(revision)
        properties["previous_revision"] = str(former.ref.digest) if former else ZERO
        rows = tuple(self.rows.values())
        return CatalogContents(
            rows=rows,
            nested=tuple(self.nested[path] for path in sorted(self.nested, key=os.fsencode)),
            binds=self.binds,
            properties=properties,
            statistics=Statistics(own=count(rows, nested=len(self.nested)), subtree=subtree),
        )

    @property
    def mount_row(self) -> Row:
        """The row of the mount point as the parent catalog has it."""
        root = self.rows[self.mount]
        return root._replace(flags=(root.flags & ~Flag.NESTED_ROOT) | Flag.MOUNT_POINT)


def draft_of(open_catalog: OpenCatalog, ref: CatalogRef) -> Draft:
    """A draft that says what a catalog says.

    Raises:
        FormatError: the catalog is damaged.
    """
    catalog = open_catalog(ref)
    draft = Draft(mount=ref.path, binds=catalog.binds())
    for row in catalog.rows():
        draft.put(row)
    draft.nested = {each.path: each for each in catalog.nested()}
    draft.former = former_of(open_catalog, ref)
    draft.dirty = False
    return draft


def former_of(open_catalog: OpenCatalog, ref: CatalogRef) -> Former:
    """What there is to know of a catalog in whose place another one comes.

    Raises:
        FormatError: the catalog is damaged.
    """
    catalog = open_catalog(ref)
    return Former(
        ref=ref,
        open=open_catalog,
        revision=catalog.revision,
        nested={each.path: each for each in catalog.nested()},
        subtree=catalog.statistics().subtree,
        properties=dict(catalog.properties),
    )


def _digest(refs: dict[str, CatalogRef], path: str) -> Digest | None:
    ref = refs.get(path)
    return ref.digest if ref else None


def nested_root(row: Row) -> Row:
    """A directory's row as the root row of a nested catalog."""
    return row._replace(flags=(row.flags & ~Flag.MOUNT_POINT) | Flag.NESTED_ROOT)


def plain_directory(path: str, *, now_s: int) -> Row:
    """The row of a directory that is made because something goes below it."""
    return Row(path=path, mode=0o040755, size=4096, mtime=now_s, flags=Flag.DIRECTORY, links=2)
