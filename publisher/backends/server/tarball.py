"""One tar stream for ``cvmfs_server ingest``: parents, markers and files in the order of the tree.

What ingest cannot do (cvmfs/swissknife_ingest.cc, cvmfs/sync_union_tarball.cc, 2.12): it makes one object of each
file, however big; it stores no extended attributes; it makes its own objects of other than the repository's
digest and compression.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from typing import BinaryIO

from publisher.backends.server.compare import Edits, entry_blocks
from publisher.tree import Entry, Kind


class _Blocks(io.RawIOBase):
    """The bytes of an entry as a file, which raises what reading it raises."""

    def __init__(self, entry: Entry) -> None:
        self._blocks = iter(entry_blocks(entry))
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001 - any writable buffer
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def members(edits: Edits) -> list[Entry]:
    """What goes into the stream: every directory before what it holds."""
    folders = {entry.path: entry for entry in (*edits.folders, *edits.settle)}
    return sorted((*folders.values(), *edits.files, *edits.links), key=lambda entry: entry.path.split("/"))


def write_tar(sink: BinaryIO, entries: Iterable[Entry], *, below: str, progress: Callable[[int], None]) -> None:
    """Writes entries as a tar stream whose names are relative to a folder.

    Args:
        sink: gets the stream.
        entries: each directory before what it holds.
        below: the folder, a path without a leading slash.
        progress: gets the bytes of each file that was written.

    Raises:
        DiskError: a file cannot be read.
    """
    strip = len(below) + 1 if below else 0
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for entry in entries:
            name = entry.path[strip:]
            if not name:
                continue
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = entry.mode, entry.mtime_s
            if entry.kind is Kind.DIRECTORY:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif entry.kind is Kind.SYMLINK:
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
                tar.addfile(info)
            else:
                info.size = entry.size_bytes
                tar.addfile(info, io.BufferedReader(_Blocks(entry)))
                progress(entry.size_bytes)


def cannot_ingest(edits: Edits, *, below: str, sha1_zlib: bool, chunk_bytes: int | None) -> str:
    """Why a change cannot go through ``ingest``; empty when it can.

    Args:
        edits: the change.
        below: the folder that the stream goes to.
        sha1_zlib: the repository uses what ingest writes.
        chunk_bytes: files above this are cut by the server; None where none are.
    """
    if not below:
        return "ingest needs a folder below the root"
    if edits.removals:
        return "something is removed, or is replaced by something of another type"
    if not sha1_zlib:
        return "ingest always stores with SHA-1 and zlib, which this repository does not"
    if chunk_bytes is not None:
        big = next((entry for entry in edits.files if entry.size_bytes > chunk_bytes), None)
        if big is not None:
            return f"/{big.path} is bigger than {chunk_bytes >> 20} MiB, and ingest does not cut files"
    if any(entry.xattrs for entry in edits.files):
        return "ingest stores no extended attributes"
    return ""
