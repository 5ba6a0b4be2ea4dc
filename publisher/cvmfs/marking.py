"""Marking: which revisions garbage collection keeps, and every object that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.loading import open_catalog
from publisher.cvmfs.manifest import Manifest
from publisher.cvmfs.reader import Reader
from publisher.cvmfs.reflog import RefKind, Reflog
from publisher.cvmfs.shelves import Shelves
from publisher.cvmfs.source import Source, is_there
from publisher.errors import AfpubError, RepositoryError, TrustError

_KEY_BYTES = 21
KIND_OF_REF = {
    RefKind.CATALOG: ObjectKind.CATALOG,
    RefKind.CERTIFICATE: ObjectKind.CERTIFICATE,
    RefKind.HISTORY: ObjectKind.HISTORY,
    RefKind.METAINFO: ObjectKind.METAINFO,
}


class Marks:
    """A set of objects, for repositories of many millions: 21 bytes for each, most of them in a file.

    The digest algorithm is no part of a mark: of two objects that differ in nothing else both are kept.
    """

    def __init__(self) -> None:
        self._shelves = Shelves()

    @staticmethod
    def key(raw: bytes, kind: ObjectKind) -> bytes:
        """How an object is marked."""
        return raw + (kind.value or "-").encode()

    def add(self, raw: bytes, kind: ObjectKind) -> None:
        """Marks an object."""
        self._shelves.add(raw[0], self.key(raw, kind))

    def folder(self, number: int) -> set[bytes]:
        """The marks of all objects whose digest begins with a byte."""
        keys = self._shelves.read(number)
        return {keys[start : start + _KEY_BYTES] for start in range(0, len(keys), _KEY_BYTES)}

    def digests(self, number: int) -> set[bytes]:
        """The raw digests among them."""
        return {key[:-1] for key in self.folder(number)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """A revision that is kept."""

    ref: CatalogRef
    why: tuple[str, ...]
    """``newest``, ``grace period``, or ``tag NAME``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What garbage collection keeps."""

    roots: tuple[Root, ...]
    reflog: Reflog
    """The reflog of what is kept."""


def choose(reader: Reader, reflog: Reflog, *, oldest_s: int) -> Kept:
    """The revisions to keep: the newest, all tagged ones, and whatever clients could see since a moment.

    That is the rule of the CVMFS tools: a revision made before the moment is kept when it was still the newest one
    then. Certificates, tag databases and metainfos are kept from the oldest such revision on, and the one in use
    then. Source: cvmfs/garbage_collection (2.12).

    Args:
        reader: of the newest revision.
        reflog: of the repository.
        oldest_s: the moment, seconds since 1970.

    Raises:
        RepositoryError: a revision that is to be kept is damaged.
    """
    times = {ref.digest: ref.added_s for ref in reflog.refs if ref.kind is RefKind.CATALOG}
    roots: dict[Digest, Root] = {}

    def keep(ref: CatalogRef, why: str) -> None:
        former = roots.get(ref.digest, Root(ref=ref, why=()))
        roots[ref.digest] = replace(former, why=(*former.why, why))

    since_s: list[int] = []
    for number, (ref, added_s) in enumerate(trunk(reader, times, oldest_s)):
        keep(ref, "grace period" if number else "newest")
        since_s.append(added_s)
    for tag in reader.tags():
        keep(CatalogRef(path="", digest=tag.root, size_bytes=tag.size_bytes), f"tag {tag.name}")
    for digest, added_s in times.items():
        if added_s > oldest_s and digest not in roots:
            keep(CatalogRef(path="", digest=digest, size_bytes=0), "grace period")
    chosen = tuple(roots.values())
    return Kept(roots=chosen, reflog=_kept_reflog(reflog, set(roots), reader.manifest, min(since_s)))


def trunk(reader: Reader, times: dict[Digest, int], oldest_s: int) -> Iterator[tuple[CatalogRef, int]]:
    """The newest revision and those before it, back to the one that was the newest at a moment."""
    manifest = reader.manifest
    ref = CatalogRef(path="", digest=manifest.root, size_bytes=manifest.root_size_bytes)
    seen: set[Digest] = set()
    while True:
        try:
            catalog = reader.catalog(ref)
        except (RepositoryError, TrustError) as exc:
            raise _damaged(exc) from exc
        added_s = times.get(ref.digest, catalog.last_modified_s)
        yield ref, added_s
        seen.add(ref.digest)
        previous = catalog.previous
        if added_s <= oldest_s or previous is None or previous in seen:
            return
        if previous not in times and not is_there(reader.source, previous.object_name(ObjectKind.CATALOG)):
            return  # collected earlier
        ref = CatalogRef(path="", digest=previous, size_bytes=0)


def _kept_reflog(reflog: Reflog, roots: set[Digest], manifest: Manifest, since_s: int) -> Reflog:
    kept = {digest for digest in (manifest.certificate, manifest.history, manifest.metainfo) if digest}
    for kind in (RefKind.CERTIFICATE, RefKind.HISTORY, RefKind.METAINFO):
        refs = [ref for ref in reflog.refs if ref.kind is kind]
        kept |= {ref.digest for ref in refs if ref.added_s >= since_s}
        before = [ref for ref in refs if ref.added_s < since_s]
        if before:
            kept.add(max(before, key=lambda ref: ref.added_s).digest)
    refs = [ref for ref in reflog.refs if ref.digest in (roots if ref.kind is RefKind.CATALOG else kept)]
    return replace(reflog, refs=tuple(refs))


def mark(source: Source, kept: Kept, tell: Callable[[int], None]) -> Marks:
    """Every object that the kept revisions need.

    Args:
        source: the repository.
        kept: what is kept.
        tell: gets the number of catalogs read so far.

    Raises:
        RepositoryError: a catalog of a kept revision is missing or damaged.
    """
    marks = Marks()
    for row in kept.reflog.refs:
        marks.add(row.digest.raw, KIND_OF_REF[row.kind])
    seen: set[Digest] = set()
    waiting = [root.ref for root in kept.roots]
    while waiting:
        ref = waiting.pop()
        if ref.digest in seen:
            continue
        seen.add(ref.digest)
        marks.add(ref.digest.raw, ObjectKind.CATALOG)
        waiting.extend(_mark_catalog(source, ref, marks))
        tell(len(seen))
    return marks


def _mark_catalog(source: Source, ref: CatalogRef, marks: Marks) -> list[CatalogRef]:
    try:
        catalog = open_catalog(source, ref)
        try:
            for raw, kind in catalog.objects():
                marks.add(raw, kind)
        finally:
            catalog.close()
    except (RepositoryError, TrustError) as exc:
        raise _damaged(exc) from exc
    # What is bound in is the root catalog of another revision.
    return [*catalog.nested(), *(replace(bound, path="") for bound in catalog.binds())]


def _damaged(exc: AfpubError) -> RepositoryError:
    return RepositoryError(
        f"a revision that is to be kept is damaged, nothing was removed: {exc.message}",
        hint="afpub repo fsck says what is damaged",
    )
