"""Workers beside a publisher: what they write is what one process writes, and none outlives the publish."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import cvmfs_repository as repository
import pytest
from cvmfs_repository import Repo, file, graft, later

from publisher import tools
from publisher.cli.places import Place
from publisher.cvmfs import crew
from publisher.cvmfs.check import check
from publisher.errors import DiskError, RepositoryError, ToolError
from publisher.tree import FolderTree, Graft

HERE = Path(__file__).parent


@pytest.fixture
def repo(tmp_path, monkeypatch) -> Repo:
    monkeypatch.setattr(crew, "_ALONE_FILES", 0)
    return repository.make(tmp_path / "repo")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Small files, equal ones, and one that is cut."""
    place = tmp_path / "tree"
    for number in range(40):
        (place / f"d{number % 3}").mkdir(parents=True, exist_ok=True)
        (place / f"d{number % 3}" / f"f{number}").write_bytes(b"%d" % (number // 2) * number * 50)
    (place / "big").write_bytes(hashlib.shake_128(b"big").digest(1_000_000))
    (place / "link").symlink_to("big")
    (place / "d1" / "deep").mkdir()
    (place / "d1" / "deep" / "f").write_bytes(b"deep")
    return place


def tree_of(folder: Path) -> Graft:
    return replace(graft("/sw/tree", catalogs=("", "d0", "d1", "d1/deep")), tree=FolderTree(folder=folder))


def children() -> list[str]:
    """The programs that this process started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(") ")[2].split()[:2]
            words = (path.parent / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and "publisher.cvmfs.worker" in words:
            found.append(path.parent.name)
    return found


def clean(repo: Repo) -> None:
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=later(9), all_tags=True).findings == ()
    assert list((repo.folder / "data" / "txn").iterdir()) == []
    assert children() == []


def test_workers_write_what_one_process_writes(repo, folder, tmp_path):
    seen = []
    done = repo.publish(tree_of(folder), at=later(1), jobs=3, progress=lambda _: seen.append(len(children())))
    assert max(seen) == 3
    other = repository.make(tmp_path / "other")
    alone = other.publish(tree_of(folder), at=later(1), jobs=1)
    assert (done.root_hash, done.files, done.read_bytes) == (alone.root_hash, alone.files, alone.read_bytes)
    assert (done.objects_new, done.stored_bytes) == (alone.objects_new, alone.stored_bytes)
    names = [
        sorted(str(path.relative_to(each)) for path in each.glob("data/??/*")) for each in (repo.folder, other.folder)
    ]
    assert [name for name in names[0] if name[-1] not in "HX"] == [name for name in names[1] if name[-1] not in "HX"]
    clean(repo)
    again = repo.publish(tree_of(folder), at=later(2), jobs=3)
    assert (again.changed, again.objects_new) == (False, 0)
    clean(repo)


def test_a_file_that_goes_while_workers_read(repo, folder):
    entries = tuple(FolderTree(folder=folder))
    (folder / "d1" / "f1").unlink()
    with pytest.raises(DiskError) as caught:
        repo.publish(Graft(at=tree_of(folder).at, tree=entries), at=later(1), jobs=2)
    assert caught.value.message == f"cannot read {folder}/d1/f1: No such file or directory"
    clean(repo)


def test_a_file_that_changes_while_workers_read(repo, folder):
    entries = tuple(FolderTree(folder=folder))
    with (folder / "d2" / "f2").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(DiskError) as caught:
        repo.publish(Graft(at=tree_of(folder).at, tree=entries), at=later(1), jobs=2)
    assert caught.value.message == f"{folder}/d2/f2 changed while it was published"
    assert caught.value.hint == "let nothing write to the folder meanwhile, and run it again"
    clean(repo)


def test_a_worker_that_is_killed(repo, folder):
    def kill(state) -> None:
        for child in children():
            os.kill(int(child), signal.SIGKILL)

    before = (repo.folder / ".cvmfspublished").read_bytes()
    with pytest.raises(ToolError) as caught:
        repo.publish(tree_of(folder), at=later(1), jobs=2, progress=kill)
    assert caught.value.message == "a worker that packs objects was ended by SIGKILL"
    assert caught.value.hint == "run it again"
    assert (repo.folder / ".cvmfspublished").read_bytes() == before
    clean(repo)
    repo.publish(tree_of(folder), at=later(2), jobs=2)
    clean(repo)


def test_a_python_without_afpub(repo, folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ToolError) as caught:
        repo.publish(tree_of(folder), at=later(1), jobs=2)
    assert caught.value.message == "a worker that packs objects failed with exit code 1"
    clean(repo)


def test_a_tree_that_is_refused_while_workers_write(repo, folder):
    root, *rest = FolderTree(folder=folder)
    tree = (root, file("..", b"hostile"), *rest)
    with pytest.raises(RepositoryError) as caught:
        repo.publish(Graft(at=tree_of(folder).at, tree=tree), at=later(1), jobs=2)
    assert caught.value.message == "cannot publish '/sw/tree/..': the name is '..'"
    clean(repo)


def test_interrupted(repo, folder):
    def interrupt(state) -> None:
        if state.files_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repo.publish(tree_of(folder), at=later(1), jobs=2, progress=interrupt)
    clean(repo)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_publisher(repo, folder, number):
    path = os.pathsep.join((str(HERE.parent), str(HERE.parent.parent)))
    argv = [sys.executable, HERE / "publisher_with_workers.py", repo.folder, repo.keys, folder]
    workers = []

    def stop(line: str) -> None:
        publisher, *rest = map(int, line.split())
        workers.extend(rest)
        os.kill(publisher, number)

    done = tools.run(argv, env={**os.environ, "PYTHONPATH": path}, on_line=stop, check=False, timeout_s=60)
    assert done.returncode == -number
    assert len(workers) == 2
    end = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.01)
    with repo.open() as reader:
        assert reader.lookup("sw") is None
    repo.publish(tree_of(folder), at=later(2), jobs=2)
    clean(repo)


def test_pipes_that_hold_less_than_a_message(repo, folder, monkeypatch):
    """As the system gives them to whoever has very many."""
    partner = tools.partner

    @contextlib.contextmanager
    def narrow(*words, **more):
        with partner(*words, **more) as found:
            for descriptor in (found.stdin, found.stdout):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4096)
            yield found

    monkeypatch.setattr(tools, "partner", narrow)
    for number in range(400):
        (folder / ("n" * 200 + f"{number}")).write_bytes(b"%d" % number)
    repo.publish(tree_of(folder), at=later(1), jobs=2)
    clean(repo)


def test_in_memory_contents_go_to_workers_too(repo):
    data = {f"f{number}": hashlib.shake_128(b"%d" % number).digest(number * 3000) for number in range(100)}
    data["big"] = hashlib.shake_128(b"in pieces").digest(1_500_000)
    repo.publish(graft("/a", *(file(name, content) for name, content in data.items())), at=later(1), jobs=2)
    with repo.open() as reader:
        for name, content in data.items():
            assert b"".join(reader.read(f"a/{name}")) == content
    clean(repo)


def test_hands_that_start_while_the_tree_is_looked_at(repo, folder, tmp_path):
    with crew.Hands(3) as hands:
        tree = list(hands.start_behind(FolderTree(folder=folder)))
        assert len(children()) == len(hands.processes) == 3
        hands.start()
        assert len(children()) == 3
        with pytest.raises(RepositoryError, match="cannot begin a nested catalog"):
            repo.publish(graft("/sw/tree", *tree[1:], catalogs=("nowhere",)), at=later(1), hands=hands)
        assert len(children()) == 3
        (folder / "d0" / "f0").unlink()
        with pytest.raises(DiskError, match="f0"):
            repo.publish(replace(tree_of(folder), tree=tree), at=later(1), hands=hands)
        clean(repo)
        (folder / "d0" / "f0").write_bytes(b"")
        os.utime(folder / "d0", (5, 5))  # the tree is as it was looked at
        assert repo.publish(replace(tree_of(folder), tree=tree), at=later(1), hands=hands).changed
    clean(repo)
    other = repository.make(tmp_path / "other")
    other.publish(replace(tree_of(folder), tree=tree), at=later(1), jobs=1)
    with repo.open() as one, other.open() as two:
        assert one.root_hash == two.root_hash


def test_hands_that_are_not_needed(folder, monkeypatch):
    monkeypatch.undo()
    with crew.Hands(2) as hands:
        list(hands.start_behind(FolderTree(folder=folder)))
        assert children() == []
    with crew.Hands(1) as hands:
        hands.start()
        assert children() == []


@pytest.mark.parametrize(("jobs", "expected"), [(1, 0), (3, 3)])
def test_hands_of_a_command_are_as_many_as_the_repository_says(tmp_path, folder, jobs, expected):
    repo = repository.make(tmp_path / "repo", replace(repository.SMALL, jobs=jobs))
    place = Place(location=str(repo.folder), keys=repo.keys)
    with mock.patch.object(crew, "_ALONE_FILES", 0), place.hands() as hands:
        assert list(hands.start_behind(FolderTree(folder=folder))) == list(FolderTree(folder=folder))
        assert len(children()) == expected
    assert children() == []
