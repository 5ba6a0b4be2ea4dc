"""Many random publishes in a row: no tool finds a problem, and the client shows what was published, byte for byte."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import cvmfs_repository as repository
import pytest
from compat.client import compare, mounted
from cvmfs_repository import Repo, tree

from publisher import tools
from publisher.cvmfs.check import check
from publisher.cvmfs.gc import collect_garbage
from publisher.cvmfs.serve import serving
from publisher.cvmfs.signing import resign_whitelist
from publisher.names import RepoPath, TagName
from publisher.tree import Entry, Graft, Kind

PUBLISHES = 50
SEEN_EVERY = 10
"""The client looks at each tenth revision."""
NAMES = ("a", "b", "lib", "näme", "x\udcff", "with space", "z" * 255)
Model = dict[str, Entry]
"""Everything below one path, by paths relative to it."""


class Changes:
    """What somebody might do to a tree between two publishes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def tree(self, former: Model) -> Model:
        found = dict(former)
        for _ in range(self.random.randint(1, 12)):
            self.random.choice((self.add, self.add, self.add, self.change, self.retype, self.remove, self.rename))(
                found
            )
        return {entry.path: entry for entry in tree(*found.values())}

    def add(self, found: Model) -> None:
        path = self._new_path(found)
        if path not in found:
            found[path] = self._entry(path)

    def change(self, found: Model) -> None:
        path = self._any(found)
        if path and found[path].kind is not Kind.DIRECTORY:
            found[path] = self._entry(path, found[path].kind)
        elif path:
            found[path] = found[path]._replace(mode=self.random.choice((0o755, 0o700, 0o1777)), mtime_s=5)

    def retype(self, found: Model) -> None:
        path = self._any(found)
        if path:
            self._drop(found, path)
            found[path] = self._entry(path)

    def remove(self, found: Model) -> None:
        self._drop(found, self._any(found))

    def rename(self, found: Model) -> None:
        old, new = self._any(found), self._new_path(found)
        if old and new not in found and not f"{new}/".startswith(f"{old}/"):
            for path in [path for path in found if f"{path}/".startswith(f"{old}/")]:
                entry = found.pop(path)
                found[new + path[len(old) :]] = entry._replace(path=new + path[len(old) :])

    def catalogs(self, found: Model) -> frozenset[str]:
        folders = [path for path, entry in found.items() if entry.kind is Kind.DIRECTORY]
        return frozenset(path for path in folders if self.random.random() < 0.3)

    def _any(self, found: Model) -> str:
        return self.random.choice(sorted(path for path in found if path) or [""])

    def _new_path(self, found: Model) -> str:
        folders = sorted(path for path, entry in found.items() if entry.kind is Kind.DIRECTORY)
        folder = self.random.choice(folders or [""])
        return f"{folder}/{self.random.choice(NAMES)}".lstrip("/")

    @staticmethod
    def _drop(found: Model, gone: str) -> None:
        for path in [path for path in found if gone and f"{path}/".startswith(f"{gone}/")]:
            del found[path]

    def _entry(self, path: str, kind: Kind | None = None) -> Entry:
        kind = kind or self.random.choice((Kind.FILE, Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO))
        common = {"path": path, "kind": kind, "mtime_s": self.random.randint(-(10**9), 5 * 10**9)}
        if kind is Kind.FILE:
            size = self.random.choice((0, 1, 100, 65536, 65537, 131072, 300_000))
            return Entry(mode=0o644, content=self.random.randbytes(size), size_bytes=size, **common)
        if kind is Kind.SYMLINK:
            target = self.random.choice(("../a", "/nowhere", "b\udcfe", "t" * 900))
            return Entry(mode=0o777, target=target, size_bytes=len(os.fsencode(target)), **common)
        return Entry(mode=0o755 if kind is Kind.DIRECTORY else 0o600, **common)


@pytest.mark.parametrize("seed", [20261125])
def test_nothing_is_ever_wrong(tmp_path, require_tool, require_root, seed):
    require_tool("cvmfs2")
    repo = repository.make(tmp_path / "repo", replace(repository.SMALL, nanoseconds=True))
    now = repository.datetime.now(repository.UTC)
    resign_whitelist(repo.folder, keys_folder=repo.keys, now=now)
    changes = Changes(seed)
    models: dict[str, Model] = {}
    key = repo.keys / f"{repository.FQRN}.pub"
    for number in range(PUBLISHES):
        moment = now + timedelta(seconds=number)
        one_publish(repo, changes, models, number, moment)
        if number % 7 == 6:
            collect_garbage(repo.folder, keys_folder=repo.keys, now=moment, grace=timedelta(0))
        satisfied(repo, require_tool("cvmfs_swissknife"), tmp_path / "work", key.read_bytes(), moment)
        if number % SEEN_EVERY == SEEN_EVERY - 1:
            seen(repo, models, key, tmp_path / f"client-{number}")


def seen(repo: Repo, models: dict[str, Model], key: Path, work: Path) -> None:
    """A client that is mounted anew: the kernel may not know a path that has become something else."""
    work.mkdir()
    name = repository.FQRN
    with (
        serving({name: repo.folder}) as url,
        mounted(name, f"{url}/cvmfs/@fqrn@", public_key=key, work=work) as top,
    ):
        for place, model in models.items():
            compare(top / place, model.values())


def one_publish(repo: Repo, changes: Changes, models: dict[str, Model], number: int, moment) -> None:
    """Some places changed, some removed, some with other catalogs only."""
    places = changes.random.sample(("one", "two", "deep/er/three", "deep/four"), changes.random.randint(1, 3))
    gone = [place for place in places if place in models and changes.random.random() < 0.15]
    grafts = []
    for place in places:
        if place in gone:
            del models[place]
        else:
            models[place] = changes.tree(models.get(place, {}))
            entries = tuple(models[place].values())
            grafts.append(Graft(at=RepoPath(f"/{place}"), tree=entries, catalogs=changes.catalogs(models[place])))
    repo.publish(
        *grafts,
        removals=tuple(RepoPath(f"/{place}") for place in gone),
        tag=TagName(f"t{number}") if number % 5 == 0 else None,
        at=moment,
    )


def satisfied(repo: Repo, program: Path, work: Path, key: bytes, moment) -> None:
    work.mkdir(exist_ok=True)
    done = tools.run([program, "check", "-c", "-r", repo.folder, "-t", work], check=False)
    assert done.ok and "no problems found" in done.tail, done.tail  # noqa: PT018 - the tail says which
    done = tools.run([program, "scrub", "-r", repo.folder / "data"], check=False)
    assert done.ok, done.tail
    assert check(repo.folder, public_key=key, now=moment, all_tags=True).findings == ()
