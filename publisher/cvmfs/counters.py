"""The statistics that every catalog carries."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from publisher.cvmfs.rows import Row
from publisher.errors import FormatError


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """Twelve counts, of one catalog or of all below it. Source: cvmfs/catalog_counters.h (2.12)."""

    regular: int = 0
    symlink: int = 0
    special: int = 0
    dir: int = 0
    nested: int = 0
    chunked: int = 0
    chunks: int = 0
    file_size: int = 0
    chunked_size: int = 0
    xattr: int = 0
    external: int = 0
    external_file_size: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(**{name: getattr(self, name) + getattr(other, name) for name in COUNTERS})

    def __sub__(self, other: Counters) -> Counters:
        return Counters(**{name: getattr(self, name) - getattr(other, name) for name in COUNTERS})

    @property
    def entries(self) -> int:
        """Rows that these counts are of."""
        return self.regular + self.symlink + self.special + self.dir


COUNTERS = tuple(field.name for field in fields(Counters))
"""The names of the counts, in the order in which the CVMFS tools write them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """The 24 counters of a catalog."""

    own: Counters
    subtree: Counters
    """Sum of the totals of the catalogs mounted in this one."""

    @property
    def total(self) -> Counters:
        """What a parent catalog adds to its ``subtree``."""
        return self.own + self.subtree

    def rows(self) -> list[tuple[str, int]]:
        """The rows of table ``statistics``."""
        return [
            (f"{prefix}_{name}", getattr(counters, name))
            for prefix, counters in (("self", self.own), ("subtree", self.subtree))
            for name in COUNTERS
        ]


def parse_statistics(values: Mapping[str, int], *, where: str) -> Statistics:
    """The statistics in table ``statistics``.

    Raises:
        FormatError: a counter is missing.
    """
    groups = []
    for prefix in ("self", "subtree"):
        missing = [name for name in COUNTERS if f"{prefix}_{name}" not in values]
        if missing:
            raise FormatError(f"{where} has no counter {prefix}_{missing[0]}")
        groups.append(Counters(**{name: values[f"{prefix}_{name}"] for name in COUNTERS}))
    return Statistics(own=groups[0], subtree=groups[1])


def count(rows: Iterable[Row], *, nested: int) -> Counters:
    """The ``self`` counters of a catalog with these rows and that many nested catalogs."""
    kinds: Counter[int] = Counter()
    attributes = file_size = chunked = chunks = chunked_size = external = external_size = 0
    for row in rows:
        kind = stat.S_IFMT(row.mode)
        kinds[kind] += 1
        attributes += row.xattr is not None
        if kind != stat.S_IFREG:
            continue
        file_size += row.size
        if row.chunked:
            chunked += 1
            chunks += len(row.chunks)
            chunked_size += row.size
        if row.external:
            external += 1
            external_size += row.size
    known = kinds[stat.S_IFREG] + kinds[stat.S_IFLNK] + kinds[stat.S_IFDIR]
    return Counters(
        regular=kinds[stat.S_IFREG],
        symlink=kinds[stat.S_IFLNK],
        special=kinds.total() - known,
        dir=kinds[stat.S_IFDIR],
        nested=nested,
        chunked=chunked,
        chunks=chunks,
        file_size=file_size,
        chunked_size=chunked_size,
        xattr=attributes,
        external=external,
        external_file_size=external_size,
    )
