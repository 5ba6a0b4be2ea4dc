"""Collects garbage in copies of a repository and kills each collector one step later than the one before.

Run as a program: FOLDER with ``repo`` and ``keys``; prints one JSON line for each kill.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from cvmfs_repository import Repo, later
from publisher_killer import change, describe, kill_after

from publisher.cvmfs.gc import collect_garbage


def collect(repo: Repo):
    """A collection that keeps nothing but the newest revision and those with a name."""
    return collect_garbage(repo.folder, keys_folder=repo.keys, now=later(30), grace=timedelta(0))


def main(folder: Path) -> None:
    original = Repo(folder / "repo", folder / "keys")
    steps = 0
    while True:
        steps += 1
        copy = replace(original, folder=folder / f"copy-{steps}")
        shutil.copytree(original.folder, copy.folder)
        child = os.fork()
        if child == 0:
            kill_after(steps)
            collect(copy)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        after = describe(copy)
        collect(copy)
        collected = describe(copy)
        objects = sorted(str(path.relative_to(copy.folder)) for path in copy.folder.glob("data/??/*"))
        change(copy, "after")
        line = {
            "steps": steps,
            "killed": killed,
            "after": after,
            "collected": collected,
            "objects": objects,
            "end": describe(copy),
            "left": [str(path) for path in copy.folder.glob(".*.new-*")],
        }
        print(json.dumps(line), flush=True)  # noqa: T201 - the answer of this program
        shutil.rmtree(copy.folder)
        if not killed:
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
