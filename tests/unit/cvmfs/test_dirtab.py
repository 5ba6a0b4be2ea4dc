"""The rules in ``.cvmfsdirtab``, as the CVMFS server tools read them."""

from __future__ import annotations

import cvmfs_repository as repository
import cvmfs_vectors as vectors
import pytest
from cvmfs_repository import directory, file, graft, later

from publisher.cvmfs.check import check
from publisher.cvmfs.dirtab import parse_dirtab
from publisher.cvmfs.reader import open_repository
from publisher.errors import FormatError, RepositoryError

RULES = b"""
# packages
/sw/*/*
  /data/2?
! *.svn
!/sw/old/*
/odd\\*name
"""


def test_which_directories_begin_a_catalog():
    rules = parse_dirtab(RULES)
    yes = ["/sw/a/1", "/sw/.hidden/x", "/data/21", "/odd*name"]
    no = ["/sw/a", "/sw/a/1/b", "/sw/a/x.svn", "/sw/old/1", "/data/2", "/data/2/", "/oddxname", "/x/sw/a/1"]
    assert [path for path in yes if not rules.begins_catalog(path)] == []
    assert [path for path in no if rules.begins_catalog(path)] == []


def test_a_star_crosses_slashes_in_exclusions_only():
    rules = parse_dirtab(b"/a/*/*/*\n! /a/*/x\n")
    assert rules.begins_catalog("/a/b/c/y")
    assert not rules.begins_catalog("/a/b/c/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"sw/*", "line 1 of .cvmfsdirtab: 'sw/*' does not begin with a slash"),
        (b"\n/", "line 2 of .cvmfsdirtab: '/' names nothing"),
        (b"/a\\b", "line 1 of .cvmfsdirtab: '/a\\\\b' has a backslash before something that is not special"),
        (b"/a/*\n!/a/*/\n", ".cvmfsdirtab names /a/* as a catalog and as none"),
    ],
)
def test_wrong_rules_are_named(text, message):
    with pytest.raises(FormatError) as caught:
        parse_dirtab(text)
    assert caught.value.message == message


def test_the_rules_of_a_repository_count_for_every_publish(tmp_path):
    repo = repository.make(tmp_path / "repo")
    repo.publish(
        graft("/.cvmfsdirtab", file("", b"/sw/*\n/sw/*/lib\n")), graft("/sw/a", file("lib/f", b"1")), at=later(1)
    )
    repo.publish(graft("/sw/b", file("lib/f", b"1"), directory("bin")), at=later(2))
    with repo.open() as reader:
        mounts = {f"/{row.entry.path}" for row in reader.walk() if row.catalog}
    assert mounts == {"/sw/a", "/sw/a/lib", "/sw/b", "/sw/b/lib"}
    assert check(repo.folder, now=repository.NOW).findings == ()


def test_the_rules_mean_what_they_mean_to_the_cvmfs_tools(tmp_path):
    """The vector was published by ``cvmfs_server``; the other catalogs in it have a marker of their own."""
    name = "sha1.afpub.example"
    with open_repository(
        vectors.extract(name, tmp_path), public_key=vectors.public_key(name), now=vectors.NOW
    ) as reader:
        rules = parse_dirtab(b"".join(reader.read("/.cvmfsdirtab")))
        folders = {f"/{row.path}": row.catalog for row in reader.walk() if row.entry.kind == "dir" and row.path}
    ruled = {path for path in folders if rules.begins_catalog(path)}
    assert ruled == {path for path, catalog in folders.items() if catalog and path.startswith("/sw")}
    assert {"/sw", "/sw/alpha", "/sw/gamma"} == ruled
    assert any(path.startswith("/sw/") and path.count("/") == 2 for path in folders.keys() - ruled), "one is excluded"


def test_below_the_root_it_is_a_file_like_any_other(tmp_path):
    repo = repository.make(tmp_path / "repo")
    repo.publish(graft("/sw", file(".cvmfsdirtab", b"/sw/*\n"), file("a/f", b"1")), at=later(1))
    with repo.open() as reader:
        assert [row for row in reader.walk() if row.catalog] == []


def test_wrong_rules_in_the_repository_stop_a_publish(tmp_path):
    repo = repository.make(tmp_path / "repo")
    with pytest.raises(FormatError, match=r"line 1 of \.cvmfsdirtab"):
        repo.publish(graft("/.cvmfsdirtab", file("", b"sw")), at=later(1))
    assert RepositoryError.exit_code == 7
