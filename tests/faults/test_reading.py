"""What cannot be read, or changes while it is read: a clear error, the repository as it was, no debris that stays."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import FQRN, Repo, file, graft, later

from publisher import tools
from publisher.cvmfs.check import check
from publisher.cvmfs.digest import ObjectKind
from publisher.cvmfs.gc import collect_garbage
from publisher.errors import AfpubError, DiskError, RepositoryError, TrustError
from publisher.names import RepoPath
from publisher.tree import FolderTree, Graft


@pytest.fixture
def repo(tmp_path) -> Repo:
    made = repository.make(tmp_path / "repo")
    made.publish(graft("/sw", file("f", b"old"), file("n/f", b"nested"), catalogs=("", "n")))
    return made


@pytest.fixture
def folder(tmp_path) -> Path:
    """A package: some small files, and a big one that is read in pieces."""
    place = tmp_path / "package"
    (place / "d").mkdir(parents=True)
    for number in range(5):
        (place / f"d/f{number}").write_bytes(b"content %d" % number)
    (place / "big").write_bytes(os.urandom(600_000))
    return place


def objects(repo: Repo) -> set[Path]:
    return set(repo.folder.glob("data/??/*"))


def unharmed(repo: Repo, before: bytes, there: set[Path]) -> None:
    """The revision is the old one, and a collection removes what was stored for the one that did not come."""
    assert (repo.folder / ".cvmfspublished").read_bytes() == before
    key = (repo.keys / f"{FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=later(9), all_tags=True).findings == ()
    assert list((repo.folder / "data/txn").iterdir()) == []
    collect_garbage(repo.folder, keys_folder=repo.keys, now=later(2), grace=timedelta(days=1))
    assert objects(repo) == there


def replaced(path: Path, make) -> None:
    path.unlink()
    make(path)


WAYS = {
    "grows": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "shrinks": lambda path: os.truncate(path, 3),
    "is emptied": lambda path: os.truncate(path, 0),
    "vanishes": Path.unlink,
    "becomes a link": lambda path: replaced(path, lambda place: place.symlink_to("/etc/passwd")),
    "becomes a folder": lambda path: replaced(path, Path.mkdir),
    "becomes a pipe": lambda path: replaced(path, os.mkfifo),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["d/f3", "big"])
def test_a_file_that_is_another_one_when_it_is_read(repo, folder, name, way):
    before, there = (repo.folder / ".cvmfspublished").read_bytes(), objects(repo)
    entries = tuple(FolderTree(folder=folder))
    WAYS[way](folder / name)
    with pytest.raises(DiskError) as caught:
        repo.publish(Graft(at=RepoPath("/new"), tree=entries), at=later(1))
    assert f"{folder / name}" in caught.value.message
    unharmed(repo, before, there)


def test_a_file_that_cannot_be_read(repo):
    """The kernel refuses to say how fast the loopback interface is, whoever asks."""
    path = Path("/sys/class/net/lo/speed")
    if not path.exists():
        pytest.skip(f"this system has no {path}")
    before, there = (repo.folder / ".cvmfspublished").read_bytes(), objects(repo)
    with pytest.raises(DiskError) as caught:
        repo.publish(graft("/new", file("a", b"1"), file("broken", path)), at=later(1))
    assert caught.value.message == f"cannot read {path}: Invalid argument"
    unharmed(repo, before, there)


@pytest.fixture
def broken(require_tool, require_root):
    """A function after which each read of a file is an input/output error, as of a broken sector.

    The kernel gives it for the page at address 0 of a process.
    """
    mount, umount = require_tool("mount"), require_tool("umount")
    done: list[Path] = []

    def break_it(path: Path) -> None:
        made = tools.run([mount, "--bind", f"/proc/{os.getpid()}/mem", path], check=False)
        if not made.ok:
            pytest.skip(f"nothing can be mounted here: {made.tail}")
        done.append(path)

    yield break_it
    for path in done:
        tools.run([umount, "-l", path])


def part(repo: Repo, what: str) -> Path:
    with repo.open() as reader:
        return (
            repo.folder
            / {
                "root catalog": lambda: reader.root_hash.object_name(ObjectKind.CATALOG),
                "nested catalog": lambda: reader.lookup("sw").catalog.object_name(ObjectKind.CATALOG),
                "tag database": lambda: reader.manifest.history.object_name(ObjectKind.HISTORY),
                "reflog": lambda: ".cvmfsreflog",
                "manifest": lambda: ".cvmfspublished",
                "whitelist": lambda: ".cvmfswhitelist",
            }[what]()
        )


@pytest.mark.parametrize("what", ["root catalog", "nested catalog", "tag database", "reflog", "manifest", "whitelist"])
def test_a_repository_whose_disk_cannot_be_read(repo, broken, what):
    path = part(repo, what)
    before = objects(repo)
    broken(path)
    with pytest.raises((RepositoryError, TrustError, DiskError)) as caught:
        repo.publish(graft("/sw/more", file("f", b"new")), at=later(1))
    assert path.name in caught.value.message
    assert "Input/output error" in caught.value.message
    with pytest.raises(AfpubError):
        collect_garbage(repo.folder, keys_folder=repo.keys, now=later(9), grace=timedelta(0))
    assert before <= objects(repo)
    report = check(repo.folder, public_key=(repo.keys / f"{FQRN}.pub").read_bytes(), now=later(9))
    assert any("Input/output error" in finding.message for finding in report.errors)


@pytest.mark.parametrize("what", ["root catalog", "nested catalog", "tag database"])
def test_a_damaged_object_that_a_publish_needs(repo, what):
    path = part(repo, what)
    good, before = path.read_bytes(), (repo.folder / ".cvmfspublished").read_bytes()
    path.write_bytes(good[:-1] + b"\0")
    with pytest.raises(TrustError) as caught:
        repo.publish(graft("/sw/more", file("f", b"new")), at=later(1))
    name = path.relative_to(repo.folder)
    assert caught.value.message.startswith(f"the object {name} of {repo.folder} is damaged: its digest is ")
    assert caught.value.hint == "afpub repo fsck finds all damage; --repair with --mirror fetches what is lost"
    assert (repo.folder / ".cvmfspublished").read_bytes() == before
    path.write_bytes(good)
    repo.publish(graft("/sw/more", file("f", b"new")), at=later(1))
