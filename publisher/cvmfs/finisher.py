"""From drafts to catalogs: each is written when all those in it are, since it refers to them."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.catalog_writer import CatalogContents
from publisher.cvmfs.counters import Counters
from publisher.cvmfs.digest import Digest
from publisher.cvmfs.draft import Draft
from publisher.cvmfs.reader import Reader
from publisher.cvmfs.rows import Row


class CatalogStore(Protocol):
    """Where catalogs go."""

    def write(self, contents: CatalogContents, done: Callable[[Written], None]) -> None:
        """Stores a catalog; tells how it is referred to, at once or while somebody waits or stores something."""

    def wait(self) -> None:
        """Waits until something is done."""


class Written(NamedTuple):
    """The object that a catalog became."""

    digest: Digest
    size_bytes: int
    """Of the database."""


_Done = Callable[[Row, CatalogRef], None]
"""Hears what a draft became: the row of its mount point in the catalog around it, and how that refers to it."""


class Finisher:
    """Has drafts written that will not change any more."""

    def __init__(self, reader: Reader, store: CatalogStore, *, now_s: int) -> None:
        """Gets ready.

        Args:
            reader: of the newest revision.
            store: where catalogs go; it may take its time.
            now_s: the time of the change.
        """
        self._reader = reader
        self._store = store
        self._now_s = now_s
        self._totals: dict[Digest, Counters] = {}
        self._incomplete: dict[str, tuple[Draft, Draft]] = {}
        """Nested catalogs that wait for others in them, and the drafts around them."""
        self._complete: deque[tuple[Draft, Draft]] = deque()
        """Those that can be written."""
        self.sizes: dict[str, int] = {}
        """Rows of the nested catalogs that it got, by mount path."""
        self.written = 0
        """How many catalogs were not as they had been."""

    def seal(self, draft: Draft, parent: Draft) -> None:
        """Takes a nested catalog and the draft around it, which refers to it when it is written."""
        self.sizes[draft.mount] = len(draft.rows)
        parent.unfinished += 1
        if draft.unfinished:
            self._incomplete[draft.mount] = (draft, parent)
        else:
            self._complete.append((draft, parent))
        self._settle_complete()

    def finish(self, root: Draft, ttl_s: int) -> CatalogRef:
        """What the root catalog became, when all nested ones are written.

        Raises:
            FormatError: an existing catalog is damaged.
            DiskError: one cannot be written.
        """
        self._settle_complete()
        while root.unfinished:
            self._store.wait()
            self._settle_complete()
        refs: list[CatalogRef] = []
        self._settle(root, ttl_s, lambda _, ref: refs.append(ref))
        while not refs:
            self._store.wait()
        return refs[0]

    def _settle_complete(self) -> None:
        while self._complete:
            draft, parent = self._complete.popleft()
            self._settle(draft, None, functools.partial(self._enter, parent))

    def _enter(self, parent: Draft, row: Row, ref: CatalogRef) -> None:
        """Puts a nested catalog into the one around it; that one is not written here, as somebody may be storing."""
        parent.nested[ref.path] = ref
        if parent.rows[ref.path] != row:
            parent.put(row)
        parent.unfinished -= 1
        if not parent.unfinished and parent.mount in self._incomplete:
            self._complete.append(self._incomplete.pop(parent.mount))

    def _settle(self, draft: Draft, ttl_s: int | None, done: _Done) -> None:
        """Tells what a draft became: the former catalog where that says the same."""
        if draft.dirty:
            draft.settle_links()
        if draft.former is not None and draft.unchanged(ttl_s):
            done(draft.mount_row, draft.former.ref)
        else:
            self.written += 1
            self._write(draft, ttl_s, done)

    def _write(self, draft: Draft, ttl_s: int | None, done: _Done) -> None:
        former = draft.former
        revision = former.revision + 1 if former else 1
        if not draft.mount:
            revision = self._reader.manifest.revision + 1
        went, came = draft.mounted_changes()
        subtree = former.subtree if former else Counters()
        for ref in went:
            subtree -= self._total(ref)
        for ref in came:
            subtree += self._total(ref)
        contents = draft.contents(revision=revision, now_s=self._now_s, ttl_s=ttl_s, subtree=subtree)
        mount, row, total = draft.mount, draft.mount_row, contents.statistics.total

        def written(what: Written) -> None:
            self._totals[what.digest] = total
            done(row, CatalogRef(path=mount, digest=what.digest, size_bytes=what.size_bytes))

        self._store.write(contents, written)

    def _total(self, ref: CatalogRef) -> Counters:
        if ref.digest not in self._totals:
            self._totals[ref.digest] = self._reader.catalog(ref).statistics().total
        return self._totals[ref.digest]
