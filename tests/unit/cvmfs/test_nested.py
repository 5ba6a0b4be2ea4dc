"""Nested catalogs from one publish to the next."""

from __future__ import annotations

import random

import cvmfs_repository as repository
import pytest
from cvmfs_repository import file, later
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.cvmfs.catalog_writer import encode_catalog
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.drafts import Drafts
from publisher.cvmfs.finisher import Written
from publisher.cvmfs.preflight import nested_below
from publisher.cvmfs.rows import Content
from publisher.names import RepoPath
from publisher.project.settings import CatalogBounds
from publisher.staging.catalogs import split_tree
from publisher.tree import Graft, Kind

BOUNDS = CatalogBounds(min_entries=10, max_entries=60)
AT = RepoPath("/sw/tool")


def files(folder, count, content=b"x"):
    return [file(f"{folder}/f{number}", content) for number in range(count)]


def first():
    return [
        *files("bin", 15),
        *files("share/doc", 12),
        *files("include", 20),
        *files("lib/python3.11/site-packages/a", 14),
        *files("lib/python3.11/site-packages/b", 30),
    ]


@pytest.fixture
def repo(tmp_path):
    return repository.make(tmp_path / "repo")


def publish(repo, entries, minutes):
    """Publishes as ``afpub repo publish`` does."""
    tree = repository.tree(*entries)
    with repo.open() as reader:
        before = nested_below(reader, AT)
    catalogs = split_tree(tree, BOUNDS, previous=before).catalogs
    repo.publish(Graft(at=AT, tree=tree, catalogs=catalogs), at=later(minutes))
    with repo.open() as reader:
        return catalogs, {info.mount_path: info.digest for info in reader.catalogs()}


def test_unchanged_subtrees_keep_their_catalog_bit_for_bit(repo):
    cuts, before = publish(repo, first(), 1)
    site = "lib/python3.11/site-packages"
    assert cuts == {"", "share/doc", "include", f"{site}/a", f"{site}/b"}
    changed = [entry for entry in first() if not entry.path.startswith("include/f1")]  # 11 of 20 are gone
    changed += [*files("share/doc/new", 3), *files(f"{site}/c", 5)]
    cuts, after = publish(repo, changed, 2)
    assert cuts == {"", "share/doc", "include", f"{site}/a", f"{site}/b"}, "9 files and the row of the folder are left"
    same = {path for path, digest in before.items() if after[path] == digest}
    assert same == {f"{AT}/{site}/a", f"{AT}/{site}/b"}


def test_a_boundary_goes_when_too_little_is_left_of_it(repo):
    publish(repo, first(), 1)
    cuts, _ = publish(repo, [entry for entry in first() if not entry.path.startswith("share/doc/f1")], 2)
    assert "share/doc" in cuts
    cuts, _ = publish(repo, [entry for entry in first() if not entry.path.startswith("share/doc/")], 3)
    assert "share/doc" not in cuts


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/sw", {"tool", "tool/include", "tool/share/doc"}),
        ("/sw/tool", {"", "include", "share/doc"}),
        ("/sw/tool/share", {"doc"}),
        ("/sw/tool/bin", set()),
        ("/sw/too", set()),
        ("/nothing/here", set()),
        ("", {"sw/tool", "sw/tool/include", "sw/tool/share/doc"}),
    ],
)
def test_which_catalogs_begin_below_a_path(repo, path, found):
    publish(repo, [*files("bin", 15), *files("share/doc", 12), *files("include", 20)], 1)
    with repo.open() as reader:
        assert nested_below(reader, RepoPath(path)) == found


class Store:
    """Stores catalogs nowhere; tells what became of one at once, or late and in any order."""

    def __init__(self, choose=None):
        self.choose = choose
        self.waiting = []
        self.order = []

    def write(self, contents, done):
        self.waiting.append((contents, done))
        if self.choose is None:
            self.wait()

    def wait(self):
        assert self.waiting, "whoever waits here waits for ever"
        contents, done = self.waiting.pop(self.choose(len(self.waiting)) if self.choose else 0)
        data = encode_catalog(contents)
        self.order.append(contents.properties.get("root_prefix", ""))
        done(Written(Algorithm.SHA1.digest(data), len(data)))


DEEP = repository.tree(*(file(f"{folder}/f") for folder in ("x", "x/y", "x/y/z", "x/w", "v", "v/u", "t")))
FLAT = repository.tree(file("f"), file("g"), file("h"))


def stored(tree, store, answers):
    """The entries as they get stored; ``answers`` catalogs are told of meanwhile."""
    content = Content(size_bytes=1, algorithm=Algorithm.SHA1, compression=Compression.ZLIB, digest=bytes(20))
    for number, entry in enumerate(tree):
        if number in answers and store.waiting:
            store.wait()
        yield entry, content if entry.kind is Kind.FILE else None


def root_digest(repo, store, answers=frozenset()):
    marker = Content(size_bytes=0, algorithm=Algorithm.SHA1, compression=Compression.ZLIB, digest=bytes(20))
    with repo.open() as reader:
        drafts = Drafts(reader, store, now_s=1_800_000_000, nanoseconds=False)
        deep = frozenset({"", "x", "x/y", "x/y/z", "v", "v/u"})
        drafts.graft(RepoPath("/a"), stored(DEEP, store, answers), deep, marker, last=True)
        drafts.graft(RepoPath("/b"), stored(FLAT, store, range(len(FLAT))), frozenset(), marker, last=True)
        return drafts.write(ttl_s=240).root.digest


@given(seed=st.integers(0, 1 << 32), answers=st.frozensets(st.integers(0, len(DEEP) - 1)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_catalogs_may_be_stored_late_and_in_any_order(repo, seed, answers):
    at_once, late = Store(), Store(random.Random(seed).randrange)
    assert root_digest(repo, late, answers) == root_digest(repo, at_once)
    assert sorted(late.order) == sorted(at_once.order)
    for number, mount in enumerate(late.order):
        assert not any(each.startswith(f"{mount}/") for each in late.order[number:]), "each behind those in it"


def test_the_last_catalogs_may_be_told_of_while_something_else_is_stored(repo):
    late = Store(lambda _: 0)
    assert root_digest(repo, late, range(len(DEEP))) == root_digest(repo, Store())
