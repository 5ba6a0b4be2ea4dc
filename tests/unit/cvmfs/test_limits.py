"""What clients and servers would not take is said before anything is written."""

from __future__ import annotations

from dataclasses import replace

import cvmfs_repository as repository
import pytest
from cvmfs_repository import directory, file, graft, later, link

from publisher.cvmfs.adjust import change_settings
from publisher.cvmfs.limits import Limits, check_catalog_sizes, check_tree
from publisher.cvmfs.preflight import preflight
from publisher.errors import RepositoryError
from publisher.names import RepoPath
from publisher.report import Severity
from publisher.tree import Graft

LONG = "n" * 255
NAME = "bytes, more than 255: no program can ask for it"
PATH = "bytes too long to be opened as a whole (Linux takes 4095)"
TARGET = "bytes, more than 4095: nobody can follow it"


@pytest.fixture
def repo(tmp_path):
    return repository.make(tmp_path / "repo")


def found(findings):
    return [(item.check, item.severity, item.where, item.message) for item in findings]


def test_names_paths_and_targets_have_limits():
    entries = [
        file("ok/" + LONG),
        file("ünï" * 100),
        file(f"deep/{LONG}/{LONG}/end"),
        link("far", "t" * 4095),
        link("too-far", "t" * 4096),
    ]
    deep = f"/{LONG}" * 14
    assert found(check_tree(entries, deep, Limits(), mount_bytes=20)) == [
        ("name-length", "error", f"{deep}/{entries[1].path}", f"the name has 500 {NAME}"),
        ("path-length", "warning", f"{deep}/{entries[1].path}", f"the path is 10 {PATH}"),
        ("path-length", "warning", f"{deep}/{entries[2].path}", f"the path is 30 {PATH}"),
        ("link-target", "error", f"{deep}/too-far", f"the target of the link has 4096 {TARGET}"),
    ]


def test_big_files_are_warned_of_or_refused():
    big = [file("f", bytes(3 << 20))]
    (warned,) = check_tree(big, "/a", Limits(file_bytes=2 << 20))
    (refused,) = check_tree(big, "/a", Limits(file_bytes=2 << 20, enforce=True))
    assert (warned.severity, refused.severity) == (Severity.WARNING, Severity.ERROR)
    assert warned.message == refused.message == "the file has 3 MiB, more than 2 MiB"
    assert list(check_tree(big, "/a", Limits(file_bytes=0))) == []


def test_catalogs_one_in_the_other_cost_a_round_trip_each():
    mounts = {"/" + "/".join("abcdefghij"[:depth]): 5 for depth in range(1, 11)}
    assert found(check_catalog_sizes(mounts, Limits())) == [
        (
            "catalog-levels",
            "warning",
            "/a/b/c/d/e/f/g/h/i",
            "the catalog lies in 8 others, one in the other; clients fetch them one after the other",
        )
    ]


def test_what_a_publish_would_refuse_is_known_before(repo):
    change_settings(repo.folder, ["limit_root_entries=20", "limit_nested_entries=10"], algorithm="sha1")
    flat = graft("/flat", *(file(f"f{number}") for number in range(12)))
    nested = Graft(at=RepoPath("/n"), tree=flat.tree, catalogs=frozenset({""}))
    with repo.open() as reader:
        limits = Limits(root_entries=20, nested_entries=10)
        assert preflight(reader, [flat], [], limits).ok
        both = preflight(reader, [flat, replace(flat, at=RepoPath("/flat2")), nested], [], limits)
    assert [item.message for item in both.errors] == [
        "the catalog of / would have 28 entries, more than 20",
        "the catalog of /n would have 14 entries, more than 10",
    ]
    assert both.errors[0].hint == (
        "begin nested catalogs further down, or raise it: afpub repo settings limit_root_entries=NUMBER"
    )
    with pytest.raises(RepositoryError, match="the catalog of / would have 27 entries, more than 20"):
        repo.publish(flat, replace(flat, at=RepoPath("/flat2")), at=later(1))
    assert repo.publish(flat, at=later(1)).changed
    assert repo.publish(flat, at=later(2), removals=(RepoPath("/flat"),)).revision == 3


def test_what_is_replaced_makes_room(repo):
    trees = [graft(f"/{name}", *(file(f"f{number}") for number in range(6))) for name in "abc"]
    repo.publish(*trees, at=later(1))
    changed = [replace(tree, tree=(*tree.tree, file("g"))) for tree in trees]
    assert repo.publish(*changed, at=later(2), limits=Limits(root_entries=25)).changed
    with pytest.raises(RepositoryError, match="the catalog of / would have 26 entries, more than 25"):
        repo.publish(
            replace(changed[0], tree=(*changed[0].tree, file("h"))), at=later(3), limits=Limits(root_entries=25)
        )


@pytest.mark.parametrize("marker", [link("d/.cvmfscatalog", "x"), directory("d/.cvmfscatalog")])
def test_a_marker_must_be_a_file(repo, marker):
    with pytest.raises(RepositoryError) as caught:
        repo.publish(graft("/a", marker), at=later(1))
    assert caught.value.message == (
        f"cannot publish /a/d/.cvmfscatalog: a .cvmfscatalog must be a file, not a {marker.kind}"
    )


def test_folders_that_are_made_count_too(repo):
    tree = graft("/a/b/c", file("f"))
    assert repo.publish(tree, at=later(1), limits=Limits(root_entries=5)).changed
    with pytest.raises(RepositoryError, match="the catalog of / would have 9 entries, more than 8"):
        repo.publish(graft("/d/e", file("f")), graft("/d/g"), at=later(2), limits=Limits(root_entries=8))
