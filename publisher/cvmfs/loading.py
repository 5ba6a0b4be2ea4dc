"""Databases of a repository, fetched and verified."""

from __future__ import annotations

from publisher.cvmfs.catalog import Catalog, CatalogRef
from publisher.cvmfs.digest import ObjectKind
from publisher.cvmfs.history import History, parse_history
from publisher.cvmfs.manifest import Manifest
from publisher.cvmfs.source import Source, fetch
from publisher.errors import FormatError

CATALOG_LIMIT = 4 << 30
"""Most bytes of a catalog; those of 500,000 entries have about 150 MB."""
HISTORY_LIMIT = 256 << 20
"""Most bytes of a tag database."""


def load_history(source: Source, manifest: Manifest) -> History | None:
    """The tag database that a manifest names; None where it names none.

    Raises:
        TrustError: its bytes are not those that its name promises.
        FormatError: it is damaged.
        RepositoryError: it is missing.
    """
    if manifest.history is None:
        return None
    return parse_history(fetch(source, manifest.history, ObjectKind.HISTORY, limit=HISTORY_LIMIT))


def open_catalog(source: Source, ref: CatalogRef) -> Catalog:
    """A catalog, its digest, size and mount path checked.

    Raises:
        TrustError: its bytes are not those that its name promises.
        FormatError: it is damaged, or belongs elsewhere.
        RepositoryError: it is missing.
    """
    where = f"the catalog of {ref.path or '/'} ({ref.digest})"
    data = fetch(source, ref.digest, ObjectKind.CATALOG, limit=ref.size_bytes or CATALOG_LIMIT)
    if ref.size_bytes and len(data) != ref.size_bytes:
        raise FormatError(f"{where} has {len(data)} bytes, its parent says {ref.size_bytes}")
    catalog = Catalog(data, where=where)
    if catalog.root_prefix != ref.path:
        prefix = catalog.root_prefix or "/"
        catalog.close()
        raise FormatError(f"{where} belongs to {prefix}")
    try:
        catalog.statistics()  # clients refuse a catalog that lacks one
    except FormatError:
        catalog.close()
        raise
    return catalog
