"""Reading a repository: verified from the public key down to each byte of a file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from publisher.cvmfs.catalog import Catalog, CatalogRef
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.counters import Statistics
from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.history import TRUNK, History, Tag
from publisher.cvmfs.loading import load_history, open_catalog
from publisher.cvmfs.location import Location, source_of
from publisher.cvmfs.manifest import Manifest
from publisher.cvmfs.rows import Chunk, Flag, Row
from publisher.cvmfs.source import Source, is_there, object_contents
from publisher.cvmfs.trust import read_manifest, verify_manifest
from publisher.errors import FormatError, NotFoundError, RepositoryError, TrustError
from publisher.names import Fqrn
from publisher.tree import Entry, Kind

_OPEN_CATALOGS = 16
_OPEN_BYTES = 64 << 20
"""Most bytes of the catalogs that are open, whole databases in memory; one may be bigger."""
_HIDDEN_BITS = Flag.MOUNT_POINT | Flag.NESTED_ROOT


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """An entry as a repository has it."""

    entry: Entry
    """Path without a leading slash; :attr:`Entry.content` is always None."""
    nlink: int
    raw_size: int
    """The size column as it is: for a directory whatever its writer put there."""
    algorithm: Algorithm
    compression: Compression
    digest: Digest | None = None
    """Of the whole file's object."""
    chunks: tuple[Chunk, ...] = ()
    catalog: Digest | None = None
    """The nested catalog that begins at this directory."""
    external: bool = False
    """The file's bytes are not in the repository."""
    hidden: bool = False
    direct_io: bool = False

    @property
    def path(self) -> str:
        """The entry's path."""
        return self.entry.path

    @property
    def content_key(self) -> str:
        """Text that is the same for two files of one repository only when their bytes are."""
        if self.digest is not None:
            return f"{self.digest}{self.compression:d}"
        joined = b"".join(chunk.digest for chunk in self.chunks)
        return f"{self.algorithm.digest(joined)}P{self.compression:d}" if joined else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogInfo:
    """A catalog and what it says about itself."""

    mount_path: str
    digest: Digest
    size_bytes: int
    rows: int
    chunk_rows: int
    statistics: Statistics
    properties: Mapping[str, str]
    nested: tuple[CatalogRef, ...]
    binds: tuple[CatalogRef, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory or entry: the catalog that holds it, and the path by which that catalog knows it."""

    catalog: Catalog
    ref: CatalogRef
    inner: str
    """Path in the catalog; differs from the visible one below bind mount points."""
    row: Row


class Reader:
    """One revision of a repository. Close it, or use it in a ``with`` statement."""

    def __init__(self, source: Source, manifest: Manifest, root: CatalogRef) -> None:
        self.source = source
        self.manifest = manifest
        """The newest manifest, whichever revision is read."""
        self._root = root
        self._open: OrderedDict[str, Catalog] = OrderedDict()
        self._open_bytes = 0
        self._history: History | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the catalogs."""
        for catalog in self._open.values():
            catalog.close()
        self._open.clear()
        self._open_bytes = 0

    @property
    def fqrn(self) -> str:
        """The repository's name."""
        return self.manifest.fqrn

    @property
    def root_hash(self) -> Digest:
        """The root catalog that is read."""
        return self._root.digest

    @property
    def revision(self) -> int:
        """The number of the revision that is read."""
        return self.catalog(self._root).revision

    def history(self) -> History:
        """The newest tag database; an empty one where the repository has none."""
        if self._history is None:
            self._history = load_history(self.source, self.manifest) or History(fqrn=self.manifest.fqrn)
        return self._history

    def tags(self) -> tuple[Tag, ...]:
        """The repository's tags."""
        return self.history().tags

    def at(self, revision: str | int | Digest) -> Reader:
        """A reader of another revision: of a tag, a revision number, or the digest of a root catalog.

        Raises:
            NotFoundError: there is no such revision.
        """
        digest, size = self._resolve(revision)
        return Reader(self.source, self.manifest, CatalogRef(path="", digest=digest, size_bytes=size))

    def _resolve(self, revision: str | int | Digest) -> tuple[Digest, int]:
        if isinstance(revision, Digest):
            return revision, 0
        if isinstance(revision, int):
            return self._by_number(revision)
        tag = self.history().tag(revision)
        if tag is not None:
            return tag.root, tag.size_bytes
        if revision == TRUNK:
            return self.manifest.root, self.manifest.root_size_bytes
        try:
            return Digest.parse(revision), 0
        except FormatError:
            names = ", ".join(sorted(tag.name for tag in self.tags())) or "none"
            raise NotFoundError(f"{self.source.where} has no tag {revision!r}", hint=f"tags: {names}") from None

    def _by_number(self, revision: int) -> tuple[Digest, int]:
        for tag in self.tags():
            if tag.revision == revision:
                return tag.root, tag.size_bytes
        newest = self.manifest.revision
        ref = CatalogRef(path="", digest=self.manifest.root, size_bytes=self.manifest.root_size_bytes)
        catalog = self.catalog(ref)
        while catalog.revision > revision:
            reached, previous = catalog.revision, catalog.previous
            if previous is None:
                break
            if not is_there(self.source, previous.object_name(ObjectKind.CATALOG)):
                raise NotFoundError(
                    f"{self.source.where} has no revision {revision} any more: garbage collection removed what was "
                    f"before revision {reached} and has no tag",
                    hint="afpub repo tag lists the tags, whose revisions are kept",
                )
            ref = CatalogRef(path="", digest=previous, size_bytes=0)
            catalog = self.catalog(ref)
        if catalog.revision != revision:
            raise NotFoundError(f"{self.source.where} has no revision {revision}", hint=f"the newest is {newest}")
        return ref.digest, ref.size_bytes

    def catalog(self, ref: CatalogRef) -> Catalog:
        """An open catalog, its digest, size and mount path checked.

        Raises:
            TrustError: its bytes are not those that its name promises.
            FormatError: it is damaged, or belongs elsewhere.
        """
        key = f"{ref.digest} {ref.path}"
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        catalog = open_catalog(self.source, ref)
        self._open[key] = catalog
        self._open_bytes += catalog.size_bytes
        while len(self._open) > 1 and (len(self._open) > _OPEN_CATALOGS or self._open_bytes > _OPEN_BYTES):
            _, oldest = self._open.popitem(last=False)
            self._open_bytes -= oldest.size_bytes
            oldest.close()
        return catalog

    def lookup(self, path: str) -> Stored | None:
        """What is at a path, None when nothing is.

        Args:
            path: as in an :class:`Entry`; a leading slash does not matter.
        """
        place = self._find(path.strip("/"))
        return _stored(place.row, path.strip("/"), place) if place else None

    def listdir(self, path: str = "") -> tuple[Stored, ...]:
        """What a directory holds, sorted by the bytes of the names; hidden entries are left out.

        Raises:
            NotFoundError: there is no such directory.
        """
        path = path.strip("/")
        place = self._find(path)
        if place is None or not place.row.is_directory:
            raise NotFoundError(f"there is no directory /{path} in {self.source.where}")
        return tuple(stored for stored, _ in self._children(self._inside(place), path))

    def walk(self, path: str = "", *, skip: Callable[[Stored], bool] | None = None) -> Iterator[Stored]:
        """Everything from a path down, in tree order, the path itself first; hidden entries are left out.

        Args:
            path: where to begin.
            skip: asked for each directory; what is below it is left out when it says so.

        Raises:
            NotFoundError: there is nothing at the path.
        """
        path = path.strip("/")
        place = self._find(path)
        if place is None:
            raise NotFoundError(f"there is no /{path} in {self.source.where}")
        waiting = [(_stored(place.row, path, place), place)]
        while waiting:
            stored, place = waiting.pop()
            into = place.row.is_directory and not (skip and skip(stored))
            yield stored
            if into:
                waiting.extend(reversed(list(self._children(self._inside(place), stored.path))))

    def read(self, what: str | Stored) -> Iterator[bytes]:
        """The bytes of a file; only when the last have come are they known to be right.

        Raises:
            NotFoundError: there is no such file.
            TrustError: an object is damaged.
            FormatError: an object has another size than the catalog says.
            RepositoryError: an object is missing.
        """
        stored = self.lookup(what) if isinstance(what, str) else what
        if stored is None or stored.entry.kind is not Kind.FILE:
            name = what if isinstance(what, str) else what.path
            raise NotFoundError(f"there is no file /{name.strip('/')} in {self.source.where}")
        if stored.external:
            raise RepositoryError(f"the bytes of /{stored.path} are not in the repository, but on an external server")
        return read_content(self.source, stored)

    def catalogs(self) -> Iterator[CatalogInfo]:
        """All catalogs, parents first."""
        waiting = [self._root]
        while waiting:
            ref = waiting.pop()
            catalog = self.catalog(ref)
            rows, chunk_rows = catalog.row_counts()
            nested = catalog.nested()
            yield CatalogInfo(
                mount_path=ref.path,
                digest=ref.digest,
                size_bytes=catalog.size_bytes,
                rows=rows,
                chunk_rows=chunk_rows,
                statistics=catalog.statistics(),
                properties=dict(catalog.properties),
                nested=nested,
                binds=catalog.binds(),
            )
            waiting.extend(reversed(nested))

    def _find(self, path: str) -> _Place | None:
        root = self.catalog(self._root)
        place = _Place(root, self._root, "", root.root())
        for name in path.split("/") if path else ():
            if not place.row.is_directory:
                return None
            directory = self._inside(place)
            row = directory.catalog.find(f"{directory.inner}/{name}") if name not in {"", ".", ".."} else None
            if row is None:
                return None
            place = _Place(directory.catalog, directory.ref, row.path, row)
        return place

    def _inside(self, place: _Place) -> _Place:
        """The directory as the catalog has it that holds its contents."""
        ref = place.catalog.mounted(place.row)
        if ref is None:  # opened again where it was closed meanwhile
            return _Place(self.catalog(place.ref), place.ref, place.inner, place.row)
        if place.row.bind_mount:
            ref = CatalogRef(path="", digest=ref.digest, size_bytes=ref.size_bytes)
        catalog = self.catalog(ref)
        return _Place(catalog, ref, ref.path, catalog.root())

    def _children(self, place: _Place, path: str) -> Iterator[tuple[Stored, _Place]]:
        prefix = f"{path}/" if path else ""
        for row in place.catalog.listing(place.inner):
            if not row.hidden:
                child = _Place(place.catalog, place.ref, row.path, row)
                yield _stored(row, prefix + row.name, child), child


def _stored(row: Row, path: str, place: _Place) -> Stored:
    mounted = place.catalog.mounted(row) if row.is_directory else None
    return Stored(
        entry=row.entry(path),
        nlink=row.links,
        raw_size=row.size,
        algorithm=row.algorithm,
        compression=row.compression,
        digest=row.content,
        chunks=row.chunks,
        catalog=mounted.digest if mounted else None,
        external=row.external,
        hidden=row.hidden,
        direct_io=bool(row.flags & Flag.DIRECT_IO),
    )


def read_content(source: Source, stored: Stored) -> Iterator[bytes]:
    """The bytes of a file; raises as :meth:`Reader.read`."""
    if stored.chunks:
        for chunk in stored.chunks:
            digest = Digest(raw=chunk.digest, algorithm=stored.algorithm)
            yield from _sized(source, digest, ObjectKind.CHUNK, stored, chunk.size_bytes)
    else:
        assert stored.digest is not None
        yield from _sized(source, stored.digest, ObjectKind.FILE, stored, stored.entry.size_bytes)


def _sized(source: Source, digest: Digest, kind: ObjectKind, stored: Stored, size_bytes: int) -> Iterator[bytes]:
    got = 0
    for piece in object_contents(source, digest, kind, stored.compression, limit=size_bytes):
        got += len(piece)
        yield piece
    if got != size_bytes:
        raise FormatError(
            f"/{stored.path}: the object {digest.object_name(kind)} has {got} bytes of content, "
            f"the catalog says {size_bytes}"
        )


def open_repository(
    location: Location,
    *,
    fqrn: Fqrn | None = None,
    public_key: bytes | None = None,
    now: datetime | None = None,
) -> Reader:
    """A reader of the newest revision in a folder, in a bucket or on a web server.

    Args:
        location: the repository's folder or address.
        fqrn: the name that it must have.
        public_key: PEM of the public master key; the whole chain of trust is checked against it. Without a
            key only digests are checked.
        now: the time for the whitelist's expiry; the present when left out.

    Raises:
        RepositoryError: there is no repository, or it cannot be read.
        TrustError: the chain of trust is broken.
        FormatError: it is damaged.
    """
    source = source_of(location)
    if public_key is None:
        manifest, _ = read_manifest(source)
    else:
        manifest = verify_manifest(source, public_key, now=now or datetime.now(UTC))
    if fqrn is not None and manifest.fqrn != fqrn:
        raise TrustError(f"{source.where} is the repository {manifest.fqrn}, not {fqrn}")
    root = CatalogRef(path="", digest=manifest.root, size_bytes=manifest.root_size_bytes)
    return Reader(source, manifest, root)
