"""Files that the server need not read: their objects are in the repository, and a neighbor says which.

The server takes a file ``.cvmfsgraft-NAME`` for the description of NAME, whose bytes it then neither reads, nor
compresses, nor stores. Source: cvmfs/sync_item.cc, SyncItem::CheckGraft (2.12).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from publisher.backends.server.site import Site
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.content_index import ContentIndex
from publisher.cvmfs.contents import ContentWriter
from publisher.cvmfs.crew import Crew, Hands
from publisher.cvmfs.digest import DIGEST_BYTES, Digest, ObjectKind
from publisher.cvmfs.reader import Stored
from publisher.cvmfs.rows import Content
from publisher.cvmfs.storage import FolderStorage
from publisher.cvmfs.store import ObjectStore, StoreTotals
from publisher.errors import RepositoryError
from publisher.tree import Entry

_NAMES = {Compression.ZLIB: "zlib", Compression.NONE: "none"}


def can_store(site: Site) -> str:
    """Why objects cannot be stored before the transaction opens; empty when they can."""
    if site.storage is None:
        return f"the upstream storage is of the kind {site.upstream}, not local"
    data = site.storage / "data"
    try:
        owner = data.stat().st_uid
    except OSError as exc:
        return f"{data}: {exc.strerror}"
    objections = (
        (site.compressor is None, "the server's compression is unknown to afpub"),
        (site.chunk_rule is None, "the server does not cut big files"),
        (site.external, "the server keeps file contents outside of the repository"),
        (owner != os.geteuid(), f"{data} belongs to user {owner}, not to the one that runs afpub"),
    )
    return next((text for objects, text in objections if objects), "")


def store(
    site: Site,
    entries: Sequence[Entry],
    *,
    index: Path,
    jobs: int,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, Content], StoreTotals]:
    """Puts the contents of files into the storage of a local repository; nothing refers to them yet.

    Args:
        site: a repository for which :func:`can_store` has no objection.
        entries: the files.
        index: remembers what is stored already; safe to delete.
        jobs: threads that compress.
        progress: gets the files and bytes that were just read.

    Raises:
        DiskError: a file cannot be read or changed meanwhile, or the disk is full.
    """
    assert site.storage is not None
    assert site.compressor is not None
    assert site.chunk_rule is not None
    index.parent.mkdir(parents=True, exist_ok=True)
    with ContentIndex(index) as known:
        target = ObjectStore(FolderStorage(site.storage, spool=index.parent), algorithm=site.algorithm, index=known)
        try:
            with Crew(Hands(jobs), target.plan(site.compressor, site.chunk_rule), target.index) as crew:
                crew.expect(files=len(entries), size_bytes=sum(entry.size_bytes for entry in entries))
                writer = ContentWriter(target, site.compressor, site.chunk_rule, crew=crew, progress=progress)
                stored = writer.stored(entries)
                contents = {entry.path: content for entry, content in stored if content is not None}
            target.flush()
        finally:
            target.sweep()
    return contents, target.totals


def content_of(stored: Stored) -> Content:
    """The content of a published file."""
    return Content(
        size_bytes=stored.entry.size_bytes,
        algorithm=stored.algorithm,
        compression=stored.compression,
        digest=stored.digest.raw if stored.digest else None,
        chunks=stored.chunks,
    )


def description(content: Content) -> bytes:
    """The bytes of the file that describes a content to the server."""
    whole = Digest(raw=content.digest or bytes(DIGEST_BYTES), algorithm=content.algorithm)
    lines = [f"size={content.size_bytes}", f"checksum={whole}", f"compression={_NAMES[content.compression]}"]
    if content.chunks:
        digests = (Digest(raw=chunk.digest, algorithm=content.algorithm) for chunk in content.chunks)
        lines.append(f"chunk_offsets={','.join(str(chunk.offset) for chunk in content.chunks)}")
        lines.append(f"chunk_checksums={','.join(str(digest) for digest in digests)}")
    return "".join(f"{line}\n" for line in lines).encode()


def require_objects(site: Site, contents: Mapping[str, Content]) -> None:
    """Makes sure, in the open transaction, that garbage collection took none of the stored objects.

    The server collects no garbage while a transaction is open.

    Raises:
        RepositoryError: an object is gone.
    """
    assert site.storage is not None
    prefix = f"{site.storage}/"
    for path, content in contents.items():
        for name in _objects(content):
            if not os.path.exists(prefix + name):  # noqa: PTH110 - there are many, and path objects are slow
                raise RepositoryError(
                    f"garbage collection removed the object {name} of /{path} before it was published",
                    hint="run it again",
                )


def _objects(content: Content) -> Iterable[str]:
    if content.chunks:
        for chunk in content.chunks:
            yield Digest(raw=chunk.digest, algorithm=content.algorithm).object_name(ObjectKind.CHUNK)
    elif content.digest is not None:
        yield Digest(raw=content.digest, algorithm=content.algorithm).object_name(ObjectKind.FILE)
