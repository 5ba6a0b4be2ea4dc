"""Where nested catalogs begin, computed from the real number of entries.

A client fetches a whole catalog to look at one name in it, so catalogs must not be huge; each costs a
request, so they must not be many. The guide of CVMFS is 1,000 to 200,000 entries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from publisher.report import Finding, Report, collect, error
from publisher.tree import Entry, Kind


def split(entries: Sequence[Entry], *, min_entries: int, max_entries: int) -> frozenset[str]:
    """The directories of a tree that begin a nested catalog; ``""`` is its root.

    The root begins one when the tree has at least ``min_entries``. Where more than ``max_entries`` would fall
    into one catalog, its heaviest sub-directories of at least ``min_entries`` are cut off, the deepest first,
    until it holds no more than half the bound: a tree that grows a little keeps its catalogs. Smaller ones are
    cut off only where the bound would not hold without.

    Args:
        entries: the tree.
        min_entries: no catalog is cut off below this.
        max_entries: no catalog is left above this where the tree allows it (see :func:`check_split`).
    """
    children: dict[str, list[str]] = defaultdict(list)
    weight: dict[str, int] = {}
    for entry in entries:
        if entry.kind is Kind.DIRECTORY:
            weight[entry.path] = 1
            if entry.path:
                children[entry.parent].append(entry.path)
        else:
            weight[entry.parent] += 1
    cuts: set[str] = set()
    for path in reversed(weight):
        weight[path] += sum(weight[child] for child in children[path])
        if weight[path] > max_entries:
            for child in sorted(children[path], key=lambda name: (-weight[name], name)):
                enough = max_entries if weight[child] < min_entries else max_entries // 2
                if weight[path] <= enough or weight[child] == 1:
                    break
                cuts.add(child)
                weight[path] -= weight[child] - 1
                weight[child] = 1
    if weight.get("", 0) >= min_entries or cuts:
        cuts.add("")
    return frozenset(cuts)


def catalog_sizes(entries: Sequence[Entry], catalogs: frozenset[str]) -> dict[str, int]:
    """Entries in each catalog, by the directory that begins it; ``""`` also when that is the parent's."""
    owner: dict[str, str] = {"": ""}
    sizes: dict[str, int] = defaultdict(int)
    sizes[""] = 0
    for entry in entries:
        home = owner[entry.parent] if entry.path else ""
        sizes[home] += 1
        if entry.kind is Kind.DIRECTORY:
            begins = entry.path in catalogs and entry.path != ""
            owner[entry.path] = entry.path if begins else home
            if begins:
                sizes[entry.path] += 1
    return dict(sizes)


def check_split(entries: Sequence[Entry], catalogs: frozenset[str], *, where: str, max_entries: int) -> Report:
    """An error for each catalog that is larger than the bound."""

    def findings() -> list[Finding]:
        return [
            error(
                "large-catalog",
                f"{where}:/{path}",
                f"one catalog would hold {size:,} entries, more than {max_entries:,}",
                hint="a single directory holds too many: spread its files over sub-directories",
            )
            for path, size in catalog_sizes(entries, catalogs).items()
            if size > max_entries
        ]

    return collect(findings())
