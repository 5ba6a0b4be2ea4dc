"""Sizes that a repository should stay below, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from publisher.errors import RepositoryError
from publisher.report import Finding, Severity, error, warning
from publisher.tree import Entry, Kind

_NAME_BYTES = 255
"""NAME_MAX of Linux: no program can ask for a longer name."""
_PATH_BYTES = 4095
"""PATH_MAX of Linux without the final zero: a longer path can be reached only step by step."""
_TARGET_BYTES = 4095
"""A link's target goes through one page of the kernel (fs/fuse/dir.c), and a longer path is refused."""
_LEVELS = 8
"""Catalogs on the way to a file are fetched one after the other, so that each level is a round trip more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of the CVMFS tools; 0 switches one off. Source: cvmfs/swissknife_sync.h (2.12)."""

    root_entries: int = 200_000
    """CVMFS_ROOT_KCATALOG_LIMIT."""
    nested_entries: int = 500_000
    """CVMFS_NESTED_KCATALOG_LIMIT."""
    file_bytes: int = 1024 << 20
    """CVMFS_FILE_MBYTE_LIMIT. Bigger files work, but clients fetch and cache whole chunks of them."""
    enforce: bool = False
    """CVMFS_ENFORCE_LIMITS: too big files are errors. Too big catalogs always are: every client would suffer."""

    def __post_init__(self) -> None:
        for name in ("root_entries", "nested_entries", "file_bytes"):
            if getattr(self, name) < 0:
                raise RepositoryError(f"the limit {name} must not be negative", hint="0 switches it off")


def check_catalog_sizes(entries: Mapping[str, int], limits: Limits) -> Iterator[Finding]:
    """An error for each catalog with too many entries, a warning for each that is nested too deep.

    Args:
        entries: rows by mount path.
        limits: what is too many.
    """
    for mount, rows in sorted(entries.items()):
        limit = limits.nested_entries if mount else limits.root_entries
        if limit and rows > limit:
            name = "limit_nested_entries" if mount else "limit_root_entries"
            yield error(
                "catalog-size",
                mount or "/",
                f"the catalog of {mount or '/'} would have {rows} entries, more than {limit}",
                hint=f"begin nested catalogs further down, or raise it: afpub repo settings {name}=NUMBER",
            )
        levels = sum(mount.startswith(f"{above}/") for above in entries if above)
        if levels == _LEVELS:
            yield warning(
                "catalog-levels",
                mount,
                f"the catalog lies in {levels} others, one in the other; clients fetch them one after the other",
                hint="let catalogs begin beside each other",
            )


def is_suspicious(entry: Entry, limits: Limits) -> bool:
    """True for the few entries that :func:`check_tree` has to look at: it is quick, and trees are large."""
    if len(entry.path) > _NAME_BYTES // 4:
        return True
    most = limits.file_bytes if entry.kind is Kind.FILE else _TARGET_BYTES
    return entry.size_bytes > most > 0


def check_tree(entries: Iterable[Entry], at: str, limits: Limits, *, mount_bytes: int = 0) -> Iterator[Finding]:
    """A finding for each entry that clients, or servers in their usual settings, would not take.

    Args:
        entries: the tree.
        at: where it goes.
        limits: what is too big.
        mount_bytes: length of the path at which clients mount the repository.
    """
    room = _PATH_BYTES - mount_bytes - len(os.fsencode(at)) - 1
    for entry in entries:
        if len(entry.path) > _NAME_BYTES // 4:
            yield from _lengths(entry, at, room)
        if entry.kind is Kind.SYMLINK and entry.size_bytes > _TARGET_BYTES:
            yield error(
                "link-target",
                f"{at}/{entry.path}",
                f"the target of the link has {entry.size_bytes} bytes, more than {_TARGET_BYTES}: nobody can follow it",
                hint="make a shorter link, for example a relative one",
            )
        elif entry.kind is Kind.FILE and limits.file_bytes and entry.size_bytes > limits.file_bytes:
            yield (error if limits.enforce else warning)(
                "file-size",
                f"{at}/{entry.path}",
                f"the file has {entry.size_bytes >> 20} MiB, more than {limits.file_bytes >> 20} MiB",
                hint="split it if you can: clients cache it whole (limit_file_bytes of the repository's settings)",
            )


def _lengths(entry: Entry, at: str, room: int) -> Iterator[Finding]:
    path = os.fsencode(entry.path)
    name_bytes = len(path) - path.rfind(b"/") - 1
    if name_bytes > _NAME_BYTES:
        yield error(
            "name-length",
            f"{at}/{entry.path}",
            f"the name has {name_bytes} bytes, more than {_NAME_BYTES}: no program can ask for it",
            hint="shorten the name",
        )
    if len(path) > room:
        yield warning(
            "path-length",
            f"{at}/{entry.path}",
            f"the path is {len(path) - room} bytes too long to be opened as a whole (Linux takes {_PATH_BYTES})",
            hint="publish it closer to the root, or shorten the names above it",
        )


def refuse(findings: Iterable[Finding]) -> None:
    """Raises RepositoryError for the first error."""
    for finding in findings:
        if finding.severity is Severity.ERROR:
            raise RepositoryError(finding.message, hint=finding.hint)
