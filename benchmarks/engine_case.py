#!/usr/bin/env python3
"""One case of ``engine.py``: a process that publishes, and has nothing else to do.

.venv/bin/python benchmarks/engine_case.py publish|small|fill WORK FOLDER|NUMBER
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable
from pathlib import Path

from publisher.cvmfs.crew import Hands
from publisher.cvmfs.publish import publish
from publisher.names import RepoPath
from publisher.project.settings import CatalogBounds
from publisher.staging.catalogs import split_tree
from publisher.staging.normalize import Policy, normalize
from publisher.tree import Entry, FolderTree, Graft, Kind

PART = 100_000
"""Entries of each tree that fills the repository elsewhere."""


def publish_folder(work: Path, folder: Path) -> None:
    """What ``afpub repo publish`` does."""
    with Hands() as hands:
        tree = hands.start_behind(FolderTree(folder=folder))
        entries = normalize(tree, where="bench", policy=Policy()).entries
        catalogs = split_tree(entries, CatalogBounds()).catalogs
        graft = Graft(at=RepoPath("/bench/tree"), tree=entries, catalogs=catalogs)
        moment = dt.datetime.now(tz=dt.UTC)
        publish(work / "repo", keys_folder=work / "keys", now=moment, grafts=(graft,), hands=hands)


def publish_small(work: Path, _: Path) -> None:
    """One small file."""
    tree = (
        Entry(path="", kind=Kind.DIRECTORY, mode=0o755),
        Entry(path="kernel.json", kind=Kind.FILE, mode=0o644, size_bytes=3, content=b"{}\n"),
    )
    moment = dt.datetime.now(tz=dt.UTC)
    graft = Graft(at=RepoPath(f"/kernels/k{time.time_ns()}"), tree=tree)
    publish(work / "repo", keys_folder=work / "keys", now=moment, grafts=(graft,))


def fill(work: Path, number: Path) -> None:
    """A tree of many entries beside everything else; not measured."""
    content = [b"%d\n" % index for index in range(50)]
    tree = [Entry(path="", kind=Kind.DIRECTORY, mode=0o755)]
    for folder in range(PART // 1000):
        tree.append(Entry(path=f"d{folder:04}", kind=Kind.DIRECTORY, mode=0o755))
        for index in range(999):
            data = content[index % len(content)]
            name = f"d{folder:04}/f{index:04}"
            tree.append(Entry(path=name, kind=Kind.FILE, mode=0o644, size_bytes=len(data), content=data))
    graft = Graft(at=RepoPath(f"/elsewhere/t{number}"), tree=tree, catalogs=frozenset({""}))
    publish(work / "repo", keys_folder=work / "keys", now=dt.datetime.now(tz=dt.UTC), grafts=(graft,))


CASES: dict[str, Callable[[Path, Path], None]] = {"publish": publish_folder, "small": publish_small, "fill": fill}

if __name__ == "__main__":
    CASES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
