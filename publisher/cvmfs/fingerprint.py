"""Whether two catalogs say the same, without decoding either: a digest over their columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from publisher.cvmfs.catalog import Catalog, RawRow, columns_of
from publisher.cvmfs.pathhash import path_hash
from publisher.cvmfs.rows import Row


def fingerprint(catalog: Catalog) -> bytes:
    """The digest of a catalog's rows and chunks.

    Raises:
        FormatError: it cannot be read.
    """
    return _digest(catalog.columns())


def fingerprint_of(rows: Sequence[Row]) -> bytes:
    """The digest that a catalog with these rows has."""
    return _digest(columns_of(sorted(rows, key=lambda row: path_hash(row.path))))


def _digest(columns: Iterable[RawRow]) -> bytes:
    hasher = hashlib.sha256()
    for raw in columns:
        hasher.update(repr(raw).encode())
    return hasher.digest()
