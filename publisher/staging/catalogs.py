"""Where nested catalogs begin, computed from the real number of entries.

A client fetches a whole catalog to look at one name in it, and asks for one catalog after the other on its way down.
So what a start needs should lie in few catalogs, and what it does not need in others. The figures behind the rules
and the defaults are in ``docs/performance.md``; ``benchmarks/catalogs.py`` makes them.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from publisher.cvmfs.dirtab import DIRTAB
from publisher.cvmfs.rows import MARKER
from publisher.patterns import PathPattern, matcher
from publisher.project.settings import CatalogBounds
from publisher.records.release import CatalogPart
from publisher.report import Finding, Report, collect, error, note
from publisher.tree import Entry, Kind

NATURAL: Final = tuple(
    map(
        PathPattern,
        (
            "share/doc",
            "share/man",
            "share/info",
            "share/locale",
            "include",
            "lib/python*/*-packages/*",
            "lib/python*/test",
            "*-packages/**/tests",
            "third_party",
            "share/perl",
            "tutorials",
            "var/lib/*",
        ),
    )
)
"""Directories that a start needs whole or not at all: they begin a catalog as soon as they are large enough."""
TOGETHER: Final = (PathPattern("ROOT/include"),)
"""What looks like one of them, but is needed whenever what is around it is: cling reads the headers of ROOT."""
SEAMS: Final = tuple(map(PathPattern, ("lib/python*/*-packages", "/usr/local", "/opt/*", "/usr/share")))
"""Directories that many starts need a part of: cut off before others where a catalog would be too large."""
WHOLE: Final = tuple(
    map(
        PathPattern,
        (
            ".singularity.d",
            "share/jupyter",
            "etc/jupyter",
            "*.dist-info",
            "*.egg-info",
            "lib-dynload",
            "include",
            "ROOT/lib",
            "etc/cling",
            "/etc",
        ),
    )
)
"""Directories that a start of a kernel walks whole: Jupyter its kernels and settings, Python its entry points and
modules, cling its headers. Nothing inside begins a catalog."""
_BAND = 2
"""A boundary of the release before stays as long as it has this part of the least entries."""


class State(StrEnum):
    """A nested catalog beside that of the release before."""

    NEW = "new"
    """None began there."""
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    """The same names, kinds, modes, sizes and link targets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a split needs to know of a tree."""

    counts: Mapping[str, int]
    """How many entries each directory holds itself; ``""`` is the root."""
    remarkable: tuple[Entry, ...]
    """Markers of nested catalogs, whatever they are, and files of rules."""

    @property
    def marked(self) -> frozenset[str]:
        """The directories that hold a marker, and so begin a nested catalog whatever their size."""
        return frozenset(entry.parent for entry in self.remarkable if entry.name == MARKER and entry.kind is Kind.FILE)


def measure(entries: Iterable[Entry]) -> Measured:
    """Goes through a tree once."""
    counts: dict[str, int] = {}
    remarkable = []
    for entry in entries:
        if entry.path:
            counts[entry.parent] += 1
        if entry.kind is Kind.DIRECTORY:
            counts[entry.path] = 0
        if entry.path.endswith((MARKER, DIRTAB)) and entry.name in {MARKER, DIRTAB}:
            remarkable.append(entry)
    return Measured(counts=counts, remarkable=tuple(remarkable))


def split(
    counts: Mapping[str, int],
    bounds: CatalogBounds,
    *,
    previous: frozenset[str] = frozenset(),
    marked: frozenset[str] = frozenset(),
) -> frozenset[str]:
    """The directories of a tree that begin a nested catalog; ``""`` is its root.

    The root begins one when the tree has at least ``min_entries``, and so does each directory of :data:`NATURAL`.
    Where more than ``max_entries`` would still fall into one catalog, more is cut off until it holds no more than half
    of that: first the heaviest of :data:`SEAMS`, then the heaviest of the sub-directories, the deepest first. So a
    tree that grows a little keeps its catalogs. Nothing inside of :data:`WHOLE` is cut off.

    Args:
        counts: how many entries each directory holds itself (see :func:`measure`).
        bounds: least and most entries, and patterns beside those above.
        previous: what this function gave for the tree that was published before. Those stay while they have half of
            the least entries, so that a release does not move what the one before had settled.
        marked: directories with a marker of their own; they begin a catalog in any case.
    """
    return _Splitter(counts, bounds, previous, marked).run()


class _Splitter:
    """One split; what is known of the directories."""

    def __init__(
        self, counts: Mapping[str, int], bounds: CatalogBounds, previous: frozenset[str], marked: frozenset[str]
    ) -> None:
        self._bounds = bounds
        self._previous = previous
        self._marked = marked & counts.keys()
        self._order = sorted(counts, key=lambda path: (path.count("/") + bool(path), path))
        self._rows = dict(counts)
        """Entries below each directory in the same catalog; without its own row."""
        self._children: dict[str, list[str]] = defaultdict(list)
        self._seams: dict[str, list[str]] = defaultdict(list)
        self._natural = matcher((*NATURAL, *bounds.cut))
        self._together = matcher(TOGETHER)
        self._seam = matcher(SEAMS)
        self._inside = self._find_inside(matcher((*WHOLE, *bounds.whole)))
        self._cuts: set[str] = set()

    def _find_inside(self, is_whole: Callable[[str], bool]) -> set[str]:
        inside: set[str] = set()
        for path in self._order:
            if path:
                parent = path.rpartition("/")[0]
                self._children[parent].append(path)
                if parent in inside or (parent and is_whole(f"/{parent}")):
                    inside.add(path)
        return inside

    def run(self) -> frozenset[str]:
        """The cuts."""
        for path in reversed(self._order):
            children = self._children[path]
            self._rows[path] += sum(self._rows[child] for child in children if child not in self._cuts)
            self._seams[path] = [seam for child in children for seam in self._open_seams(child)]
            self._lighten(path)
            if path and self._begins(path):
                self._cuts.add(path)
        if "" in self._rows and (self._cuts or self._begins("")):
            self._cuts.add("")
        return frozenset(self._cuts)

    def _open_seams(self, child: str) -> list[str]:
        if child in self._cuts or child in self._inside:
            return []
        own = [child] if self._seam(f"/{child}") else []
        return [*own, *self._seams[child]]

    def _begins(self, path: str) -> bool:
        if path in self._marked:
            return True
        if path in self._inside:
            return False
        rows = self._rows[path] + 1
        if path in self._previous and rows * _BAND >= self._bounds.min_entries:
            return True
        if rows < self._bounds.min_entries:
            return False
        return not path or (self._natural(f"/{path}") and not self._together(f"/{path}"))

    def _lighten(self, path: str) -> None:
        """Cuts off what makes a catalog too large."""
        if self._rows[path] < self._bounds.max_entries:
            return
        for seam in sorted(self._seams[path], key=lambda name: (-self._rows[name], name)):
            if self._is_light(path, seam):
                break
            if self._rows[seam] + 1 >= self._bounds.min_entries:
                self._cut_seam(path, seam)
        for child in sorted(self._children[path], key=lambda name: (-self._rows[name], name)):
            if child in self._cuts or child in self._inside:
                continue
            if self._is_light(path, child) or not self._rows[child]:
                break
            self._cuts.add(child)
            self._rows[path] -= self._rows[child]

    def _is_light(self, path: str, candidate: str) -> bool:
        most = self._bounds.max_entries
        enough = most if self._rows[candidate] + 1 < self._bounds.min_entries else most // 2
        return self._rows[path] + 1 <= enough

    def _cut_seam(self, path: str, seam: str) -> None:
        self._cuts.add(seam)
        rows, above = self._rows[seam], seam
        while above != path:
            above = above.rpartition("/")[0]
            self._rows[above] -= rows
            if above in self._cuts:
                return


def parts(entries: Iterable[Entry], catalogs: frozenset[str]) -> tuple[CatalogPart, ...]:
    """What each catalog holds, in tree order; ``""`` also when that is the parent's."""
    owner: dict[str, str] = {"": ""}
    rows: dict[str, int] = {"": 0}
    sizes: dict[str, int] = defaultdict(int)
    digests = {"": hashlib.sha256()}
    for entry in entries:
        home = owner[entry.parent] if entry.path else ""
        homes = [home]
        if entry.kind is Kind.DIRECTORY:
            owner[entry.path] = home
            if entry.path in catalogs and entry.path:
                owner[entry.path] = entry.path
                rows[entry.path] = 0
                digests[entry.path] = hashlib.sha256()
                homes.append(entry.path)
        size = entry.size_bytes if entry.kind is Kind.FILE else 0
        sizes[home] += size
        line = b"\0".join(
            (os.fsencode(entry.path), entry.kind.encode(), b"%o %d" % (entry.mode, size), os.fsencode(entry.target))
        )
        for each in homes:
            rows[each] += 1
            digests[each].update(b"%d:" % len(line) + line)
    return tuple(
        CatalogPart(path=path, entries=count, size_bytes=sizes[path], digest=f"sha256:{digests[path].hexdigest()}")
        for path, count in rows.items()
    )


def states(found: Sequence[CatalogPart], before: Sequence[CatalogPart]) -> dict[str, State]:
    """What became of each catalog since the release before, by the directory that begins it."""
    digests = {part.path: part.digest for part in before}
    return {
        part.path: State.NEW
        if part.path not in digests
        else (State.UNCHANGED if digests[part.path] == part.digest else State.CHANGED)
        for part in found
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A tree with its nested catalogs."""

    catalogs: frozenset[str]
    """The directories that begin one."""
    sizes: Mapping[str, int]
    """How many entries each holds; ``""`` also when that is the parent's. See :func:`parts` for more."""
    remarkable: tuple[Entry, ...]


def split_tree(entries: Iterable[Entry], bounds: CatalogBounds, *, previous: Iterable[str] = ()) -> Split:
    """Where the nested catalogs of a tree begin; see :func:`split`.

    Args:
        entries: the tree; gone through once.
        bounds: least and most entries.
        previous: the boundaries of the tree that was published before.
    """
    measured = measure(entries)
    cuts = split(measured.counts, bounds, previous=frozenset(previous), marked=measured.marked)
    return Split(catalogs=cuts, sizes=_sizes(measured.counts, cuts), remarkable=measured.remarkable)


def _sizes(counts: Mapping[str, int], catalogs: frozenset[str]) -> dict[str, int]:
    """The entries of each catalog, its root, which the parent has too, among them."""
    owner: dict[str, str] = {}
    sizes = {"": 1}
    for path, count in counts.items():  # in tree order
        home = path if not path or path in catalogs else owner[path.rpartition("/")[0]]
        owner[path] = home
        sizes[home] = sizes.get(home, 1) + count
    return sizes


def check_split(found: Split, *, where: str, bounds: CatalogBounds) -> Report:
    """An error for each catalog that is larger than the bound; what markers and rules in the tree mean."""

    def findings() -> Iterable[Finding]:
        for path, size in found.sizes.items():
            if size > bounds.max_entries:
                yield error(
                    "large-catalog",
                    f"{where}:/{path}",
                    f"one catalog would hold {size:,} entries, more than {bounds.max_entries:,}",
                    hint="a single directory holds too many: spread its files over sub-directories",
                )
        for entry in found.remarkable:
            if entry.name == MARKER:
                yield _about_marker(entry, where, found.sizes, bounds)
            else:
                yield note(
                    "dirtab",
                    f"{where}:/{entry.path}",
                    "published as a file like any other: its rules count in the root of a repository only",
                )

    return collect(findings())


def _about_marker(entry: Entry, where: str, sizes: Mapping[str, int], bounds: CatalogBounds) -> Finding:
    place = f"{where}:/{entry.path}"
    if entry.kind is not Kind.FILE:
        return error(
            "catalog-marker",
            place,
            f"a {MARKER} must be a file, not a {entry.kind}",
            hint="it says that its directory begins a nested catalog: make it an empty file, or remove it",
        )
    size = sizes.get(entry.parent, 0)
    few = "" if size >= bounds.min_entries else f", fewer than {bounds.min_entries:,}: one more that clients fetch"
    return note("catalog-marker", place, f"begins a nested catalog of {size:,} entries, as it says{few}")
