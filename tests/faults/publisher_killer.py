"""Publishes into copies of a repository and kills each publisher one step later than the one before.

Run as a program: FOLDER with ``repo`` and ``keys``; prints one JSON line for each kill.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cvmfs_repository as repository
from cvmfs_repository import Repo, file, graft, later

from publisher.cvmfs import disk
from publisher.cvmfs.check import check
from publisher.names import RepoPath, TagName


def change(repo: Repo, tag: str):
    """What is published: content in several catalogs, a removal (unless it was made), a tag."""
    with repo.open() as reader:
        there = reader.lookup("sw/two") is not None
    return repo.publish(
        graft("/sw/new", *(file(f"d{n}/f", b"new %d" % n) for n in range(4)), catalogs=("", "d1")),
        graft("/sw/one", file("f", bytes(range(256)) * 2000), catalogs=("",)),
        removals=(RepoPath("/sw/two"),) if there else (),
        tag=TagName(tag),
        at=later(1),
    )


def kill_after(steps: int) -> None:
    """From now on the process dies before its ``steps``-th call that changes the disk."""
    left = [steps]
    lock = threading.Lock()

    def counted(call):
        def wrapper(*args, **kwargs):
            with lock:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    for name in ("write", "replace", "fsync", "unlink", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))
    library = ctypes.CDLL(None, use_errno=True)
    disk._LIBC = type("Library", (), {"syncfs": staticmethod(counted(library.syncfs))})


def describe(repo: Repo) -> dict[str, object]:
    """What a client sees, and what the check says."""
    with repo.open() as reader:
        tree = [
            [stored.path, str(stored.digest), b"".join(reader.read(stored)).hex()[:40] if stored.digest else ""]
            for stored in reader.walk()
        ]
        found = {"root": str(reader.root_hash), "revision": reader.revision, "tree": tree}
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    report = check(repo.folder, public_key=key, now=later(2), all_tags=True)
    return found | {"errors": sorted({finding.message for finding in report.errors})}


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
            change(copy, "killed")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        after = describe(copy)
        again = change(copy, "killed")
        end = describe(copy)
        left = [str(path) for path in (copy.folder / "data" / "txn").iterdir()]
        left += [str(path) for path in copy.folder.glob(".*.new-*")]
        line = {"steps": steps, "killed": killed, "after": after, "changed": again.changed, "end": end, "left": left}
        print(json.dumps(line), flush=True)  # noqa: T201 - the answer of this program
        shutil.rmtree(copy.folder)
        if not killed:
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
