"""Python bytecode of a tree: stale bytecode on a read-only tree costs every user at every start."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from publisher.report import Finding, Report, collect, warning
from publisher.tree import Entry, Kind

_SHOWN: Final = 5


def check_bytecode(entries: Sequence[Entry], *, where: str) -> Report:
    """A warning when bytecode does not belong to the source beside it.

    CPython 3.7 and later: magic (4 bytes), flags (4), then the source's time and size (4 + 4) or, with flag
    bit 0, a hash, which is right whatever the time. Python 2.7: magic (4), time (4). Times are compared in
    whole seconds modulo 2**32. Source: PEP 552; CPython importlib/_bootstrap_external.py; 2.7 import.c.
    """
    return collect(_findings(entries, where=where))


def _findings(entries: Sequence[Entry], *, where: str) -> Iterator[Finding]:
    sources = {entry.path: entry for entry in entries if entry.kind is Kind.FILE and entry.path.endswith(".py")}
    stale = [entry.path for entry in entries if entry.path.endswith(".pyc") and _stale(entry, sources)]
    if stale:
        shown = ", ".join(f"/{path}" for path in stale[:_SHOWN])
        more = f" and {len(stale) - _SHOWN} more" if len(stale) > _SHOWN else ""
        yield warning(
            "stale-bytecode",
            where,
            f"{len(stale)} .pyc files do not belong to the source beside them: {shown}{more}",
            hint="end %post with 'python3 -m compileall -f --invalidation-mode unchecked-hash' over them",
        )


def _source_path(path: str) -> str:
    folder, _, name = path.rpartition("/")
    if folder.endswith("__pycache__"):
        parent = folder.rpartition("/")[0]
        stem = name.split(".")[0]
        return f"{parent}/{stem}.py" if parent else f"{stem}.py"
    return path.removesuffix("c")


def _stale(entry: Entry, sources: Mapping[str, Entry]) -> bool:
    source = sources.get(_source_path(entry.path))
    if source is None or entry.kind is not Kind.FILE:
        return False
    header = _header(entry)
    if len(header) < 16:
        return True
    in_cache = "__pycache__/" in entry.path
    if not in_cache:
        (mtime,) = struct.unpack_from("<I", header, 4)
        return bool(mtime != source.mtime_s % 2**32)
    flags, mtime, size = struct.unpack_from("<III", header, 4)
    if flags & 1:
        return False
    return bool(mtime != source.mtime_s % 2**32 or size != source.size_bytes % 2**32)


def _header(entry: Entry) -> bytes:
    if isinstance(entry.content, bytes):
        return entry.content[:16]
    assert isinstance(entry.content, str)
    with Path(entry.content).open("rb") as file:
        return file.read(16)
