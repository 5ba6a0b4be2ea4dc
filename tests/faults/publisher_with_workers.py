"""Publishes a folder with two workers, and says who is at work when they are. Run as: REPOSITORY KEYS FOLDER."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import cvmfs_repository as repository

from publisher.cvmfs import crew
from publisher.cvmfs.publish import publish
from publisher.names import RepoPath
from publisher.tree import FolderTree, Graft


def tell(state) -> None:
    if state.bytes_done:
        task = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        print(os.getpid(), task, flush=True)  # noqa: T201 - the answer of this program
        time.sleep(60)


if __name__ == "__main__":
    crew._ALONE_FILES = 0
    publish(
        Path(sys.argv[1]),
        keys_folder=Path(sys.argv[2]),
        now=repository.later(1),
        grafts=(Graft(at=RepoPath("/sw/tree"), tree=FolderTree(folder=Path(sys.argv[3]))),),
        jobs=2,
        progress=tell,
    )
