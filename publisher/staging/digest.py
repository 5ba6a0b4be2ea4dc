"""One digest for a whole tree: what was built, what is staged and what is read back must agree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from publisher.cvmfs.rows import MARKER
from publisher.errors import DiskError
from publisher.tree import Entry, Kind

_BLOCK_BYTES = 1 << 20
_WORKERS = 2


def tree_digest(
    entries: Iterable[Entry],
    *,
    content: Callable[[Entry], bytes] | None = None,
    progress: Callable[[int], None] | None = None,
) -> str:
    """``sha256:<hex>`` over names, kinds, modes, sizes, link targets and contents; not over times and owners.

    The markers of nested catalogs do not count either: they are the repository's, not the tree's.

    Args:
        entries: the tree, in tree order.
        content: gives the SHA-256 of a file's bytes; by default of what :attr:`Entry.content` says.
        progress: called with the bytes read so far.

    Raises:
        DiskError: a file cannot be read.
    """
    total = hashlib.sha256(b"afpub tree 1\n")
    done = 0
    digest = content or _content

    def both(entry: Entry) -> tuple[Entry, bytes]:
        return entry, digest(entry) if entry.kind is Kind.FILE else b""

    with ThreadPoolExecutor(_WORKERS) as pool:
        for entry, sha256 in pool.map(both, (entry for entry in entries if entry.name != MARKER)):
            size = entry.size_bytes if entry.kind is Kind.FILE else 0
            fields = (entry.kind.value.encode(), b"%o" % entry.mode, b"%d" % size)
            line = b"\0".join((os.fsencode(entry.path), *fields, os.fsencode(entry.target), sha256))
            total.update(b"%d:" % len(line) + line)
            done += entry.size_bytes
            if progress:
                progress(done)
    return f"sha256:{total.hexdigest()}"


def sha256_of(blocks: Iterable[bytes]) -> bytes:
    """The digest of bytes that come block by block."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.digest()


def _content(entry: Entry) -> bytes:
    return sha256_of(_blocks(entry))


def _blocks(entry: Entry) -> Iterable[bytes]:
    if isinstance(entry.content, bytes):
        return (entry.content,)
    assert isinstance(entry.content, str)
    return file_blocks(Path(entry.content))


def file_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, block by block.

    Raises:
        DiskError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block
    except OSError as exc:
        raise DiskError(f"cannot read {path}: {exc.strerror}") from exc
