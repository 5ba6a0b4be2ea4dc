"""Checking one catalog: every rule of the format, each damage reported instead of stopping at the first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from publisher.cvmfs.catalog import Catalog, CatalogRef, RawRow
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.counters import COUNTERS, Counters, Statistics, count
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.pathhash import parent_hash, path_hash
from publisher.cvmfs.rows import MARKER, Flag, Row, type_flags
from publisher.errors import FormatError
from publisher.report import Finding, error, warning
from publisher.tree import Kind

_TYPE_BITS = Flag.DIRECTORY | Flag.FILE | Flag.SYMLINK | Flag.SPECIAL
_PLACE_BITS = Flag.MOUNT_POINT | Flag.NESTED_ROOT


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What a row says of an object."""

    digest: Digest
    kind: ObjectKind
    compression: Compression
    size_bytes: int
    where: str


@dataclass(kw_only=True, slots=True)
class CatalogCheck:
    """What is known of a catalog after its check."""

    ref: CatalogRef
    findings: list[Finding] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    mounts: dict[str, Row] = field(default_factory=dict)
    """The rows at which nested catalogs are mounted."""
    nested: tuple[CatalogRef, ...] = ()
    own: Counters | None = None
    """Counted from the rows; None where they could not be counted."""
    stated: Statistics | None = None

    def say(self, check: str, path: str, message: str) -> None:
        """Adds a finding about a path."""
        self.findings.append(error(check, path or "/", message))


def check_catalog(catalog: Catalog, ref: CatalogRef, parent_row: Row | None) -> CatalogCheck:
    """All findings about a catalog, apart from what is mounted in it.

    Args:
        catalog: the catalog.
        ref: how its parent, or the manifest, names it.
        parent_row: the row of its mount point in the parent; None for a root catalog.
    """
    result = CatalogCheck(ref=ref)
    steps = (_check_head, _check_refs, _check_rows, _check_statistics)
    for step in steps:
        try:
            step(catalog, result, parent_row)
        except FormatError as exc:
            result.say("catalog-damaged", ref.path, exc.message)
    return result


def _check_head(catalog: Catalog, result: CatalogCheck, _: Row | None) -> None:
    ref = result.ref
    if ref.size_bytes and ref.size_bytes != catalog.size_bytes:
        result.say(
            "catalog-size",
            ref.path,
            f"the catalog has {catalog.size_bytes} bytes, {ref.size_bytes} are said where it is named",
        )
    if not ref.size_bytes:
        result.findings.append(
            warning("catalog-size", ref.path or "/", "the size of the catalog is not said where it is named")
        )
    if ref.path and "root_prefix" not in catalog.properties:
        result.say("catalog-place", ref.path, "the catalog does not say where it is mounted")
    elif catalog.root_prefix != ref.path:
        result.say("catalog-place", ref.path, f"the catalog belongs to {catalog.root_prefix or '/'}")
    revision = catalog.revision
    if revision and catalog.previous == ref.digest:
        result.say("catalog-property", ref.path, "the catalog names itself as the one before")
    if not catalog.properties.get("last_modified", "").isdecimal():
        result.say("catalog-property", ref.path, "the catalog has no time of its last change")


def _check_refs(catalog: Catalog, result: CatalogCheck, _: Row | None) -> None:
    result.nested = catalog.nested()
    both = {ref.path for ref in result.nested} & {ref.path for ref in catalog.binds()}
    for path in sorted(both):
        result.say("mount-point", path, "is both a nested catalog and another revision")


def _check_rows(catalog: Catalog, result: CatalogCheck, parent_row: Row | None) -> None:
    groups = catalog.raw_rows()
    root = catalog.root()
    rows = [root]
    reached = 1
    _check_root(result, root, parent_row)
    if not any(raw[:2] == path_hash(root.path) for raw in groups.get(parent_hash(root.path), ())):
        result.say("catalog-root", root.path, "the path hash of its parent is wrong")
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        listed = [raw for raw in groups.get(path_hash(directory.path), ()) if raw[:2] != path_hash(root.path)]
        reached += len(listed)
        if directory is not root and (directory.mount_point or directory.bind_mount):
            if listed:
                result.say("mount-point", directory.path, "has rows below it in the parent catalog")
            continue
        children = list(_decoded(catalog, result, directory.path, listed))
        _check_directory(result, directory, children)
        rows += children
        waiting += [row for row in children if row.is_directory]
    for row in rows[1:]:
        result.findings.extend(_row_findings(row))
    total, chunk_rows = catalog.row_counts()
    if total != reached:
        result.say("dangling-row", result.ref.path, f"{total - reached} rows belong to no directory")
    if chunk_rows != sum(len(row.chunks) for row in rows):
        result.say("dangling-chunk", result.ref.path, "there are chunks that belong to no file")
    _check_mounts(catalog, result, rows)
    result.own = count(rows, nested=len(result.nested))
    result.references = [reference for row in rows for reference in _references(row)]


def _check_root(result: CatalogCheck, root: Row, parent_row: Row | None) -> None:
    nested = bool(root.flags & Flag.NESTED_ROOT)
    if nested != bool(result.ref.path):
        result.say("catalog-root", root.path, "the flag of a nested catalog's root is wrong")
    if root.flags & _TYPE_BITS != Flag.DIRECTORY:
        result.say("type-flags", root.path, "the type flags are not those of a directory")
    if parent_row is not None:
        here = root._replace(flags=root.flags & ~_PLACE_BITS)
        there = parent_row._replace(flags=parent_row.flags & ~_PLACE_BITS)
        for name in ("mode", "uid", "gid", "size", "mtime", "mtimens", "flags", "links", "group", "xattr"):
            if getattr(here, name) != getattr(there, name):
                result.say(
                    "transition",
                    root.path,
                    f"{name} is {getattr(there, name)!r} in the parent catalog, {getattr(here, name)!r} in its own",
                )


def _decoded(catalog: Catalog, result: CatalogCheck, directory: str, listed: list[RawRow]) -> Iterator[Row]:
    names: set[str] = set()
    for raw in listed:
        try:
            row = catalog.decode(raw, directory)
        except FormatError as exc:
            result.say("damaged-row", directory, exc.message)
            raw_name = raw[11]
            if isinstance(raw_name, bytes) and os.fsdecode(raw_name) in names:
                result.say("duplicate-name", directory, f"the name {os.fsdecode(raw_name)!r} is there twice")
            continue
        if row.name in names:
            result.say("duplicate-name", directory, f"the name {row.name!r} is there twice")
        names.add(row.name)
        yield row


def _check_directory(result: CatalogCheck, directory: Row, children: list[Row]) -> None:
    links = 2 + sum(row.is_directory for row in children)
    if directory.links != links:
        result.say("link-count", directory.path, f"the link count is {directory.links}, not {links}")
    marked = any(row.name == MARKER and row.kind is Kind.FILE for row in children)
    begins = bool(result.ref.path) and directory.path == result.ref.path
    if marked != begins:
        text = f"has no {MARKER}, though a nested catalog begins here" if begins else f"has a {MARKER}"
        result.say("marker", directory.path, text)
    members: dict[int, list[Row]] = {}
    for row in children:
        if row.group:
            members.setdefault(row.group, []).append(row)
        elif not row.is_directory and row.links > 1:
            result.say("hard-links", row.path, f"the link count is {row.links}, but there is no group")
    for rows in members.values():
        if any(row.links != len(rows) for row in rows):
            result.say("hard-links", rows[0].path, f"the group has {len(rows)} members, its link count is another")
        if len({row._replace(path="") for row in rows}) > 1:
            result.say("hard-links", rows[0].path, "the members of the group are not alike")


def _check_mounts(catalog: Catalog, result: CatalogCheck, rows: list[Row]) -> None:
    result.mounts = {row.path: row for row in rows[1:] if row.mount_point}
    binds = {row.path for row in rows[1:] if row.bind_mount}
    for named, found, what in (
        ({ref.path for ref in result.nested}, set(result.mounts), "a nested catalog"),
        ({ref.path for ref in catalog.binds()}, binds, "another revision"),
    ):
        for path in sorted(named - found):
            result.say("mount-point", path, f"{what} is named for it, but it is no mount point")
        for path in sorted(found - named):
            result.say("mount-point", path, f"is a mount point, but {what} is not named for it")


def _row_findings(row: Row) -> Iterator[Finding]:
    for check, message in (*_general_faults(row), *_kind_faults(row)):
        yield error(check, row.path, message)
    length = len(os.fsencode(row.target))
    if row.kind is Kind.SYMLINK and row.size != length:
        # Readers take the length of the target; some CVMFS tools store 0 here.
        yield warning("symlink", row.path, f"the stored size is {row.size}, the target has {length} bytes")


def _general_faults(row: Row) -> Iterator[tuple[str, str]]:
    kind = row.kind
    if row.links < 1:
        yield "link-count", "the link count is 0"
    if row.flags & _TYPE_BITS != type_flags(kind):
        yield "type-flags", f"the type flags are not those of a {kind}"
    if row.target and kind is not Kind.SYMLINK:
        yield "symlink", f"a {kind} has a link target"
    if kind is not Kind.FILE:
        for flag, what in (
            (Flag.CHUNKED, "chunks"),
            (Flag.EXTERNAL, "external data"),
            (Flag.DIRECT_IO, "direct I/O"),
        ):
            if row.flags & flag:
                yield "type-flags", f"a {kind} has the flag for {what}"
        if row.digest is not None:
            yield "digest", f"a {kind} has a digest"
    if row.flags & Flag.NESTED_ROOT:
        yield "catalog-root", "has the flag of a nested catalog's root"


def _kind_faults(row: Row) -> Iterator[tuple[str, str]]:
    kind = row.kind
    if kind is Kind.DIRECTORY:
        if row.group:
            yield "hard-links", "a directory is in a group of hard links"
        if row.mount_point and row.bind_mount:
            yield "mount-point", "is both a nested catalog and another revision"
    elif row.mount_point or row.bind_mount or row.hidden:
        yield "type-flags", f"a {kind} has a flag of directories"
    if kind in (Kind.FIFO, Kind.SOCKET) and row.size:
        yield "size", f"a {kind} has the size {row.size}"


def _references(row: Row) -> Iterator[Reference]:
    if row.kind is not Kind.FILE or row.external:
        return
    for chunk in row.chunks:
        yield Reference(
            digest=Digest(raw=chunk.digest, algorithm=row.algorithm),
            kind=ObjectKind.CHUNK,
            compression=row.compression,
            size_bytes=chunk.size_bytes,
            where=row.path,
        )
    if row.content is not None:
        yield Reference(
            digest=row.content,
            kind=ObjectKind.FILE,
            compression=row.compression,
            size_bytes=row.size,
            where=row.path,
        )


def _check_statistics(catalog: Catalog, result: CatalogCheck, _: Row | None) -> None:
    result.stated = catalog.statistics()
    if result.own is not None:
        result.findings.extend(counter_findings("self", result.ref.path, result.stated.own, result.own))


def counter_findings(prefix: str, path: str, stated: Counters, counted: Counters) -> Iterator[Finding]:
    """A finding for each counter that is wrong."""
    for name in COUNTERS:
        said, found = getattr(stated, name), getattr(counted, name)
        if said != found:
            yield error("counter", path or "/", f"the counter {prefix}_{name} is {said}, {found} are there")


def subtree_findings(checks: Mapping[str, CatalogCheck]) -> Iterator[Finding]:
    """Findings about the ``subtree`` counters of catalogs.

    Args:
        checks: by mount path, parents before what is mounted in them.
    """
    totals: dict[str, Counters] = {}
    for path, check in reversed(list(checks.items())):
        below = [totals.get(ref.path) for ref in check.nested]
        known = [each for each in below if each is not None]
        if check.own is None or len(known) != len(below):
            continue
        subtree = sum(known, Counters())
        totals[path] = check.own + subtree
        if check.stated is not None:
            yield from counter_findings("subtree", path, check.stated.subtree, subtree)
