"""A first look at a tree that is to be published: how big it is, and where its catalogs begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from publisher.cvmfs.dirtab import Dirtab
from publisher.cvmfs.limits import Limits, check_tree, is_suspicious
from publisher.cvmfs.rows import MARKER
from publisher.errors import RepositoryError
from publisher.report import Finding
from publisher.tree import Entry, Graft, Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a first look at a tree said. The tree itself is not kept: it may be of any size."""

    graft: Graft
    files: int
    bytes: int
    """Of all files."""
    catalogs: frozenset[str]
    """Paths that begin a nested catalog: those that the graft names, and those with a marker."""
    rows: Mapping[str, int]
    """Rows of the catalogs of the tree, by their path in the repository."""
    rows_outside: int
    """Rows that go to the catalog around the tree."""
    findings: tuple[Finding, ...]


def survey(graft: Graft, limits: Limits, rules: Dirtab | None = None, *, mount_bytes: int = 0) -> Survey:
    """Goes through a tree once.

    Args:
        graft: the tree, and where it goes.
        limits: what is too big.
        rules: of the repository, that say where catalogs begin.
        mount_bytes: length of the path at which clients mount the repository.

    Raises:
        RepositoryError: it does not begin with its root, or a catalog begins where there is no directory.
        DiskError: it cannot be read.
    """
    files = size_bytes = 0
    held: dict[str, int] = {}
    marked = set()
    odd: list[Entry] = []
    first: Entry | None = None
    for entry in graft.tree:
        if first is None:
            first = entry
            if entry.path:
                break
        else:
            held[entry.parent] = held.get(entry.parent, 0) + 1
        if entry.kind is Kind.DIRECTORY:
            held[entry.path] = 0
        elif entry.kind is Kind.FILE:
            files += 1
            size_bytes += entry.size_bytes
        if is_suspicious(entry, limits):
            odd.append(entry)
        if entry.path.endswith(MARKER) and entry.name == MARKER:
            marked.add(_marked(entry, graft))
    if first is None or first.path:
        raise RepositoryError(f"the tree to publish at {graft.at or '/'} does not begin with its root")
    catalogs = graft.catalogs | marked | _ruled(held, graft, rules or Dirtab())
    for path in sorted(catalogs - held.keys()):
        raise RepositoryError(f"{graft.at}/{path} cannot begin a nested catalog: the tree has no such directory")
    outside, rows = count_rows(held, catalogs, marked)
    return Survey(
        graft=graft,
        files=files,
        bytes=size_bytes,
        catalogs=frozenset(catalogs),
        rows={f"{graft.at}/{path}".rstrip("/"): count for path, count in rows.items()},
        rows_outside=outside,
        findings=tuple(check_tree(odd, graft.at, limits, mount_bytes=mount_bytes)),
    )


def _ruled(held: Mapping[str, int], graft: Graft, rules: Dirtab) -> set[str]:
    """The directories that the rules of the repository name."""
    if rules.positive is None:
        return set()
    return {path for path in held if rules.begins_catalog(f"{graft.at}/{path}".rstrip("/"))}


def _marked(entry: Entry, graft: Graft) -> str:
    """The directory that a marker is about."""
    if entry.kind is not Kind.FILE:
        raise RepositoryError(
            f"cannot publish {graft.at}/{entry.path}: a {MARKER} must be a file, not a {entry.kind}",
            hint="it says that its directory begins a nested catalog: make it an empty file, or remove it",
        )
    return entry.parent


def count_rows(
    held: Mapping[str, int], catalogs: set[str] | frozenset[str], marked: set[str]
) -> tuple[int, dict[str, int]]:
    """How many rows of a tree go to the catalog around it, and to each of its own.

    Args:
        held: how many entries each directory holds, in tree order.
        catalogs: directories that begin a catalog.
        marked: those of them that have a marker already; the others get one.
    """
    counts = {path: 2 - (path in marked) for path in catalogs}  # the root row, which the parent has too, and the marker
    outside = 1
    owners: dict[str, str | None] = {}
    for path, count in held.items():
        owner = path if path in catalogs else owners.get(path.rpartition("/")[0]) if path else None
        owners[path] = owner
        if owner is None:
            outside += count
        else:
            counts[owner] += count
    return outside, counts
