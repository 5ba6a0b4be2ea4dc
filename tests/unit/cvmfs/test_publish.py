"""Writing repositories: what goes in comes out, and nothing else changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import cvmfs_repository as repository
import cvmfs_vectors as vectors
import pytest
from cvmfs_repository import directory, file, graft, later, link, tree

from publisher.cvmfs.check import check
from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.drafts import Drafts
from publisher.cvmfs.limits import Limits
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.settings import Settings
from publisher.cvmfs.signing import resign_whitelist
from publisher.cvmfs.tags import add_tag, remove_tag
from publisher.errors import (
    AlreadyPublishedError,
    DiskError,
    NotFoundError,
    RepositoryError,
    StaleBaseError,
    TrustError,
)
from publisher.names import RepoPath, TagName
from publisher.tree import Entry, FolderTree, Graft, Kind


@pytest.fixture
def repo(tmp_path):
    return repository.make(tmp_path / "repo")


def clean(repo, **more) -> None:
    """The repository has no fault at all."""
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=more.pop("now", later(9)), all_tags=True, **more).findings == ()


def names(repo, path="") -> list[str]:
    with repo.open() as reader:
        return [f"/{stored.path}" for stored in reader.walk(path)]


def catalogs(repo) -> dict[str, str]:
    with repo.open() as reader:
        return {info.mount_path: str(info.digest) for info in reader.catalogs()}


EVERY_KIND = tree(
    directory("dir/empty", mtime_s=-5),
    Entry(path="dir/sticky", kind=Kind.DIRECTORY, mode=0o1777, uid=7, gid=9),
    file("empty"),
    file("run", b"#!/bin/sh\n", mode=0o4755, uid=1000, gid=2000, mtime_s=-1),
    file("chunked", hashlib.shake_128(b"x").digest(700_000)),
    file("zeros", bytes(600_000)),
    file("attributes", b"a", xattrs=(("user.a", b"\0\xff"), ("user.b", b""))),
    file("links/one", b"same", link_group=4),
    file("links/two", b"same", link_group=4),
    file("links/three", b"same", link_group=5),
    file("links/other", b"same", link_group=5),
    file("name with 'quotes\" and\nnewline", b"n"),
    file("raw-\udcff\udcfe", b"r"),
    file("ünï/日本", b"u"),
    file("x" * 255, b"l"),
    link("to-file", "run"),
    link("raw-target", "a\udcff"),
    link("dangling", "../../nowhere"),
    Entry(path="special/fifo", kind=Kind.FIFO, mode=0o600),
    Entry(path="special/socket", kind=Kind.SOCKET, mode=0o755),
    Entry(path="special/null", kind=Kind.CHAR, mode=0o666, rdev=os.makedev(1, 3)),
    Entry(path="special/disk", kind=Kind.BLOCK, mode=0o660, rdev=os.makedev(259, 70000)),
)


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.SHAKE128, Algorithm.RMD160])
@pytest.mark.parametrize("compression", ["zlib", "none"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_every_kind_of_entry_comes_back(tmp_path, algorithm, compression, nanoseconds):
    settings = replace(repository.SMALL, algorithm=algorithm, compression=compression, nanoseconds=nanoseconds)
    repo = repository.make(tmp_path / "repo", settings)
    entries = tuple(entry._replace(mtime_ns=123_456_789 if nanoseconds else 0) for entry in EVERY_KIND)
    done = repo.publish(Graft(at=RepoPath("/a/b"), tree=entries, catalogs=frozenset({"", "links"})))
    assert (done.revision, done.changed, done.files) == (2, True, 13)
    with repo.open() as reader:
        found = {stored.path.removeprefix("a/b").lstrip("/"): stored for stored in reader.walk("a/b")}
        for entry in entries:
            stored = found.pop(entry.path)
            group = stored.entry.link_group
            assert stored.entry._replace(link_group=0, path="") == entry._replace(link_group=0, path="", content=None)
            assert bool(group) == bool(entry.link_group)
            if entry.kind is Kind.FILE:
                assert b"".join(reader.read(stored)) == entry.content
        assert set(found) == {".cvmfscatalog", "links/.cvmfscatalog"}
        assert found[".cvmfscatalog"].entry.size_bytes == 0
        assert reader.lookup("a/b/links/one").nlink == 2
        assert len(reader.lookup("a/b/chunked").chunks) > 1
    clean(repo)


@pytest.mark.parametrize(
    "name", [name for name in vectors.NAMES if name.split(".")[0] in {"sha1", "shake128", "rmd160", "plain"}]
)
def test_objects_and_rows_are_those_of_the_cvmfs_tools(tmp_path, name):
    """The tree of a real repository, written by us with the same settings, has the same object names and rows."""
    source = vectors.extract(name, tmp_path / "theirs")
    label = "r3" if name.split(".")[0] == "sha1" else "r2"
    expected = next(each for each in vectors.load(name, "expected.json")["revisions"] if each["label"] == label)
    theirs = open_repository(source).at(Digest.parse(expected["root_hash"]))
    settings = replace(
        repository.SMALL,
        algorithm=theirs.root_hash.algorithm,
        reference_compressor=True,
        nanoseconds=name.startswith("shake"),
    )
    repo = repository.make(tmp_path / "ours", settings)
    stored = {each.path: each for each in theirs.walk()}
    entries = tuple(
        each.entry._replace(content=b"".join(theirs.read(each)) if each.entry.kind is Kind.FILE else None)
        for each in stored.values()
    )
    mounts = frozenset(each.path for each in stored.values() if each.catalog)
    repo.publish(Graft(at=RepoPath(""), tree=entries, catalogs=mounts))
    with repo.open() as reader:
        ours = {each.path: each for each in reader.walk()}
        assert list(ours) == list(stored)
        for path, mine in ours.items():
            other = stored[path]
            assert (mine.entry, mine.nlink, mine.digest, mine.chunks) == (
                other.entry,
                other.nlink,
                other.digest,
                other.chunks,
            )
        counters = {info.mount_path: info.statistics for info in reader.catalogs()}
    assert counters == {info.mount_path: info.statistics for info in theirs.catalogs()}
    theirs.close()
    clean(repo)


def test_second_publish_of_the_same_is_no_revision(repo):
    change = graft("/a", file("f", b"1"), file("sub/g", b"2"), catalogs=("", "sub"))
    first = repo.publish(change)
    manifest = (repo.folder / ".cvmfspublished").read_bytes()
    again = repo.publish(change, at=later(5))
    assert (again.changed, again.revision, again.root_hash) == (False, first.revision, first.root_hash)
    assert again.objects_new == 0
    assert (repo.folder / ".cvmfspublished").read_bytes() == manifest


def test_a_change_rewrites_only_the_catalogs_above_it(repo):
    entries = [file(f"{name}/f", name.encode()) for name in ("one", "two", "two/deep")]
    repo.publish(graft("/sw", *entries, catalogs=("", "one", "two", "two/deep")))
    before = catalogs(repo)
    entries[0] = file("one/f", b"changed")
    repo.publish(graft("/sw", *entries, catalogs=("", "one", "two", "two/deep")), at=later(1))
    after = catalogs(repo)
    changed = {mount for mount in before if before[mount] != after[mount]}
    assert changed == {"", "/sw", "/sw/one"}
    clean(repo)


def test_grafting_beside_keeps_other_catalogs_unread(repo):
    repo.publish(graft("/sw/a", file("f", b"1"), catalogs=("",)), graft("/sw/b", file("f", b"2"), catalogs=("",)))
    before = catalogs(repo)
    beside = repo.folder / Digest.parse(before["/sw/b"]).object_name(ObjectKind.CATALOG)
    data = beside.read_bytes()
    beside.unlink()  # a catalog that is not on the way is not even opened
    repo.publish(graft("/sw/a", file("f", b"3"), catalogs=("",)), at=later(1))
    beside.write_bytes(data)
    after = catalogs(repo)
    assert after["/sw/b"] == before["/sw/b"]
    assert after["/sw/a"] != before["/sw/a"]
    clean(repo)


def test_nested_catalogs_come_and_go(repo):
    entries = (file("d/f", b"1"), file("d/e/g", b"2"))
    repo.publish(graft("/x", *entries, catalogs=("d", "d/e")))
    assert set(catalogs(repo)) == {"", "/x/d", "/x/d/e"}
    repo.publish(graft("/x", *entries, catalogs=("d/e",)), at=later(1))
    assert set(catalogs(repo)) == {"", "/x/d/e"}
    repo.publish(graft("/x", *entries), at=later(2))
    assert set(catalogs(repo)) == {""}
    repo.publish(graft("/x", *entries, catalogs=("",)), at=later(3))
    assert set(catalogs(repo)) == {"", "/x"}
    clean(repo)


def test_more_nested_catalogs_than_are_kept_open(repo):
    names = [f"n{number:02}" for number in range(40)]
    repo.publish(
        graft("/sw", *(file(f"{name}/d/f", name.encode()) for name in names), file("z/y/f", b"z"), catalogs=names),
        at=later(1),
    )
    with repo.open() as reader:
        seen = {stored.path for stored in reader.walk()}
        assert {f"sw/{name}/d/f" for name in names} | {"sw/z/y/f"} <= seen
        assert len(list(reader.catalogs())) == 41


def test_complete_catalogs_do_not_stay_in_memory(repo, monkeypatch):
    held = []
    seal = Drafts.seal

    def noted(self, draft):
        seal(self, draft)
        held.append(sum(len(each.rows) for each in self._loaded.values()))

    monkeypatch.setattr(Drafts, "seal", noted)
    names = [f"d{number:02}" for number in range(20)]
    files = [file(f"{name}/f{number}", b"%d" % number) for name in names for number in range(40)]
    done = repo.publish(graft("/sw", *files, catalogs=("", *names)), at=later(1))
    assert done.catalogs_written == 22
    assert max(held) < 40
    again = repo.publish(graft("/sw", *files, catalogs=("", *names)), at=later(2))
    assert (again.changed, again.catalogs_written) == (False, 0)


@pytest.mark.parametrize(
    "second", ["/sw/tool/n/more", "/sw/tool/n", "/sw/tool", "/sw", "/sw/tool/n/f", "/sw/tools", ""]
)
def test_a_later_graft_may_change_what_an_earlier_one_brought(repo, tmp_path, second):
    first = graft("/sw/tool", file("n/f", b"1"), file("n/m/g", b"2"), file("o/h", b"3"), catalogs=("", "n", "n/m"))
    other = graft(second, file("n/f", b"changed"), file("x/y", b"new"), catalogs=("x",))
    repo.publish(first, other, at=later(1))
    apart = repository.make(tmp_path / "apart")
    apart.publish(first, at=later(1))
    apart.publish(other, at=later(1))
    trees = []
    for each in (repo, apart):
        with each.open() as reader:
            trees.append([(stored.entry, stored.digest, stored.nlink) for stored in reader.walk()])
        key = (each.keys / f"{repository.FQRN}.pub").read_bytes()
        assert check(each.folder, public_key=key, now=later(9)).findings == ()
    assert trees[0] == trees[1]


def test_marker_in_the_tree_begins_a_catalog(repo):
    repo.publish(graft("/x", file("d/.cvmfscatalog"), file("d/f", b"1")))
    assert set(catalogs(repo)) == {"", "/x/d"}
    clean(repo)


def test_kinds_replace_each_other(repo):
    for number, entry in enumerate(
        (
            (file("p", b"f"),),
            (directory("p"), file("p/q", b"1")),
            (link("p", "elsewhere"),),
            (file("p", bytes(300_000)),),
            (Entry(path="p", kind=Kind.FIFO, mode=0o600),),
        )
    ):
        repo.publish(graft("/x", *entry), at=later(number))
        with repo.open() as reader:
            assert reader.lookup("x/p").entry.kind is entry[0].kind
        clean(repo)


def test_a_single_link_can_be_grafted(repo):
    first = Graft(at=RepoPath("/channels/stable"), tree=(link("", "../releases/1"),))
    repo.publish(first)
    repo.publish(replace(first, tree=(link("", "../releases/2"),)), at=later(1))
    with repo.open() as reader:
        assert reader.lookup("/channels/stable").entry.target == "../releases/2"
    clean(repo)


def test_removal(repo):
    repo.publish(graft("/a/b", file("f", b"1"), file("n/g", b"2"), file("n/m/h", b"3"), catalogs=("", "n", "n/m")))
    repo.publish(graft("/a/c", file("k", b"4")), at=later(1))
    repo.publish(removals=(RepoPath("/a/b"),), at=later(2))
    assert names(repo) == ["/", "/a", "/a/c", "/a/c/k"]
    assert set(catalogs(repo)) == {""}
    with repo.open() as reader:
        assert reader.lookup("a").nlink == 3
        assert reader.lookup("a").entry.mtime_s == int(later(2).timestamp())
        with reader.at(2) as older:
            assert [f"/{each.path}" for each in older.walk("a/b")][:2] == ["/a/b", "/a/b/.cvmfscatalog"]
    clean(repo)


def test_removal_inside_a_nested_catalog(repo):
    repo.publish(graft("/a", file("n/f", b"1"), file("n/g", b"1"), catalogs=("", "n")))
    repo.publish(removals=(RepoPath("/a/n/f"),), at=later(1))
    assert names(repo, "a/n") == ["/a/n", "/a/n/.cvmfscatalog", "/a/n/g"]
    clean(repo)


def test_removing_one_of_two_hard_links_leaves_a_plain_file(repo):
    repo.publish(graft("/a", file("f", b"1", link_group=1), file("g", b"1", link_group=1)))
    repo.publish(removals=(RepoPath("/a/g"),), at=later(1))
    with repo.open() as reader:
        assert (reader.lookup("a/f").nlink, reader.lookup("a/f").entry.link_group) == (1, 0)
    clean(repo)


def test_hard_links_across_directories_are_files_of_their_own(repo, tmp_path):
    folder = tmp_path / "tree"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    (folder / "a" / "f").write_bytes(b"x")
    os.link(folder / "a" / "f", folder / "a" / "g")
    os.link(folder / "a" / "f", folder / "b" / "f")
    repo.publish(Graft(at=RepoPath("/t"), tree=FolderTree(folder=folder)))
    with repo.open() as reader:
        assert [reader.lookup(path).nlink for path in ("t/a/f", "t/a/g", "t/b/f")] == [2, 2, 1]
    clean(repo)


def test_one_revision_takes_removals_then_grafts(repo):
    repo.publish(graft("/a", file("f", b"1"), catalogs=("",)), graft("/b", file("f", b"2")))
    done = repo.publish(
        graft("/a/new", file("g", b"3")),
        graft("/c", file("h", b"4"), catalogs=("",)),
        removals=(RepoPath("/b"), RepoPath("/a/f")),
        at=later(1),
        tag=TagName("v1"),
        description="all at once, with spaces",
    )
    assert done.revision == 3
    assert names(repo) == ["/", "/a", "/a/.cvmfscatalog", "/a/new", "/a/new/g", "/c", "/c/.cvmfscatalog", "/c/h"]
    with repo.open() as reader:
        tag = reader.history().tag("v1")
        assert (tag.revision, tag.root, tag.description) == (3, done.root_hash, "all at once, with spaces")
        assert {tag.name for tag in reader.tags()} == {"trunk", "trunk-previous", "v1"}
    clean(repo)


def test_known_content_is_not_compressed_again(repo):
    data = hashlib.shake_128(b"big").digest(1_000_000)
    repo.publish(graft("/one", file("f", data), file("small", b"s")))
    done = repo.publish(graft("/two", file("g", data), file("other", b"s")), at=later(1))
    assert done.read_bytes == 1_000_001
    assert done.objects_new == 2  # root catalog and tag database
    index = repo.folder / ".afpub" / "contents.sqlite"
    index.write_bytes(b"no database")
    assert repo.publish(graft("/three", file("g", data)), at=later(2)).objects_new == 2
    clean(repo)


def test_an_index_that_names_contents_otherwise_is_made_anew(repo):
    repo.publish(graft("/one", file("f", b"content")))
    with contextlib.closing(sqlite3.connect(repo.folder / ".afpub" / "contents.sqlite")) as index, index:
        before = {key for (key,) in index.execute("SELECT key FROM contents")}
        index.execute("INSERT INTO contents VALUES (x'01', x'02', 3)")
        index.execute("PRAGMA user_version=1")
    repo.publish(graft("/two", file("f", b"content")), at=later(1))
    with contextlib.closing(sqlite3.connect(repo.folder / ".afpub" / "contents.sqlite")) as index:
        after = {key for (key,) in index.execute("SELECT key FROM contents")}
    assert before & after, "the content was looked at again"
    assert b"\x01" not in after
    clean(repo)


def test_an_object_that_was_cut_short_is_written_again(repo):
    repo.publish(graft("/a", file("f", b"content")))
    with repo.open() as reader:
        path = repo.folder / reader.lookup("a/f").digest.object_name(ObjectKind.FILE)
    path.write_bytes(path.read_bytes()[:-3])
    repo.publish(graft("/b", file("f", b"content")), at=later(1))
    clean(repo)


def test_update_of_a_repository_of_the_cvmfs_tools(tmp_path):
    """Their repository, changed by us with their keys: what is not touched keeps its catalogs."""
    name = "sha1.afpub.example"
    folder = vectors.extract(name, tmp_path / "repo")
    repo = repository.Repo(folder, vectors.VECTORS / name / "keys")
    with open_repository(folder) as reader:
        before = {info.mount_path: info.digest for info in reader.catalogs()}
        tree_before = vectors.shown(reader)
    done = repo.publish(graft("/sw/alpha", file("f0", b"new"), catalogs=("",)))
    assert done.revision == 4
    with open_repository(folder, public_key=vectors.public_key(name), now=vectors.NOW) as reader:
        after = {info.mount_path: info.digest for info in reader.catalogs()}
        tree_after = vectors.shown(reader)
    assert {mount for mount in before if after.get(mount) != before[mount]} == {"", "/sw", "/sw/alpha"}
    outside = [row for row in tree_before if not row.get("path", "").startswith("/sw/alpha")]
    assert [row for row in tree_after if not row.get("path", "").startswith("/sw/alpha")] == outside
    assert check(folder, public_key=vectors.public_key(name), now=vectors.NOW).findings == ()


def test_virtual_directory_of_another_writer_is_kept(tmp_path):
    name = "features.afpub.example"
    folder = vectors.extract(name, tmp_path / "repo")
    repo = repository.Repo(folder, vectors.VECTORS / name / "keys")
    repo.publish(Graft(at=RepoPath(""), tree=tree(file("only", b"1"))))
    with open_repository(folder) as reader:
        assert [stored.path for stored in reader.walk()] == ["", "only"]
        assert reader.lookup(".cvmfs/snapshots/v1/README") is not None
        assert reader.catalogs().__next__().properties["volatile"] == "1"
    assert check(folder, public_key=vectors.public_key(name), now=vectors.NOW).ok


def test_tags(repo):
    repo.publish(graft("/a", file("f", b"1")))
    add_tag(repo.folder, TagName("first"), keys_folder=repo.keys, now=later(1), revision=1, description="empty")
    add_tag(repo.folder, TagName("now"), keys_folder=repo.keys, now=later(1))
    with repo.open() as reader:
        assert reader.revision == 2
        with reader.at("first") as first:
            assert [stored.path for stored in first.walk()] == [""]
    with pytest.raises(AlreadyPublishedError, match="the tag 'now' exists already: it names revision 2"):
        add_tag(repo.folder, TagName("now"), keys_folder=repo.keys, now=later(2))
    with pytest.raises(AlreadyPublishedError, match="the tag 'now' exists already"):
        repo.publish(graft("/a", file("f", b"2")), tag=TagName("now"), at=later(2))
    same = repo.publish(graft("/a", file("f", b"1")), tag=TagName("now"), at=later(2))
    assert not same.changed
    remove_tag(repo.folder, "now", keys_folder=repo.keys, now=later(3))
    with pytest.raises(NotFoundError, match="has no tag 'now' that can be removed"):
        remove_tag(repo.folder, "now", keys_folder=repo.keys, now=later(3))
    with pytest.raises(NotFoundError, match="has no tag 'trunk' that can be removed"):
        remove_tag(repo.folder, "trunk", keys_folder=repo.keys, now=later(3))
    clean(repo)


def test_tag_of_an_unchanged_tree_names_the_revision_that_is_there(repo):
    repo.publish(graft("/a", file("f", b"1")))
    done = repo.publish(graft("/a", file("f", b"1")), tag=TagName("later"), at=later(1))
    assert (done.changed, done.revision) == (False, 2)
    with repo.open() as reader:
        assert reader.history().tag("later").revision == 2
    clean(repo)


def test_stale_base(repo):
    with repo.open() as reader:
        base = reader.root_hash
    repo.publish(graft("/a", file("f", b"1")), base=base)
    with pytest.raises(StaleBaseError, match="moved on to revision 2"):
        repo.publish(graft("/a", file("f", b"2")), base=base, at=later(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (graft("/.cvmfs/x", file("f")), "/.cvmfs/x is the repository's own; nothing can be published there or removed"),
        (graft("/a/.cvmfscatalog", file("f")), "/a/.cvmfscatalog is the repository's own"),
        (Graft(at=RepoPath("/a"), tree=()), "the tree to publish at /a does not begin with its root"),
        (Graft(at=RepoPath(""), tree=(link("", "x"),)), "the root of a repository must be a directory"),
        (
            Graft(at=RepoPath(""), tree=tree(file(".cvmfscatalog"))),
            "the root of a repository cannot hold .cvmfscatalog",
        ),
        (Graft(at=RepoPath(""), tree=tree(directory(".cvmfs"))), "the name is the repository's own"),
        (graft("/a", file("f"), catalogs=("f",)), "/a/f cannot begin a nested catalog: the tree has no such directory"),
        (Graft(at=RepoPath("/a"), tree=(directory(""), file("x/y"))), "the tree to publish is not in order at /a/x/y"),
        (
            Graft(at=RepoPath("/a"), tree=(directory(""), file("x"), file("x"))),
            "the tree to publish is not in order at /a/x",
        ),
        (Graft(at=RepoPath("/a"), tree=(directory(""), file(".."))), "the name is '..'"),
        (graft("/a", file("f", xattrs=(("user.long", b"x" * 256),))), "'user.long' has 256 bytes; CVMFS holds 255"),
        (graft("/file/below", file("f")), "cannot publish at /file/below: /file is a file, not a directory"),
        (
            Graft(at=RepoPath("/a"), tree=(directory(""), Entry(path="f", kind=Kind.FILE, mode=0o644))),
            "/f is a file without content",
        ),
    ],
)
def test_what_cannot_be_published_is_refused(repo, change, message):
    repo.publish(graft("", file("file", b"1")))
    before = (repo.folder / ".cvmfspublished").read_bytes()
    with pytest.raises(RepositoryError) as caught:
        repo.publish(change, at=later(1))
    assert message in caught.value.message
    assert (repo.folder / ".cvmfspublished").read_bytes() == before
    clean(repo)


def test_removing_what_is_not_there(repo):
    with pytest.raises(NotFoundError, match="cannot remove /nothing: it is not in the repository"):
        repo.publish(removals=(RepoPath("/nothing"),))
    with pytest.raises(RepositoryError, match="the root of a repository cannot be removed"):
        repo.publish(removals=(RepoPath(""),))


def test_too_many_entries_are_refused_before_anything_is_stored(repo):
    many = graft("/a", *(file(f"d/{number}", b"%d" % number) for number in range(30)), catalogs=("",))
    before = sorted(repo.folder.rglob("*"))
    with pytest.raises(RepositoryError, match=r"the catalog of /a would have 33 entries, more than 20"):
        repo.publish(many, limits=Limits(nested_entries=20))
    with pytest.raises(RepositoryError, match=r"the catalog of / would have 33 entries, more than 20"):
        repo.publish(replace(many, catalogs=frozenset()), limits=Limits(root_entries=20))
    assert [path for path in sorted(repo.folder.rglob("*")) if ".afpub" not in str(path)] == [
        path for path in before if ".afpub" not in str(path)
    ]


def test_very_big_files_are_reported(repo):
    done = repo.publish(graft("/a", file("f", bytes(3 << 20))), limits=Limits(file_bytes=2 << 20))
    assert [finding.message for finding in done.report.findings] == ["the file has 3 MiB, more than 2 MiB"]


def test_a_file_that_changes_while_it_is_read(repo, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    entry = file("f", path)
    path.write_bytes(b"123456")
    with pytest.raises(DiskError, match=r"/f changed while it was published"):
        repo.publish(Graft(at=RepoPath("/a"), tree=tree(entry)))
    path.unlink()
    with pytest.raises(DiskError, match=r"cannot read .*/f: No such file or directory"):
        repo.publish(Graft(at=RepoPath("/a"), tree=tree(entry)))
    assert list((repo.folder / "data" / "txn").iterdir()) == []
    clean(repo)


def test_a_link_in_the_place_of_a_file_is_not_followed(repo, tmp_path):
    (tmp_path / "secret").write_bytes(b"12345")
    path = tmp_path / "f"
    path.write_bytes(b"54321")
    entry = file("f", path)
    path.unlink()
    path.symlink_to("secret")
    with pytest.raises(DiskError, match=r"cannot read .*/f"):
        repo.publish(Graft(at=RepoPath("/a"), tree=tree(entry)))


def test_expired_whitelist(repo):
    after = repository.NOW + timedelta(days=31)
    before = sorted(path for path in repo.folder.rglob("*") if ".afpub" not in path.parts)
    with pytest.raises(TrustError, match=r"the whitelist of .* expired on 2026-12-24 12:00 UTC") as caught:
        repo.publish(graft("/a", file("f", b"1")), at=after)
    assert "resign" in caught.value.hint
    assert sorted(path for path in repo.folder.rglob("*") if ".afpub" not in path.parts) == before
    resign_whitelist(repo.folder, keys_folder=repo.keys, now=after)
    assert repo.publish(graft("/a", file("f", b"1")), at=after).revision == 2
    with repo.open(at=after + timedelta(days=29)) as reader:
        assert reader.revision == 2
    with pytest.raises(TrustError, match="expired"):
        repo.open(at=after + timedelta(days=30))


def test_keys_of_another_repository(repo, tmp_path):
    other = tmp_path / "keys"
    shutil.copytree(repo.keys, other)
    fresh = repository.create_keys(repository.FQRN, tmp_path / "fresh", now=repository.NOW)
    for path in (fresh.repository_key, fresh.certificate):
        (other / path.name).unlink()
        shutil.copy(path, other / path.name)
    with pytest.raises(TrustError, match="does not name the certificate"):
        repository.Repo(repo.folder, other).publish(graft("/a", file("f")))
    with pytest.raises(TrustError, match="cannot read the key file"):
        repository.Repo(repo.folder, tmp_path).publish(graft("/a", file("f")))


def test_no_repository(tmp_path):
    with pytest.raises(RepositoryError, match=r"is no repository: it has no \.cvmfspublished"):
        repository.Repo(tmp_path, repository.shared_keys()).publish(graft("/a", file("f")))
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told(repo):
    told = []
    repo.publish(graft("/a", file("f", b"123"), file("g", bytes(200_000))), progress=told.append)
    assert [state.step for state in told][-2:] == ["catalogs", "manifest"]
    assert (told[-1].files_done, told[-1].bytes_done) == (2, 200_003)
    assert (told[-1].files_total, told[-1].bytes_total) == (2, 200_003)


def test_time_never_goes_back(repo):
    repo.publish(graft("/a", file("f", b"1")), at=later(10))
    repo.publish(graft("/a", file("f", b"2")), at=later(5))
    with repo.open() as reader:
        assert reader.manifest.published_s == int(later(10).timestamp())


def test_ttl_of_the_settings_goes_into_the_manifest(tmp_path):
    repo = repository.make(tmp_path / "repo", Settings(ttl_s=60))
    repo.publish(graft("/a", file("f", b"1")))
    with repo.open() as reader:
        assert reader.manifest.ttl_s == 60
        assert next(reader.catalogs()).properties["TTL"] == "60"


def test_deep_trees(repo):
    path = "/".join(["d"] * 1500)
    repo.publish(graft("/a", file(f"{path}/f", b"deep")))
    with repo.open() as reader:
        assert b"".join(reader.read(f"a/{path}/f")) == b"deep"
    clean(repo)


def test_files_are_readable_for_a_web_server_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        repo = repository.make(tmp_path / "repo")
        repo.publish(graft("/a", file("f", b"1")))
    finally:
        os.umask(before)
    for path in (repo.folder, *repo.folder.rglob("*")):
        if ".afpub" in path.parts:
            continue
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    assert (repo.folder / ".afpub").stat().st_mode & 0o777 == 0o700
    assert isinstance(repo.folder, Path)
