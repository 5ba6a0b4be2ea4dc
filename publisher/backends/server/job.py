"""A publish that is ready to be carried out: everything is stored, or was seen to be readable."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from publisher.backends.base import Changeset
from publisher.backends.server.compare import Edits, Wanted, changed, opened
from publisher.backends.server.describe import content_of, store
from publisher.backends.server.site import Site, Way
from publisher.cvmfs.rows import Content
from publisher.errors import DiskError
from publisher.tree import Entry

_MOST_NAME = 240
"""Bytes of a name that leave room for what a description puts before it."""


class Tally:
    """Counts bytes for the progress display."""

    def __init__(self, total: int, tell: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._tell = tell
        self._done = 0

    def add(self, size_bytes: int) -> None:
        """So many bytes more are done."""
        self._done = min(self._total, self._done + size_bytes)
        if self._tell:
            self._tell(self._done, self._total)

    def finish(self) -> None:
        """All is done."""
        if self._tell:
            self._tell(self._total, self._total)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A publish that is ready to be carried out."""

    changeset: Changeset
    want: Wanted
    edits: Edits
    contents: Mapping[str, Content]
    """Files whose objects are in the repository."""
    fresh: Mapping[str, Content]
    """Of these, the ones that no revision refers to yet."""
    tally: Tally
    read_bytes: int
    stored_bytes: int
    objects: int
    notes: list[str] = field(default_factory=list)


def prepare(  # noqa: PLR0913 - what is published, and how
    site: Site, way: Way, changeset: Changeset, want: Wanted, edits: Edits, *, index: Path, tally: Tally
) -> Job:
    """Stores or reads everything that will be published.

    Raises:
        DiskError: a file cannot be read, or the disk is full.
    """
    contents = {path: content_of(stored) for path, stored in edits.known.items() if _can_describe(path)}
    new = [entry for entry in edits.files if entry.path not in edits.known]
    read_bytes = sum(entry.size_bytes for entry in new)
    fresh: dict[str, Content] = {}
    stored_bytes, objects = read_bytes, len(new)
    if way is Way.DESCRIBE:
        lasting = [entry for entry in new if _can_describe(entry.path) and not (site.xattrs and entry.xattrs)]
        fresh, totals = store(
            site,
            lasting,
            index=index,
            jobs=min(8, os.cpu_count() or 1),
            progress=lambda _, size: tally.add(size),
        )
        copied = [entry for entry in new if entry.path not in fresh]
        stored_bytes = totals.stored_bytes + sum(entry.size_bytes for entry in copied)
        objects = totals.objects + len(copied)
        new = copied
    for entry in new:
        _look_at(entry)
    return Job(
        changeset=changeset,
        want=want,
        edits=edits,
        contents=contents | fresh,
        fresh=fresh,
        tally=tally,
        read_bytes=read_bytes,
        stored_bytes=stored_bytes,
        objects=objects,
    )


def _can_describe(path: str) -> bool:
    return len(os.fsencode(path.rpartition("/")[2])) <= _MOST_NAME


def _look_at(entry: Entry) -> None:
    """Makes sure that a file can be read, and has the system read it."""
    if not isinstance(entry.content, str):
        return
    try:
        with opened(entry.content) as descriptor:
            size = os.fstat(descriptor).st_size
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    except OSError as exc:
        raise DiskError(f"cannot read {entry.content}: {exc.strerror}") from exc
    if size != entry.size_bytes:
        raise changed(entry)
