"""Any tree that a file system can hold comes back from a repository as it went in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import directory, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.cvmfs.check import check
from publisher.cvmfs.settings import Settings
from publisher.names import RepoPath
from publisher.tree import Entry, Graft, Kind

TINY = Settings(chunk_least=64, chunk_average=128, chunk_most=256, nanoseconds=True)
_NAME = st.binary(min_size=1, max_size=255).filter(lambda name: name not in {b".", b".."} and not {0, 47} & set(name))
_TARGET = st.binary(min_size=1, max_size=300).filter(lambda target: 0 not in target)
_ATTRIBUTE = st.binary(min_size=1, max_size=255).filter(lambda name: 0 not in name)
_ATTRIBUTES = st.dictionaries(_ATTRIBUTE, st.binary(max_size=255), max_size=3).map(
    lambda found: tuple((os.fsdecode(name), found[name]) for name in sorted(found))
)
_SIZES = st.sampled_from([edge + more for edge in (0, 64, 128, 256, 512) for more in (-1, 0, 1) if edge + more >= 0])
"""Around every place where a file may be cut."""
_COMMON = {
    "mode": st.integers(0, 0o7777),
    "uid": st.integers(0, 2**32 - 2),
    "gid": st.integers(0, 2**32 - 2),
    "mtime_s": st.integers(-(2**40), 2**40),
    "mtime_ns": st.integers(0, 999_999_999),
    "xattrs": _ATTRIBUTES,
}


@st.composite
def _entries(draw):
    """A tree with entries of every kind in up to four directories."""
    folders = [""] + [os.fsdecode(name) for name in draw(st.lists(_NAME, max_size=3, unique=True))]
    found = {name: directory(name)._replace(**_values(draw)) for name in folders}
    for name in draw(st.lists(_NAME, max_size=8, unique=True)):
        folder = draw(st.sampled_from(folders))
        path = f"{folder}/{os.fsdecode(name)}".lstrip("/")
        if path not in found and name != b".cvmfscatalog":
            found[path] = _entry(draw, path)
    return tree(*found.values()), frozenset(draw(st.sets(st.sampled_from(folders))))


def _values(draw):
    return {key: draw(strategy) for key, strategy in _COMMON.items()}


def _entry(draw, path):
    kind = draw(st.sampled_from(list(Kind)))
    more = {}
    if kind is Kind.FILE:
        size = draw(_SIZES)
        content = draw(st.binary(min_size=size, max_size=size) | st.just(bytes(size)) | st.binary(max_size=700))
        more = {"content": content, "size_bytes": len(content)}
    elif kind is Kind.SYMLINK:
        target = draw(_TARGET)
        more = {"target": os.fsdecode(target), "size_bytes": len(target)}
    elif kind in (Kind.CHAR, Kind.BLOCK):
        more = {"rdev": os.makedev(draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1)))}
    return Entry(path=path, kind=kind, **_values(draw), **more)


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    return repository.make(tmp_path_factory.mktemp("round-trip") / "repo", TINY)


@given(_entries())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_tree_comes_back(repo, case):
    entries, catalogs = case
    repo.publish(Graft(at=RepoPath("/t"), tree=entries, catalogs=catalogs))
    with repo.open() as reader:
        found = {stored.path[1:].lstrip("/"): stored for stored in reader.walk("t")}
        for entry in entries:
            stored = found[entry.path]
            assert stored.entry._replace(path=entry.path, content=entry.content) == entry
            if entry.kind is Kind.FILE:
                assert b"".join(reader.read(stored)) == entry.content
        assert {path for path, stored in found.items() if stored.catalog} == catalogs
        assert len(found) == len(entries) + len(catalogs)
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=repository.NOW).findings == ()


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "n", "n/m"]), st.binary(max_size=3)), max_size=6)
)
@settings(max_examples=15, deadline=None)
def test_any_order_of_changes_ends_in_the_same_tree(steps):
    """Publishing step by step gives what publishing the end at once gives, counters and all."""
    with tempfile.TemporaryDirectory() as folder:
        one = repository.make(Path(folder) / "one", TINY)
        end = {}
        for minutes, (name, catalog, content) in enumerate(steps):
            change = _graft(name, catalog, content)
            end[name] = change
            one.publish(change, at=repository.later(minutes))
        other = repository.make(Path(folder) / "other", TINY)
        if end:
            other.publish(*(end[name] for name in sorted(end)))
        assert _shape(one) == _shape(other)


def _graft(name, catalog, content):
    entry = Entry(path="n/m/f", kind=Kind.FILE, mode=0o644, content=content, size_bytes=len(content))
    return Graft(at=RepoPath(f"/sw/{name}"), tree=tree(entry), catalogs=frozenset({catalog}))


def _shape(repo):
    with repo.open() as reader:
        rows = [(each.path, each.nlink, each.digest, each.catalog is not None) for each in reader.walk()]
        return rows, {info.mount_path: info.statistics for info in reader.catalogs()}
