"""Nested catalogs from one publish to the next."""

from __future__ import annotations

import cvmfs_repository as repository
import pytest
from cvmfs_repository import file, later

from publisher.cvmfs.preflight import nested_below
from publisher.names import RepoPath
from publisher.project.settings import CatalogBounds
from publisher.staging.catalogs import split_tree
from publisher.tree import Graft

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
