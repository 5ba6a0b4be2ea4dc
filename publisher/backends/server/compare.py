"""What a transaction must change, found out before it opens: by the bytes of files, never by their times."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from publisher.backends.base import Changeset
from publisher.backends.server.sums import Sums
from publisher.cvmfs.reader import Reader, Stored
from publisher.cvmfs.rows import MARKER, VIRTUAL, name_fault
from publisher.errors import DiskError, NotFoundError, RepositoryError
from publisher.names import RepoPath
from publisher.tree import Entry, Kind

GRAFT_PREFIX = ".cvmfsgraft-"
"""A file of this name describes its neighbor to the server (cvmfs/sync_item.cc, 2.12)."""
_BLOCK_BYTES = 1 << 20
_KINDS = frozenset({Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK})


@dataclass(frozen=True, kw_only=True, slots=True)
class Edits:
    """What a transaction does, by paths below the root of the repository without a leading slash."""

    removals: tuple[str, ...] = ()
    """Entries that go, with all below them; nothing in here is below another one."""
    folders: tuple[Entry, ...] = field(default=(), repr=False)
    """Directories to make, each before what it holds."""
    files: tuple[Entry, ...] = field(default=(), repr=False)
    """Files to write."""
    known: Mapping[str, Stored] = field(default_factory=dict, repr=False)
    """Of these files, those whose bytes are what is published there already: only mode or time changes."""
    links: tuple[Entry, ...] = field(default=(), repr=False)
    settle: tuple[Entry, ...] = field(default=(), repr=False)
    """Directories that get their mode and time when all is written."""

    @property
    def empty(self) -> bool:
        """True when the repository holds all of it already."""
        return not (self.removals or self.folders or self.files or self.links or self.settle)

    @property
    def new_bytes(self) -> int:
        """Bytes of the files that are not known."""
        return sum(entry.size_bytes for entry in self.files if entry.path not in self.known)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a changeset wants, as one tree."""

    tops: tuple[str, ...]
    """Paths below which everything is compared."""
    entries: Mapping[str, Entry] = field(repr=False)
    """By path, each directory before what it holds."""
    removals: tuple[str, ...]

    @property
    def files(self) -> Iterator[Entry]:
        """The files that came with the changeset."""
        return (entry for entry in self.entries.values() if entry.kind is Kind.FILE)


def wanted(changeset: Changeset) -> Wanted:
    """The changeset as one tree; later trees replace what earlier ones put there.

    Raises:
        RepositoryError: it cannot be held by a repository.
    """
    entries: dict[str, Entry] = {}
    removals = []
    for removal in changeset.removals:
        if not removal:
            raise RepositoryError("the root of a repository cannot be removed")
        _check_place(removal)
        removals.append(removal.strip("/"))
    for graft in changeset.grafts:
        _check_place(graft.at)
        at = f"{graft.at}".strip("/")
        for path in [each for each in entries if _is_below(each, at)]:
            del entries[path]
        tree = _with_markers(tuple(graft.tree), graft.catalogs, graft.at)
        for entry in tree:
            moved = entry._replace(path=_join(at, entry.path))
            _check_entry(moved)
            entries[moved.path] = moved
    tops = tuple(f"{graft.at}".strip("/") for graft in changeset.grafts)
    return Wanted(tops=tops, entries=entries, removals=tuple(removals))


def _with_markers(tree: tuple[Entry, ...], catalogs: frozenset[str], at: RepoPath) -> Iterator[Entry]:
    """The tree, with a marker in each directory that begins a nested catalog."""
    if not tree or tree[0].path:
        raise RepositoryError(f"the tree to publish at {at or '/'} does not begin with its root")
    marked = {entry.parent for entry in tree if entry.name == MARKER}
    folders = {entry.path: entry for entry in tree if entry.kind is Kind.DIRECTORY}
    for path in sorted(catalogs - folders.keys()):
        raise RepositoryError(f"{at}/{path} cannot begin a nested catalog: the tree has no such directory")
    if not at and MARKER in {entry.path for entry in tree}:
        raise RepositoryError(f"the root of a repository cannot hold {MARKER}")
    for entry in tree:
        yield entry
        if entry.kind is Kind.DIRECTORY and entry.path in catalogs - marked and _join(f"{at}", entry.path):
            yield Entry(path=_join(entry.path, MARKER), kind=Kind.FILE, mode=0o644, mtime_s=entry.mtime_s, content=b"")


def _check_place(path: RepoPath) -> None:
    if path == VIRTUAL or path.startswith(f"{VIRTUAL}/") or path.name == MARKER:
        raise RepositoryError(f"{path} is the repository's own; nothing can be published there or removed")


def _check_entry(entry: Entry) -> None:
    fault = name_fault(entry.name) if entry.path else ""
    if entry.name.startswith(GRAFT_PREFIX):
        fault = f"begins with {GRAFT_PREFIX}, which the server does not take for a name"
    if not fault and f"/{entry.path}" == VIRTUAL:
        fault = "is the repository's own"
    if fault:
        raise RepositoryError(f"cannot publish {'/' + entry.path!r}: the name {fault}")
    if entry.kind not in _KINDS:
        raise RepositoryError(
            f"cannot publish /{entry.path}: it is a {entry.kind}", hint="a release holds files, folders and links only"
        )
    if entry.kind is Kind.FILE and entry.content is None:
        raise RepositoryError(f"/{entry.path} is a file without content")


def _join(at: str, path: str) -> str:
    return f"{at}/{path}".strip("/")


def _is_below(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(f"{top}/")


def compare(  # noqa: PLR0913 - two sides, what is remembered, and how
    want: Wanted,
    reader: Reader,
    sums: Sums,
    *,
    now_s: int,
    progress: Callable[[int], None] | None = None,
    jobs: int = 2,
) -> Edits:
    """What must change for the repository to hold what is wanted.

    A file is left alone when its bytes, its mode and its time are those that are published. Where only mode or
    time differ, its bytes are known.

    Args:
        want: the changeset.
        reader: the newest revision.
        sums: digests of published files; new ones are put in.
        now_s: time of directories that are made because something goes below them.
        progress: called with the bytes of each file that was compared.
        jobs: threads that read.

    Raises:
        NotFoundError: a path to remove is not there.
        RepositoryError: a path leads through something that is no directory.
        DiskError: a source file cannot be read.
    """
    for path in want.removals:
        if reader.lookup(path) is None:
            raise NotFoundError(f"cannot remove /{path}: it is not in the repository")
    there = _published(want, reader)
    above = _missing_parents(want, reader, now_s)
    removals, gone = _removals(want, there)
    changed: list[Entry] = []
    doubtful: list[tuple[Entry, Stored]] = []
    touched: set[str] = {_parent(path) for path in removals}
    for path, entry in want.entries.items():
        stored = there.get(path) if path not in gone else None
        if stored is not None and _may_be_same(entry, stored):
            if entry.kind is Kind.FILE:
                doubtful.append((entry, stored))
            continue
        changed.append(entry)
    known: dict[str, Stored] = {}
    for (entry, stored), same in zip(doubtful, _same_bytes(doubtful, reader, sums, progress, jobs), strict=True):
        if same and _same_marks(entry, stored.entry):
            continue
        if same:
            known[entry.path] = stored
        changed.append(entry)
    touched |= {_parent(entry.path) for entry in changed}
    settle = _settle(want, there, gone, touched)
    return Edits(
        removals=removals,
        folders=(*above, *(each for each in changed if each.kind is Kind.DIRECTORY and _is_new(each, there, gone))),
        files=tuple(entry for entry in changed if entry.kind is Kind.FILE),
        known=known,
        links=tuple(entry for entry in changed if entry.kind is Kind.SYMLINK),
        settle=settle,
    )


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _is_new(entry: Entry, there: Mapping[str, Stored], gone: set[str]) -> bool:
    return entry.path not in there or entry.path in gone


def _published(want: Wanted, reader: Reader) -> dict[str, Stored]:
    """What is published at the places that are compared."""
    there: dict[str, Stored] = {}
    for top in (*want.tops, *want.removals):
        if top not in there and reader.lookup(top) is not None:
            there |= {stored.path: stored for stored in reader.walk(top) if not _is_virtual(stored.path)}
    return there


def _is_virtual(path: str) -> bool:
    return _is_below(f"/{path}", VIRTUAL)


def _missing_parents(want: Wanted, reader: Reader, now_s: int) -> tuple[Entry, ...]:
    """Directories above the trees that are not published yet."""
    made: dict[str, Entry] = {}
    for top in want.tops:
        above = _parent(top)
        while above and above not in made and above not in want.entries:
            stored = reader.lookup(above)
            if stored is not None and not _goes(above, want):
                if stored.entry.kind is not Kind.DIRECTORY:
                    raise RepositoryError(
                        f"cannot publish at /{top}: /{above} is a {stored.entry.kind}, not a directory"
                    )
                break
            made[above] = Entry(path=above, kind=Kind.DIRECTORY, mode=0o755, mtime_s=now_s)
            above = _parent(above)
    return tuple(made[path] for path in sorted(made))


def _goes(path: str, want: Wanted) -> bool:
    return any(_is_below(path, each) for each in want.removals)


def _removals(want: Wanted, there: Mapping[str, Stored]) -> tuple[tuple[str, ...], set[str]]:
    """The paths to remove, and all that goes with them."""
    tops: list[str] = []
    gone: set[str] = set()
    for path in sorted(there, key=lambda each: each.split("/")):
        entry = want.entries.get(path)
        if path and _parent(path) in gone:
            gone.add(path)
        elif path in want.removals or entry is None or entry.kind is not there[path].entry.kind:
            tops.append(path)
            gone.add(path)
    return tuple(tops), gone


def _may_be_same(entry: Entry, stored: Stored) -> bool:
    """False where no byte needs to be read to know that the entry must be written."""
    was = stored.entry
    if entry.kind is Kind.SYMLINK:
        return entry.target == was.target and entry.mtime_s == was.mtime_s
    if entry.kind is Kind.DIRECTORY:
        return True
    return entry.size_bytes == was.size_bytes and not stored.external


def _same_marks(entry: Entry, was: Entry) -> bool:
    return (entry.mode, entry.mtime_s) == (was.mode, was.mtime_s)


def _settle(want: Wanted, there: Mapping[str, Stored], gone: set[str], touched: set[str]) -> tuple[Entry, ...]:
    """Directories that are new, differ, or lose their time because something in them changes."""
    return tuple(
        entry
        for path, entry in want.entries.items()
        if entry.kind is Kind.DIRECTORY
        and (path in touched or _is_new(entry, there, gone) or not _same_marks(entry, there[path].entry))
    )


def _same_bytes(
    pairs: Iterable[tuple[Entry, Stored]],
    reader: Reader,
    sums: Sums,
    progress: Callable[[int], None] | None,
    jobs: int,
) -> Iterator[bool]:
    def same(pair: tuple[Entry, Stored]) -> bool:
        entry, stored = pair
        return sha256_of_entry(entry) == sums.of_published(reader, stored)

    with ThreadPoolExecutor(jobs, thread_name_prefix="compare") as pool:
        for (entry, _), answer in zip(pairs, pool.map(same, pairs), strict=True):
            if progress and answer:
                progress(entry.size_bytes)
            yield answer


def sha256_of_entry(entry: Entry) -> bytes:
    """The digest of a file's bytes.

    Raises:
        DiskError: the file cannot be read, or has another size than the tree says.
    """
    digest = hashlib.sha256()
    size = 0
    for block in entry_blocks(entry):
        digest.update(block)
        size += len(block)
    if size != entry.size_bytes:
        raise changed(entry)
    return digest.digest()


def entry_blocks(entry: Entry) -> Iterator[bytes]:
    """The bytes of a file of a tree, block by block.

    Raises:
        DiskError: it cannot be read.
    """
    if isinstance(entry.content, bytes):
        yield entry.content
        return
    assert isinstance(entry.content, str)
    try:
        with opened(entry.content) as descriptor, os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                yield block
    except OSError as exc:
        raise DiskError(f"cannot read {entry.content}: {exc.strerror}") from exc


class opened:  # noqa: N801 - used as a function
    """A regular file that is open for reading; its descriptor."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> int:
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise OSError(0, "it is no regular file")
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def changed(entry: Entry) -> DiskError:
    """A file is not what the tree says any more."""
    return DiskError(
        f"{entry.content if isinstance(entry.content, str) else '/' + entry.path} changed while it was published",
        hint="let nothing write to the folder meanwhile, and run it again",
    )
