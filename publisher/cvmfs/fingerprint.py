"""Whether two catalogs say the same, without decoding either: a digest over their columns."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterable, Sequence

from publisher.cvmfs.catalog import Catalog, RawRow
from publisher.cvmfs.catalog_writer import columns_of
from publisher.cvmfs.pathhash import path_hash
from publisher.cvmfs.rows import Row

_PLAIN = 2
"""The version of marshal's format in which equal values are equal bytes: later ones refer back to earlier values."""


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
        hasher.update(marshal.dumps(raw, _PLAIN))  # type: ignore[arg-type]  # whatever SQLite holds can be dumped
    return hasher.digest()
