"""Sizes that a repository should stay below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from publisher.errors import RepositoryError
from publisher.report import Finding, error, warning
from publisher.tree import Entry, Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of the CVMFS tools; 0 switches one off. Source: cvmfs/swissknife_sync.h (2.12)."""

    root_entries: int = 200_000
    nested_entries: int = 500_000
    file_bytes: int = 1024 << 20
    """Bigger files work, but clients fetch and cache whole chunks of them; they are reported only."""


def check_catalog_sizes(entries: Mapping[str, int], limits: Limits) -> Iterator[Finding]:
    """A finding for each catalog with too many entries.

    Args:
        entries: rows by mount path.
        limits: what is too many.
    """
    for mount, rows in sorted(entries.items()):
        limit = limits.nested_entries if mount else limits.root_entries
        if limit and rows > limit:
            yield error(
                "catalog-size",
                mount or "/",
                f"the catalog of {mount or '/'} would have {rows} entries, more than {limit}",
                hint="begin nested catalogs further down",
            )


def check_file_sizes(entries: Iterable[Entry], at: str, limits: Limits) -> Iterator[Finding]:
    """A warning for each file that is big."""
    for entry in entries:
        if limits.file_bytes and entry.kind is Kind.FILE and entry.size_bytes > limits.file_bytes:
            yield warning(
                "file-size",
                f"{at}/{entry.path}",
                f"the file has {entry.size_bytes >> 20} MiB, more than {limits.file_bytes >> 20} MiB",
                hint="split it if you can: clients cache it whole",
            )


def refuse(findings: Iterable[Finding]) -> None:
    """Raises RepositoryError for the first finding."""
    for finding in findings:
        raise RepositoryError(finding.message, hint=finding.hint)
