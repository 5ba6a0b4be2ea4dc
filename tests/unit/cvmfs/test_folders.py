"""Real folders with everything that a file system can hold come back as they were, or are refused by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

import cvmfs_repository as repository
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.cvmfs.check import check
from publisher.cvmfs.settings import Settings
from publisher.errors import DiskError, RepositoryError
from publisher.names import RepoPath
from publisher.tree import FolderTree, Graft, Kind

TINY = Settings(chunk_least=4096, chunk_average=8192, chunk_most=16384, nanoseconds=True)
_NAME = st.binary(min_size=1, max_size=255).filter(
    lambda name: name not in {b".", b"..", b".cvmfscatalog"} and not {0, 47} & set(name)
)
_TARGET = st.one_of(
    st.binary(min_size=1, max_size=1000).filter(lambda target: 0 not in target),
    st.sampled_from([b"$(HOME)/x", b"$(A:-/etc/passwd)", b"..", b"/", b"t" * 4095]),
)
_SIZES = st.sampled_from([0, 1, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 40_000])
_WHEN_NS = st.one_of(
    st.integers(-(2**31) * 10**9, 2**33 * 10**9),
    st.sampled_from([-1, 0, 999_999_999, -(10**9), 2**31 * 10**9 - 1, 2**31 * 10**9, 2**32 * 10**9]),
)


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    return repository.make(tmp_path_factory.mktemp("folders") / "repo", TINY)


class _Maker:
    """Makes entries in a folder as an example says."""

    def __init__(self, top: Path, data) -> None:
        self._data = data
        self.folders = [os.fsencode(top)]
        self.files: list[bytes] = []

    def make(self, name: bytes) -> None:
        path = self._data.draw(st.sampled_from(self.folders)) + b"/" + name
        ways = (self.file, self.file, self.folder, self.symlink, self.hard_link, self.fifo, self.socket, self.sparse)
        with contextlib.suppress(FileExistsError):
            self._data.draw(st.sampled_from(ways))(path)
            when = self._data.draw(_WHEN_NS)
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                os.chmod(path, self._data.draw(st.integers(0o400, 0o7777)) | 0o700)  # noqa: PTH101 - raw bytes
            os.utime(path, ns=(0, when), follow_symlinks=False)

    def file(self, path: bytes) -> None:
        size = self._data.draw(_SIZES)
        with open(path, "xb") as file:  # noqa: PTH123 - raw bytes
            file.write(self._data.draw(st.randoms(use_true_random=False)).randbytes(size))
        self.files.append(path)
        with contextlib.suppress(OSError):  # not every file system has them
            os.setxattr(path, b"user.any", self._data.draw(st.binary(max_size=255)))

    def sparse(self, path: bytes) -> None:
        with open(path, "xb") as file:  # noqa: PTH123 - raw bytes
            file.truncate(100_000)
            file.seek(50_000)
            file.write(b"in the middle")

    def folder(self, path: bytes) -> None:
        os.mkdir(path)  # noqa: PTH102 - raw bytes
        self.folders.append(path)

    def symlink(self, path: bytes) -> None:
        os.symlink(self._data.draw(_TARGET), path)  # noqa: PTH211 - raw bytes

    def hard_link(self, path: bytes) -> None:
        if self.files:
            os.link(self._data.draw(st.sampled_from(self.files)), path)
        else:
            self.file(path)

    @staticmethod
    def fifo(path: bytes) -> None:
        os.mkfifo(path)

    @staticmethod
    def socket(path: bytes) -> None:
        os.mknod(path, stat.S_IFSOCK | 0o600)


@given(names=st.lists(_NAME, min_size=1, max_size=10, unique=True), data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_folder_comes_back(repo, tmp_path_factory, names, data):
    top = tmp_path_factory.mktemp("any")
    maker = _Maker(top, data)
    for name in names:
        maker.make(name)
    entries = tuple(FolderTree(folder=top, xattrs=True))
    repo.publish(Graft(at=RepoPath("/any"), tree=entries))
    with repo.open() as reader:
        found = {stored.path[3:].lstrip("/"): stored for stored in reader.walk("any")}
        assert set(found) == {entry.path for entry in entries}
        for entry in entries:
            stored = found[entry.path]
            wanted = entry._replace(content=None, link_group=0)
            assert stored.entry._replace(path=entry.path, link_group=0) == wanted
            if entry.kind is Kind.FILE:
                assert b"".join(reader.read(stored)) == Path(entry.content).read_bytes()
            _same_as_on_disk(top, stored, entry.path)
    assert check(repo.folder, now=repository.NOW, data=False).findings == ()
    shutil.rmtree(top)


def _same_as_on_disk(top: Path, stored, path: str) -> None:
    info = (top / path).lstat()
    entry = stored.entry
    assert (entry.mode, entry.uid, entry.gid) == (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
    assert entry.mtime_s * 10**9 + entry.mtime_ns == info.st_mtime_ns
    if entry.kind is Kind.SYMLINK:
        assert os.fsencode(entry.target) == os.readlink(os.fsencode(top / path))


def test_a_deep_tree_comes_back(repo, tmp_path):
    deep = "/".join(["d"] * 400)
    os.makedirs(tmp_path / deep)  # noqa: PTH103 - pathlib would recurse too deep
    (tmp_path / deep / "f").write_bytes(b"deep")
    repo.publish(Graft(at=RepoPath("/deep"), tree=tuple(FolderTree(folder=tmp_path))))
    with repo.open() as reader:
        assert b"".join(reader.read(f"deep/{deep}/f")) == b"deep"
        assert sum(1 for _ in reader.walk("deep")) == 402


def test_paths_that_the_system_cannot_open_are_refused_by_name(tmp_path):
    """Made step by step; longer than any call takes."""
    name = "n" * 255
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(17):
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    with pytest.raises(DiskError) as caught:
        list(FolderTree(folder=tmp_path))
    assert caught.value.message.startswith(f"cannot read {tmp_path}/{name}/")
    assert caught.value.message.endswith(": File name too long")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("user.big", bytes(256), "the extended attribute 'user.big' has 256 bytes; CVMFS holds 255"),
        ("user.big", bytes(3000), "the extended attribute 'user.big' has 3000 bytes; CVMFS holds 255"),
    ],
)
def test_attributes_that_do_not_fit_are_refused_by_name(repo, tmp_path, name, value, reason):
    path = tmp_path / "f"
    path.write_bytes(b"")
    try:
        os.setxattr(path, name, value)
    except OSError as exc:
        pytest.skip(f"the file system of {tmp_path} holds no such attribute: {exc.strerror}")
    with pytest.raises(RepositoryError) as caught:
        repo.publish(Graft(at=RepoPath("/x"), tree=tuple(FolderTree(folder=tmp_path, xattrs=True))))
    assert caught.value.message == f"/x/f: {reason}"


def test_devices_come_back(repo, tmp_path, require_root):
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 7))
    entries = tuple(FolderTree(folder=tmp_path))
    repo.publish(Graft(at=RepoPath("/dev"), tree=entries))
    with repo.open() as reader:
        found = [reader.lookup(f"dev/{name}").entry for name in ("disk", "null")]
    assert [(entry.kind, entry.rdev) for entry in found] == [
        (Kind.BLOCK, os.makedev(259, 7)),
        (Kind.CHAR, os.makedev(1, 3)),
    ]
