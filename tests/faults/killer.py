"""Does one kind of change to copies of a repository, and kills each attempt one step later than the one before.

Run as a program: OPERATION FOLDER, with ``repo`` and ``keys`` in the folder; prints one JSON line for each kill.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import cvmfs_repository as repository
from cvmfs_repository import FQRN, Repo, file, graft, later

from publisher.cvmfs import crew, disk, keys
from publisher.cvmfs.check import check
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.gc import collect_garbage
from publisher.cvmfs.repair import repair
from publisher.cvmfs.republish import republish
from publisher.cvmfs.rotation import finish_rotation, rotate_key
from publisher.cvmfs.signing import resign_whitelist
from publisher.cvmfs.source import FolderSource
from publisher.cvmfs.tags import add_tag, remove_tag
from publisher.errors import AfpubError
from publisher.names import RepoPath, TagName

CALLS = (
    *("write", "pwrite", "ftruncate", "truncate", "fsync", "fdatasync", "chmod", "fchmod", "utime"),
    *("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "symlink"),
)
"""Those of module ``os`` that change the disk."""
keys._KEY_BITS = 1024  # a hundred keys are made here


def publish(repo: Repo, tag: str = "killed", *, jobs: int = 1) -> None:
    """Content in several catalogs, a removal (unless it was made), a tag (unless it is there)."""
    with repo.open() as reader:
        there = reader.lookup("sw/two") is not None
        known = reader.history().tag(tag) is not None
    repo.publish(
        graft("/sw/new", *(file(f"d{n}/f", b"new %d" % n) for n in range(4)), catalogs=("", "d1")),
        graft("/sw/one", file("f", bytes(range(256)) * 2000), catalogs=("",)),
        removals=(RepoPath("/sw/two"),) if there else (),
        tag=None if known else TagName(tag),
        at=later(1),
        jobs=jobs,
    )


def workers(repo: Repo) -> None:
    """The same by several processes, which write while this one does."""
    crew._ALONE_FILES = 0
    publish(repo, "killed", jobs=2)


def collect(repo: Repo) -> None:
    """A collection that keeps nothing but the newest revision and those with a name."""
    collect_garbage(repo.folder, keys_folder=repo.keys, now=later(30), grace=timedelta(0))


def tag(repo: Repo) -> None:
    with repo.open() as reader:
        if reader.history().tag("new") is None:
            add_tag(repo.folder, TagName("new"), keys_folder=repo.keys, now=later(1), revision="good")


def untag(repo: Repo) -> None:
    with repo.open() as reader:
        if reader.history().tag("good") is not None:
            remove_tag(repo.folder, "good", keys_folder=repo.keys, now=later(1))


def again(repo: Repo) -> None:
    republish(repo.folder, 2, keys_folder=repo.keys, now=later(1))


def resign(repo: Repo) -> None:
    resign_whitelist(repo.folder, keys_folder=repo.keys, now=later(1), validity=timedelta(days=60))


def rotate(repo: Repo) -> None:
    rotate_key(repo.folder, keys_folder=repo.keys, now=later(1))


def finish(repo: Repo) -> None:
    if list(repo.keys.glob("*.old")):
        finish_rotation(repo.folder, keys_folder=repo.keys, now=later(2))


def mend(repo: Repo) -> None:
    mirror = FolderSource(Path(sys.argv[2]) / "repo")
    repair(repo.folder, keys_folder=repo.keys, now=later(1), mirror=mirror)


def create(repo: Repo) -> None:
    if not (repo.folder / ".cvmfspublished").exists():
        create_repository(
            repo.folder, FQRN, keys_folder=repo.keys, settings=repository.SMALL, now=repository.NOW, metainfo={}
        )


def nothing(_: Repo) -> None:
    pass


def damage(repo: Repo) -> None:
    """Every third object is gone or wrong, and so are permissions and the reflog."""
    for number, path in enumerate(sorted(repo.folder.glob("data/??/*"))):
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.write_bytes(b"damaged")
    (repo.folder / ".cvmfsreflog").unlink()


def gone(repo: Repo) -> None:
    shutil.rmtree(repo.folder)


OPERATIONS: dict[str, tuple[Callable[[Repo], None], Callable[[Repo], None]]] = {
    "publish": (nothing, publish),
    "workers": (nothing, workers),
    "collect": (nothing, collect),
    "tag": (nothing, tag),
    "untag": (nothing, untag),
    "republish": (nothing, again),
    "resign": (nothing, resign),
    "rotate": (nothing, rotate),
    "finish": (rotate, finish),
    "repair": (damage, mend),
    "create": (gone, create),
}
"""What is done before, and what is killed."""
STRIDE = {"workers": 9}
"""Where each attempt takes long, most steps are left out."""


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

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    library = ctypes.CDLL(None, use_errno=True)
    disk._LIBC = type("Library", (), {"syncfs": staticmethod(counted(library.syncfs))})


def describe(repo: Repo) -> dict[str, object]:
    """What a client sees, and what the check says."""
    if not repo.folder.exists():
        return {"root": "", "revision": 0, "tree": [], "errors": [], "warnings": []}
    with repo.open() as reader:
        tree = [
            [stored.path, str(stored.digest), b"".join(reader.read(stored)).hex()[:40] if stored.digest else ""]
            for stored in reader.walk()
        ]
        tags = sorted(row.name for row in reader.tags())
        found = {"root": str(reader.root_hash), "revision": reader.revision, "tree": tree, "tags": tags}
    key = (repo.keys / f"{FQRN}.pub").read_bytes()
    report = check(repo.folder, public_key=key, now=later(2), all_tags=True)
    found["errors"] = sorted({finding.message for finding in report.errors})
    found["warnings"] = sorted({finding.message for finding in report.findings} - set(found["errors"]))
    return found


def attempt(original: Repo, name: str, steps: int) -> dict[str, object]:
    before, change = OPERATIONS[name]
    copy = Repo(original.folder.with_name(f"copy-{steps}"), original.folder.with_name(f"keys-{steps}"))
    shutil.copytree(original.folder, copy.folder)
    shutil.copytree(original.keys, copy.keys)
    before(copy)
    child = os.fork()
    if child == 0:
        kill_after(steps)
        change(copy)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    line: dict[str, object] = {
        "steps": steps,
        "killed": os.WIFSIGNALED(status),
        "rc": os.waitstatus_to_exitcode(status),
    }
    try:
        line["after"] = describe(copy)
    except AfpubError as exc:
        line["after"] = {"refused": exc.message}
    if name not in {"create", "repair"}:
        publish(copy, "next")  # at once: nothing has to be repaired first
    change(copy)
    line["end"] = describe(copy)
    line["objects"] = sorted(str(path.relative_to(copy.folder)) for path in copy.folder.glob("data/??/*"))
    line["keys"] = sorted(path.name for path in copy.keys.iterdir())
    line["left"] = [str(path) for path in (copy.folder / "data" / "txn").iterdir()]
    line["left"] += [str(path) for place in (copy.folder, copy.keys) for path in place.rglob("*.new-*")]
    shutil.rmtree(copy.folder)
    shutil.rmtree(copy.keys)
    return line


def main(name: str, folder: Path) -> None:
    steps = 0
    killed = True
    while killed:
        steps += STRIDE.get(name, 1)
        line = attempt(Repo(folder / "repo", folder / "keys"), name, steps)
        killed = bool(line["killed"])
        print(json.dumps(line), flush=True)  # noqa: T201 - the answer of this program


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
