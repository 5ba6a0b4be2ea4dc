"""Rotates the key of copies of a repository and kills each rotation one step later than the one before.

Run as a program: FOLDER with ``repo`` and ``keys``; prints one JSON line for each kill.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from cvmfs_repository import FQRN, Repo, later
from publisher_killer import change, describe, kill_after

from publisher.cvmfs import keys
from publisher.cvmfs.keys import KeyFiles
from publisher.cvmfs.rotation import finish_rotation, rotate_key
from publisher.cvmfs.signing import load_signer

keys._KEY_BITS = 1024  # a hundred keys are made here


def main(folder: Path) -> None:
    steps = 0
    while True:
        steps += 1
        copy = Repo(folder / f"copy-{steps}", folder / f"keys-{steps}")
        shutil.copytree(folder / "repo", copy.folder)
        shutil.copytree(folder / "keys", copy.keys)
        child = os.fork()
        if child == 0:
            kill_after(steps)
            rotate_key(copy.folder, keys_folder=copy.keys, now=later(1))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        after = describe(copy)
        rotated = rotate_key(copy.folder, keys_folder=copy.keys, now=later(2))
        finished = finish_rotation(copy.folder, keys_folder=copy.keys, now=later(3))
        load_signer(KeyFiles(folder=copy.keys, fqrn=FQRN))
        change(copy, "after")
        line = {
            "steps": steps,
            "killed": killed,
            "after": after,
            "right": rotated.new in finished.fingerprints and rotated.old not in finished.fingerprints,
            "end": describe(copy),
            "keys": sorted(path.name for path in copy.keys.iterdir()),
        }
        print(json.dumps(line), flush=True)  # noqa: T201 - the answer of this program
        shutil.rmtree(copy.folder)
        if not killed:
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
