"""Repairing a repository: what is damaged or missing comes from a mirror, or is made anew from the published folder.

Nothing is believed: an object is put in place only when its bytes have the digest of its name.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.check_objects import parse_object_name, readable_paths
from publisher.cvmfs.commit import commit_reflog, read_reflog, rebuilt_reflog, reflog_stands
from publisher.cvmfs.compression import Compression, Compressor
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.disk import FILE_MODE, failing_as
from publisher.cvmfs.loading import open_catalog
from publisher.cvmfs.location import Location
from publisher.cvmfs.marking import KIND_OF_REF, Marks, trunk
from publisher.cvmfs.publish import Session, session
from publisher.cvmfs.reader import Reader, Stored
from publisher.cvmfs.reflog import REFLOG_NAME, Ref, RefKind, Reflog
from publisher.cvmfs.source import Source, is_there, object_blocks
from publisher.cvmfs.storage import FolderStorage, Storage
from publisher.errors import AfpubError, FormatError, RepositoryError, TrustError
from publisher.names import RepoPath
from publisher.report import Finding, Report, collect, note
from publisher.tree import FolderTree, Kind

_KINDS = {(kind.value or "-").encode(): kind for kind in ObjectKind}


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A folder that was published, and where."""

    folder: Path
    at: RepoPath


@dataclass(kw_only=True, slots=True)
class _Work:
    held: Session
    mirror: Source | None
    lost: dict[tuple[bytes, ObjectKind], Digest] = field(default_factory=dict)
    """Objects that no mirror had."""
    findings: list[Finding] = field(default_factory=list)
    complete: bool = True
    """All catalogs could be read, so that what nothing refers to is known."""

    def did(self, name: str, message: str) -> None:
        self.findings.append(note("repaired", name, message))


def repair(
    location: Location, *, keys_folder: Path, now: datetime, mirror: Source | None = None, origin: Origin | None = None
) -> Report:
    """Repairs what can be repaired; what was done, as notes. What is still wrong is for a check to say.

    Args:
        location: the repository.
        keys_folder: holds its certificate and its private repository key.
        now: the present.
        mirror: a replica, or a copy of the folder, that may have the objects.
        origin: a folder that was published, from which the contents of files are made anew.

    Raises:
        TransactionOpenError: a publisher holds the repository.
        TrustError: the keys or the whitelist do not allow to change it.
        RepositoryError: its manifest is damaged.
        DiskError: a file cannot be written.
    """
    with session(location, keys_folder=keys_folder, now=now, removing=True) as held:
        work = _Work(held=held, mirror=mirror)
        marks = _catalogs(work)
        for number, listed in enumerate(held.storage.folders()):
            _objects(work, listed, marks.folder(number))
        if origin is not None and work.lost:
            _from_folder(work, origin)
        _reflog(work)
        _permissions(work)
    return collect(work.findings)


def _catalogs(work: _Work) -> Marks:
    """Every object that is referred to; catalogs that are damaged are repaired on the way."""
    marks = Marks()
    reader = work.held.reader
    manifest = reader.manifest
    for digest, kind in (
        (manifest.certificate, ObjectKind.CERTIFICATE),
        (manifest.history, ObjectKind.HISTORY),
        (manifest.metainfo, ObjectKind.METAINFO),
    ):
        if digest is not None:
            marks.add(digest.raw, kind)
            _ensure(work, digest, kind)
    waiting = [CatalogRef(path="", digest=manifest.root, size_bytes=manifest.root_size_bytes)]
    try:
        waiting += [CatalogRef(path="", digest=tag.root, size_bytes=tag.size_bytes) for tag in reader.tags()]
    except (RepositoryError, TrustError):
        work.complete = False
    waiting += [CatalogRef(path="", digest=ref.digest, size_bytes=0) for ref in _earlier(reader)]
    seen: set[Digest] = set()
    while waiting:
        ref = waiting.pop()
        if ref.digest not in seen:
            seen.add(ref.digest)
            marks.add(ref.digest.raw, ObjectKind.CATALOG)
            _ensure(work, ref.digest, ObjectKind.CATALOG)
            waiting += _look_into(work, ref, marks)
    return marks


def _look_into(work: _Work, ref: CatalogRef, marks: Marks) -> tuple[CatalogRef, ...]:
    try:
        catalog = open_catalog(work.held.reader.source, ref)
        try:
            for raw, kind in catalog.objects():
                marks.add(raw, kind)
            return *catalog.nested(), *(replace(bound, path="") for bound in catalog.binds())
        finally:
            catalog.close()
    except (RepositoryError, TrustError):
        work.complete = False
        return ()


def _good(source: Source, digest: Digest, kind: ObjectKind) -> bool:
    try:
        for _ in object_blocks(source, digest, kind):
            pass
    except (RepositoryError, TrustError):
        return False
    return True


def _ensure(work: _Work, digest: Digest, kind: ObjectKind) -> None:
    """Repairs an object that is missing or damaged, or remembers that it is lost."""
    name = digest.object_name(kind)
    source = work.held.reader.source
    folder = _folder(work)
    linked = folder is not None and (folder / name).is_symlink()
    if _good(source, digest, kind):
        if linked:
            _put(work.held.storage, digest, kind, object_blocks(source, digest, kind))
            work.did(name, "was a link: the bytes are in its place now")
        return
    if work.mirror is not None:
        with contextlib.suppress(RepositoryError, TrustError):
            _put(work.held.storage, digest, kind, object_blocks(work.mirror, digest, kind))
            work.did(name, f"fetched from {work.mirror.where}")
            return
    work.lost[digest.raw, kind] = digest


def _put(storage: Storage, digest: Digest, kind: ObjectKind, blocks: Iterable[bytes]) -> None:
    """Puts an object in the place of what is there; the blocks raise when they are not the right ones."""
    name = digest.object_name(kind)
    temporary = storage.scratch / f"afpub-{os.getpid()}-repair"
    with failing_as("write", temporary), temporary.open("wb") as file:
        for block in blocks:
            file.write(block)
        os.fchmod(file.fileno(), FILE_MODE)
    if isinstance(storage, FolderStorage):
        with failing_as("write", storage.folder / name):
            _clear(storage.folder / name)
    storage.put_objects({name: f"{temporary}"}, replace=True)


def _folder(work: _Work) -> Path | None:
    """The folder of a repository that is in one; there links, folders and permissions can be wrong as well."""
    storage = work.held.storage
    return storage.folder if isinstance(storage, FolderStorage) else None


def _clear(path: Path) -> None:
    """Removes an empty folder from the place of a file; one that holds something is for a person to look at."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()


def _permissions(work: _Work) -> None:
    folder = _folder(work)
    for path, wanted in readable_paths(folder) if folder else ():
        mode = stat.S_IMODE(path.stat(follow_symlinks=False).st_mode)
        if mode & wanted != wanted and not path.is_symlink():
            with failing_as("change the permissions of", path):
                path.chmod(mode | wanted)
            work.did(
                f"{path.relative_to(work.held.storage.where)}",
                f"can be read by a web server now (mode {mode | wanted:04o})",
            )


def _objects(work: _Work, listed: Iterable[tuple[str, int]], wanted: set[bytes]) -> None:
    """Repairs the objects of one folder, and removes damaged ones that nothing refers to."""
    storage = work.held.storage
    for digest, kind in _present(listed):
        key = Marks.key(digest.raw, kind)
        if key in wanted:
            wanted.remove(key)
            _ensure(work, digest, kind)
        elif work.complete and not _good(work.held.reader.source, digest, kind):
            name = digest.object_name(kind)
            storage.remove_objects([name])
            work.did(name, "was damaged and needed by nothing: removed")
    for key in sorted(wanted):
        _ensure(work, Digest(raw=key[:-1], algorithm=work.held.reader.manifest.algorithm), _KINDS[key[-1:]])


def _present(listed: Iterable[tuple[str, int]]) -> Iterator[tuple[Digest, ObjectKind]]:
    for name, _ in listed:
        with contextlib.suppress(FormatError):
            yield parse_object_name(name)


def _from_folder(work: _Work, origin: Origin) -> None:
    reader = work.held.reader
    roots = {reader.manifest.root, *(tag.root for tag in reader.tags())}
    for root in roots:
        with reader.at(root) as revision:
            for entry in FolderTree(folder=origin.folder):
                if entry.kind is Kind.FILE and isinstance(entry.content, str) and work.lost:
                    with contextlib.suppress(RepositoryError, TrustError):
                        stored = revision.lookup(f"{origin.at}/{entry.path}")
                        if stored is not None and stored.entry.size_bytes == entry.size_bytes:
                            _remake(work, stored, Path(entry.content))


def _remake(work: _Work, stored: Stored, path: Path) -> None:
    pieces = [
        (Digest(raw=each.digest, algorithm=stored.algorithm), each.offset, each.size_bytes) for each in stored.chunks
    ]
    kind = ObjectKind.CHUNK if pieces else ObjectKind.FILE
    if not pieces and stored.digest is not None:
        pieces = [(stored.digest, 0, stored.entry.size_bytes)]
    for digest, offset, size_bytes in pieces:
        if (digest.raw, kind) in work.lost:
            with failing_as("read", path), path.open("rb") as file:
                file.seek(offset)
                data = file.read(size_bytes)
            for compressor in _compressors(work.held.settings.compressor, stored.compression):
                made = compressor.compress(data)
                if digest.algorithm.digest(made) == digest:
                    _put(work.held.storage, digest, kind, [made])
                    del work.lost[digest.raw, kind]
                    work.did(digest.object_name(kind), f"made anew from {path}")
                    break


def _compressors(own: Compressor, compression: Compression) -> Iterator[Compressor]:
    """The ways in which an object may have been stored, the most likely first."""
    if compression is Compression.NONE:
        yield Compressor(compression=Compression.NONE)
        return
    if own.compression is Compression.ZLIB:
        yield own
    yield Compressor(reference=True)
    for level in range(1, 13):
        yield Compressor(level=level)


def _reflog(work: _Work) -> None:
    held = work.held
    manifest = held.reader.manifest
    try:
        history = held.reader.history()
    except AfpubError:
        return  # without its tags the reflog would forget them
    try:
        reflog = read_reflog(held.storage, manifest, history)
        right = reflog_stands(held.storage, manifest)
    except AfpubError:
        reflog, right = rebuilt_reflog(manifest, history), False
    source = held.reader.source
    kept = [ref for ref in reflog.refs if is_there(source, ref.digest.object_name(KIND_OF_REF[ref.kind]))]
    if right and len(kept) == len(reflog.refs):
        return
    folder = _folder(work)
    if folder is not None:
        with failing_as("remove", folder / REFLOG_NAME):
            _clear(folder / REFLOG_NAME)
    wanted = Reflog(fqrn=manifest.fqrn, refs=tuple(kept)).with_refs(_earlier(held.reader))
    commit_reflog(held.store, held.signer, manifest, wanted)
    work.did(".cvmfsreflog", f"made anew: {len(wanted.refs)} roots")


def _earlier(reader: Reader) -> Iterator[Ref]:
    """The revisions before the newest, as far as they are there."""
    with contextlib.suppress(RepositoryError, TrustError):
        for ref, added_s in trunk(reader, {}, -1):
            yield Ref(digest=ref.digest, kind=RefKind.CATALOG, added_s=added_s)
