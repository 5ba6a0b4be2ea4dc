"""Holds a repository until its input ends. Run as a program: REPOSITORY KEYS."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cvmfs_repository as repository

from publisher.cvmfs.publish import session

if __name__ == "__main__":
    with session(Path(sys.argv[1]), keys_folder=Path(sys.argv[2]), now=repository.NOW):
        print("held", flush=True)  # noqa: T201 - the answer of this program
        time.sleep(float(sys.argv[3]))
