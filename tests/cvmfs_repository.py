"""Repositories made for tests, and trees to publish."""

from __future__ import annotations

import atexit
import base64
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from publisher.cvmfs.chunker import ChunkRule, next_length
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.keys import create_keys
from publisher.cvmfs.publish import publish
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.settings import Settings
from publisher.names import Fqrn, RepoPath
from publisher.tree import Entry, Graft, Kind, pre_order

FQRN = Fqrn("test.afpub.example")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SMALL = Settings(chunk_least=65536, chunk_average=131072, chunk_most=262144)
"""Chunks small enough for tests."""


@cache
def shared_keys() -> Path:
    """One set of keys for all tests of a run: making them takes most of a second."""
    folder = Path(mkdtemp(prefix="afpub-test-keys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    create_keys(FQRN, folder, now=NOW)
    return folder


@dataclass(frozen=True)
class Repo:
    """A repository in a test."""

    folder: Path
    keys: Path

    def publish(self, *grafts: Graft, at=NOW, **more):
        return publish(self.folder, keys_folder=self.keys, now=at, grafts=grafts, **more)

    def open(self, at=NOW):
        return open_repository(self.folder, fqrn=FQRN, public_key=(self.keys / f"{FQRN}.pub").read_bytes(), now=at)


def make(folder: Path, settings: Settings = SMALL) -> Repo:
    keys = shared_keys()
    create_repository(folder, FQRN, keys_folder=keys, settings=settings, now=NOW)
    return Repo(folder, keys)


def cut(data: bytes, rule: ChunkRule, size_bytes: int = 0) -> list[int]:
    """The sizes of the chunks of a file, which may have been longer when it was looked at."""
    sizes, rest = [], size_bytes or len(data)
    while rest:
        start = sum(sizes)
        sizes.append(next_length(lambda at, count: data[at : at + count], start, rest, rule))
        rest -= sizes[-1]
    return sizes


def later(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


def directory(path: str, **more) -> Entry:
    return Entry(path=path, kind=Kind.DIRECTORY, mode=0o755, **more)


def file(path: str, content: bytes | Path = b"", **more) -> Entry:
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    values = {"mode": 0o644, "mtime_s": 1_600_000_000} | more
    return Entry(
        path=path,
        kind=Kind.FILE,
        content=str(content) if isinstance(content, Path) else content,
        size_bytes=size,
        **values,
    )


def link(path: str, target: str, **more) -> Entry:
    size = len(os.fsencode(target))
    return Entry(path=path, kind=Kind.SYMLINK, mode=0o777, target=target, size_bytes=size, **more)


def tree(*entries: Entry) -> tuple[Entry, ...]:
    """A tree of the entries, the root and the directories above them added."""
    have = {entry.path: entry for entry in entries}
    for entry in entries:
        above = entry.parent
        while above and above not in have:
            have[above] = directory(above)
            above = above.rpartition("/")[0]
    have.setdefault("", directory(""))
    return tuple(pre_order(have.values()))


def graft(at: str, *entries: Entry, catalogs=()) -> Graft:
    return Graft(at=RepoPath(at), tree=tree(*entries), catalogs=frozenset(catalogs))


def entry_of(row: dict, content: bytes | None) -> Entry:
    """An entry of expected.json."""
    kind = Kind(row["type"])
    path = base64.b64decode(row["path_b64"]) if "path_b64" in row else row["path"].encode()
    return Entry(
        path=os.fsdecode(path).lstrip("/"),
        kind=kind,
        mode=int(row["mode"], 8),
        uid=row["uid"],
        gid=row["gid"],
        mtime_s=row["mtime"],
        mtime_ns=row["mtime_ns"],
        size_bytes=row["size"] if kind in (Kind.FILE, Kind.SYMLINK) else 0,
        content=content,
        rdev=os.makedev(*row["rdev"]) if "rdev" in row else 0,
        xattrs=tuple(
            sorted(
                ((name, base64.b64decode(value)) for name, value in row.get("xattrs", {}).items()),
                key=lambda pair: os.fsencode(pair[0]),
            )
        ),
    )
