"""The catalogs of a repository being changed: only those on the way to a change are loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.draft import Draft, draft_of, former_of, nested_root, plain_directory
from publisher.cvmfs.finisher import CatalogStore, Finisher
from publisher.cvmfs.reader import Reader
from publisher.cvmfs.rows import MARKER, VIRTUAL, Content, Flag, Row, name_fault, row_of_entry
from publisher.errors import NotFoundError, RepositoryError
from publisher.names import RepoPath
from publisher.tree import Entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What writing the drafts came to."""

    root: CatalogRef
    revision: int
    changed: bool
    """False when the root catalog is the one that was there."""
    catalogs_written: int


class Drafts:
    """The catalogs of the newest revision, changed in memory."""

    def __init__(self, reader: Reader, store: CatalogStore, *, now_s: int, nanoseconds: bool) -> None:
        self._reader = reader
        self._now_s = now_s
        self._nanoseconds = nanoseconds
        root_ref = CatalogRef(path="", digest=reader.root_hash, size_bytes=reader.manifest.root_size_bytes)
        self._loaded: dict[str, Draft] = {"": draft_of(reader.catalog, root_ref)}
        self._former: dict[str, CatalogRef] = {}
        """Catalogs that were mounted below something that was replaced or removed."""
        self._finisher = Finisher(reader, store, now_s=now_s)

    def lookup(self, path: str) -> Row | None:
        """The row of a path, as the catalog has it that holds the entry."""
        draft = self._holder(path)
        return None if draft is None else draft.rows.get(path)

    def _holder(self, path: str) -> Draft | None:
        """The catalog that has, or would have, the row of a path; None when a directory above is missing."""
        draft = self._loaded[""]
        at = ""
        for name in path.split("/")[1:-1]:
            at = f"{at}/{name}"
            row = draft.rows.get(at)
            if row is None or not row.is_directory:
                return None
            if row.mount_point:
                draft = self._load(draft, at)
        return draft

    def home(self, path: str) -> Draft:
        """The catalog that has, or would have, the row of a path whose parent is there."""
        draft = self._holder(path)
        assert draft is not None
        return draft

    def _load(self, parent: Draft, mount: str) -> Draft:
        if mount not in self._loaded:
            self._loaded[mount] = self._read(parent.nested[mount])
        return self._loaded[mount]

    def _read(self, ref: CatalogRef) -> Draft:
        return draft_of(self._reader.catalog, ref)

    def remove(self, path: RepoPath) -> None:
        """Removes what is at a path, and all below it.

        Raises:
            NotFoundError: nothing is there.
            RepositoryError: the path is the root, or the repository's own.
        """
        _check_place(path)
        if not path:
            raise RepositoryError("the root of a repository cannot be removed")
        if self.lookup(path) is None:
            raise NotFoundError(f"cannot remove {path}: it is not in the repository")
        self._clear(path)
        self._touch(path.parent)

    def _clear(self, path: str) -> None:
        draft = self.home(path)
        for mount in draft.drop(path):
            ref = draft.nested.pop(mount, None)
            below = f"{mount}/"
            for loaded in [each for each in self._loaded if each == mount or each.startswith(below)]:
                del self._loaded[loaded]
            if ref is not None:
                self._remember(ref)

    def _remember(self, ref: CatalogRef) -> None:
        """Keeps a nested catalog, and all in it, to be compared with what comes in its place."""
        waiting = [ref]
        while waiting:
            at = waiting.pop()
            self._former.setdefault(at.path, at)
            waiting.extend(self._reader.catalog(at).nested())

    def _touch(self, path: str) -> None:
        """A directory whose listing changed gets the time of the change, as on any file system."""
        draft = self.home(path)
        row = draft.rows[path]
        if row.mount_point:
            draft = self._load(draft, path)
            row = draft.rows[path]
        draft.put(row._replace(mtime=self._now_s, mtimens=0 if self._nanoseconds else None))

    def graft(
        self,
        at: RepoPath,
        entries: Iterable[tuple[Entry, Content | None]],
        catalogs: frozenset[str],
        marker: Content,
        *,
        last: bool = False,
    ) -> None:
        """Puts a tree in the place of what is at a path.

        Args:
            at: where; missing directories above it are made.
            entries: the tree, in tree order, files with their contents.
            catalogs: paths in the tree that begin a nested catalog.
            marker: the content of a marker, for nested catalogs that have none.
            last: nothing below or above the place changes afterwards, so that its catalogs are written, and their
                memory is freed, as soon as they are complete.

        Raises:
            RepositoryError: the tree cannot be held by a repository, or the place is not free for it.
        """
        _check_place(at)
        self._make_parents(at)
        existed = self.lookup(at) is not None
        if at and existed:
            self._clear(at)
        elif not at:
            self._empty_root()
        builder = _Builder(self, at, catalogs, marker, seal=last)
        for entry, content in entries:
            builder.add(entry, content, nanoseconds=self._nanoseconds)
        builder.finish()
        if at and not existed:
            self._touch(at.parent)

    def _empty_root(self) -> None:
        root = self._loaded[""]
        for path in sorted(path for path in root.rows if path.count("/") == 1):
            if path != VIRTUAL:
                self._clear(path)

    def _make_parents(self, at: RepoPath) -> None:
        missing = []
        above = at.parent
        while above and self.lookup(above) is None:
            missing.append(above)
            above = above.parent
        row = self.lookup(above)
        if row is not None and not row.is_directory:
            raise RepositoryError(f"cannot publish at {at}: {above} is a {row.kind}, not a directory")
        for path in reversed(missing):
            self.home(path).put(plain_directory(path, now_s=self._now_s))
            self._touch(path.parent)

    def begin(self, parent: Draft, row: Row) -> Draft:
        """A new nested catalog at a directory; compared with the one that was there when it is written."""
        ref = self._former.get(row.path)
        former = former_of(self._reader.catalog, ref) if ref else None
        draft = Draft(mount=row.path, former=former)
        draft.put(nested_root(row))
        parent.put(row._replace(flags=row.flags | Flag.MOUNT_POINT))
        self._loaded[row.path] = draft
        return draft

    def room(self, at: str) -> tuple[str, int, int]:
        """The catalog that would hold the row of a path, its rows, and how many of them would be replaced."""
        draft = self._loaded[""]
        path = ""
        for name in at.split("/")[1:-1]:
            path = f"{path}/{name}"
            row = draft.rows.get(path)
            if row is None or not row.is_directory:
                break
            if row.mount_point:
                draft = self._load(draft, path)
        below = f"{at}/"
        return draft.mount, len(draft.rows), sum(path == at or path.startswith(below) for path in draft.rows)

    def entries(self) -> dict[str, int]:
        """The number of rows of each catalog that was touched, by mount path."""
        changed = {mount: len(draft.rows) for mount, draft in self._loaded.items() if draft.dirty}
        return changed | self._finisher.sizes

    def seal(self, draft: Draft) -> None:
        """Lets a nested catalog that will not change any more be written, and forgets it."""
        del self._loaded[draft.mount]
        self._finisher.seal(draft, self.home(draft.mount))

    def write(self, *, ttl_s: int) -> Outcome:
        """Writes the catalogs that changed, from the innermost outwards.

        Raises:
            FormatError: an existing catalog is damaged.
            DiskError: one cannot be written.
        """
        for mount in sorted(filter(None, self._loaded), key=lambda path: path.count("/"), reverse=True):
            self.seal(self._loaded[mount])
        ref = self._finisher.finish(self._loaded[""], ttl_s)
        changed = ref.digest != self._reader.root_hash
        revision = self._reader.manifest.revision + changed
        return Outcome(root=ref, revision=revision, changed=changed, catalogs_written=self._finisher.written)


def _check_place(path: RepoPath) -> None:
    if path == VIRTUAL or path.startswith(f"{VIRTUAL}/") or path.name == MARKER:
        raise RepositoryError(f"{path} is the repository's own; nothing can be published there or removed")


class _Builder:
    """Turns a tree into rows, catalog by catalog."""

    def __init__(
        self,
        drafts: Drafts,
        at: RepoPath,
        catalogs: frozenset[str],
        marker: Content,
        *,
        seal: bool,
    ) -> None:
        self._drafts = drafts
        self._at = at
        self._catalogs = catalogs - ({""} if not at else set())
        self._marker = marker
        self._stack: list[tuple[str, Draft]] = []
        """Directories that are being filled, with the catalog that their entries go to."""
        self._seal = seal
        self._mounts: set[str] = set()
        """Catalogs that begin in the tree."""

    def add(self, entry: Entry, content: Content | None, *, nanoseconds: bool) -> None:
        path = f"{self._at}/{entry.path}" if entry.path else str(self._at)
        fault = name_fault(entry.name) if entry.path else ""
        if path == VIRTUAL:
            fault = "is the repository's own"
        if fault:
            raise RepositoryError(f"cannot publish {path!r}: the name {fault}")
        row = row_of_entry(entry, path, content, nanoseconds=nanoseconds)
        if not entry.path:
            self._start(row._replace(group=0))
            return
        parent = row.parent
        while self._stack and self._stack[-1][0] != parent:
            self._leave()
        if not self._stack or path in self._stack[-1][1].rows:
            raise RepositoryError(f"the tree to publish is not in order at {path}")
        if not self._at and path == f"/{MARKER}":
            raise RepositoryError(f"the root of a repository cannot hold {MARKER}")
        self._put(row, self._stack[-1][1], entry.path)

    def _start(self, row: Row) -> None:
        draft = self._drafts.home(row.path)
        if not row.path and not row.is_directory:
            raise RepositoryError("the root of a repository must be a directory")
        self._put(row, draft, "")

    def _put(self, row: Row, draft: Draft, inner: str) -> None:
        if row.is_directory and inner in self._catalogs:
            draft = self._drafts.begin(draft, row)
            self._mounts.add(row.path)
        else:
            if inner in self._catalogs:
                raise RepositoryError(f"{row.path} cannot begin a nested catalog: it is a {row.kind}")
            draft.put(row)
        if row.is_directory:
            self._stack.append((row.path, draft))

    def finish(self) -> None:
        """Ends all directories that are still being filled."""
        while self._stack:
            self._leave()

    def _leave(self) -> None:
        """Ends a directory; a catalog that begins there gets the marker that the tree does not have."""
        path, draft = self._stack.pop()
        if path != draft.mount or path not in self._mounts:
            return
        marker = f"{path}/{MARKER}"
        if marker not in draft.rows:
            root = draft.rows[path]
            draft.put(
                Row(
                    path=marker,
                    mode=0o100644,
                    uid=root.uid,
                    gid=root.gid,
                    mtime=root.mtime,
                    mtimens=root.mtimens,
                    flags=Flag.FILE | self._marker.flags,
                    digest=self._marker.digest,
                )
            )
        if self._seal:
            self._drafts.seal(draft)
