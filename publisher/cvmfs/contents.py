"""Bringing the contents of files into the store: small ones many at a time, big ones in pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from publisher.cvmfs.chunker import ChunkRule
from publisher.cvmfs.compression import Compression, Compressor
from publisher.cvmfs.content_index import StoredIndex
from publisher.cvmfs.crew import Crew, Job
from publisher.cvmfs.packer import Packed, Packer, Part, Parts, kind_of
from publisher.cvmfs.rows import Chunk, Content
from publisher.cvmfs.store import ObjectStore
from publisher.errors import RepositoryError
from publisher.tree import Entry, Kind

_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
_CUT_BYTES = 64 << 20
"""Bigger files are cut here, so that several workers have them at the same time."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Parts that are packed together."""

    parts: tuple[Part, ...]
    packed: list[Packed] | None = None
    """None until it is done."""


@dataclass(slots=True, eq=False)
class _Run:
    """Entries that follow each other, and the batches that they wait for."""

    entries: list[Entry] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    """Of the small files."""
    bytes: int = 0
    batches: list[_Batch] = field(default_factory=list)
    big: bool = False
    """One file; its batches, one or more, give its pieces."""

    @property
    def full(self) -> bool:
        return len(self.entries) >= _BATCH_FILES or self.bytes >= _BATCH_BYTES

    @property
    def done(self) -> bool:
        return all(batch.packed is not None for batch in self.batches)


class ContentWriter:
    """Stores the contents of entries, several at a time."""

    def __init__(  # noqa: PLR0913 - how contents are stored, and who hears of it
        self,
        store: ObjectStore,
        compressor: Compressor,
        rule: ChunkRule,
        *,
        crew: Crew,
        plain: Callable[[str], bool] = lambda _: False,
        progress: Callable[[int, int], None],
    ) -> None:
        """Gets ready.

        Args:
            store: where objects go.
            compressor: how they are stored.
            rule: where big files are cut.
            crew: packs.
            plain: says by its path in the tree whether a file is stored as it is.
            progress: gets the number of files and bytes that were just packed.
        """
        self._store = store
        self._compressor = compressor
        self._rule = rule
        self._plain = plain
        self._crew = crew
        self._progress = progress

    def stored(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Content | None]]:
        """The entries in their order, files with their contents, as the contents get stored.

        Args:
            entries: the tree; read once, a little ahead of what is given.

        Raises:
            DiskError: a file cannot be read, or is not what the tree says any more.
        """
        waiting: deque[_Run] = deque()
        for run in self._runs(entries):
            waiting.append(run)
            for batch in self._begin(run):
                self._crew.hand_out(Job(Parts(batch.parts), partial(self._settle, batch)))
            while waiting and waiting[0].done:
                yield from self._finish(waiting.popleft())
        while waiting:
            while not waiting[0].done:
                self._crew.wait()
            yield from self._finish(waiting.popleft())

    def _runs(self, entries: Iterable[Entry]) -> Iterator[_Run]:
        run = _Run()
        for entry in entries:
            big = entry.kind is Kind.FILE and entry.size_bytes > self._rule.least
            if run.entries and (big or run.full):
                yield run
                run = _Run()
            run.entries.append(entry)
            if big:
                run.big = True
            elif entry.kind is Kind.FILE:
                run.parts.append(self._part(entry))
                run.bytes += entry.size_bytes
            if big:
                yield run
                run = _Run()
        if run.entries:
            yield run

    def _begin(self, run: _Run) -> Iterator[_Batch]:
        """What is to be packed of a run; of a very big file one piece after the other, while it is cut."""
        if run.big:
            whole = self._part(run.entries[0])
            if whole.size > _CUT_BYTES:
                yield from self._cut_here(run, whole)
            else:
                run.batches.append(_Batch((whole._replace(cut=True),)))
                yield run.batches[-1]
        elif run.parts:
            run.batches.append(_Batch(tuple(run.parts)))
            yield run.batches[-1]

    def _cut_here(self, run: _Run, whole: Part) -> Iterator[_Batch]:
        for part, known in self._crew.packer.pieces(whole):
            batch = _Batch((part,))
            run.batches.append(batch)
            if known:
                self._settle(batch, [known])
            else:
                yield batch

    def _part(self, entry: Entry) -> Part:
        if entry.content is None:
            raise RepositoryError(f"/{entry.path} is a file without content")
        size = entry.size_bytes
        return Part(entry.content, entry.path, size, 0, size, -1, self._plain(entry.path))

    def _settle(self, batch: _Batch, packed: list[Packed]) -> None:
        """Takes what was packed into the store."""
        if batch.parts[0].cut:
            batch.parts = tuple(_cut(batch.parts[0], packed))
        if batch.parts:
            self._store.look(packed, kind_of(batch.parts[0]))
        for number, (part, each) in enumerate(zip(batch.parts, packed, strict=True)):
            if not self._store.adopt(each, kind_of(part)):
                packed[number] = self._pack_again(part)
        batch.packed = packed
        files = sum(part.start == 0 for part in batch.parts)
        self._progress(files, sum(part.length for part in batch.parts))

    def _pack_again(self, part: Part) -> Packed:
        """Packs what the index knows and the store has lost."""
        (packed,) = Packer(self._store.plan(self._compressor, self._rule), StoredIndex("")).pack((part,))
        self._store.adopt(packed, kind_of(part))
        return packed

    def _finish(self, run: _Run) -> Iterator[tuple[Entry, Content | None]]:
        if run.big:
            yield run.entries[0], self._content(run)
            return
        packed = iter(zip(run.parts, run.batches[0].packed or () if run.batches else (), strict=True))
        for entry in run.entries:
            if entry.kind is Kind.FILE:
                yield entry, self._whole(entry, *next(packed))
            else:
                yield entry, None

    def _compression(self, part: Part) -> Compression:
        return Compression.NONE if part.plain else self._compressor.compression

    def _whole(self, entry: Entry, part: Part, packed: Packed) -> Content:
        return Content(
            size_bytes=entry.size_bytes,
            algorithm=self._store.algorithm,
            compression=self._compression(part),
            digest=packed.digest,
        )

    def _content(self, run: _Run) -> Content:
        (entry,) = run.entries
        found = [both for batch in run.batches for both in zip(batch.parts, batch.packed or (), strict=True)]
        if len(found) == 1:
            return self._whole(entry, *found[0])
        return Content(
            size_bytes=entry.size_bytes,
            algorithm=self._store.algorithm,
            compression=self._compression(found[0][0]),
            chunks=tuple(
                Chunk(offset=part.start, size_bytes=part.length, digest=packed.digest) for part, packed in found
            ),
        )


def _cut(whole: Part, packed: Iterable[Packed]) -> Iterator[Part]:
    """The pieces of a file that a packer has cut."""
    start = 0
    for each in packed:
        yield whole._replace(start=start, length=each.length, cut=False)
        start += each.length
