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
    read: Callable[[Entry], Iterable[bytes]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> str:
    """``sha256:<hex>`` over names, kinds, modes, sizes, link targets and contents; not over times and owners.

    The markers of nested catalogs do not count either: they are the repository's, not the tree's.

    Args:
        entries: the tree, in tree order.
        read: gives the content of a file; by default what :attr:`Entry.content` says.
        progress: called with the bytes read so far.

    Raises:
        DiskError: a file cannot be read.
    """
    total = hashlib.sha256(b"afpub tree 1\n")
    done = 0
    with ThreadPoolExecutor(_WORKERS) as pool:
        own = (entry for entry in entries if entry.name != MARKER)
        for entry, content in pool.map(lambda item: (item, _content(item, read)), own):
            size = entry.size_bytes if entry.kind is Kind.FILE else 0
            fields = (entry.kind.value.encode(), b"%o" % entry.mode, b"%d" % size)
            line = b"\0".join((os.fsencode(entry.path), *fields, os.fsencode(entry.target), content))
            total.update(b"%d:" % len(line) + line)
            done += entry.size_bytes
            if progress:
                progress(done)
    return f"sha256:{total.hexdigest()}"


def _content(entry: Entry, read: Callable[[Entry], Iterable[bytes]] | None) -> bytes:
    if entry.kind is not Kind.FILE:
        return b""
    digest = hashlib.sha256()
    for block in (read or _blocks)(entry):
        digest.update(block)
    return digest.digest()


def _blocks(entry: Entry) -> Iterable[bytes]:
    if isinstance(entry.content, bytes):
        return (entry.content,)
    assert isinstance(entry.content, Path)
    return file_blocks(entry.content)


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
