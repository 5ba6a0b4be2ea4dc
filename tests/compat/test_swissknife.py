"""What is published satisfies the CVMFS tools, and the CVMFS client shows it byte for byte."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import cvmfs_repository as repository
import cvmfs_vectors as vectors
import pytest
from compat.client import mounted, same
from cvmfs_repository import Repo, directory, file, graft, later, link

from publisher import tools
from publisher.cvmfs.check import check
from publisher.cvmfs.digest import Algorithm, Digest
from publisher.cvmfs.export import export
from publisher.cvmfs.gc import collect_garbage
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.repair import repair
from publisher.cvmfs.republish import republish
from publisher.cvmfs.rotation import finish_rotation, rotate_key
from publisher.cvmfs.serve import serving
from publisher.cvmfs.signing import resign_whitelist
from publisher.cvmfs.tags import add_tag, remove_tag
from publisher.errors import RepositoryError
from publisher.names import RepoPath, TagName
from publisher.tree import Entry, Kind


@pytest.fixture
def satisfied(require_tool, tmp_path):
    """A function that fails when ``cvmfs_swissknife check -c`` or ``scrub`` finds anything in a repository."""
    program = require_tool("cvmfs_swissknife")

    def ask(repo: Repo) -> None:
        work = tmp_path / "swissknife"
        work.mkdir(exist_ok=True)
        done = tools.run([program, "check", "-c", "-r", repo.folder, "-t", work], check=False)
        assert done.ok, done.tail
        assert "no problems found" in done.tail
        done = tools.run([program, "scrub", "-r", repo.folder / "data"], check=False)
        assert done.ok, done.tail

    return ask


@pytest.fixture
def satisfied_over_http(require_tool, tmp_path):
    """The same over HTTP, the signatures checked too."""
    program = require_tool("cvmfs_swissknife")

    def ask(repo: Repo, name: str = repository.FQRN) -> None:
        work = tmp_path / "swissknife-http"
        work.mkdir(exist_ok=True)
        with serving({name: repo.folder}) as url:
            address = ["-r", f"{url}/cvmfs/{name}", "-N", name, "-k", repo.keys / f"{name}.pub"]
            done = tools.run([program, "check", "-c", *address, "-t", work], check=False)
        assert done.ok, done.tail

    return ask


ENTRIES = (
    directory("dirs/empty", mtime_s=-5),
    Entry(path="dirs/sticky", kind=Kind.DIRECTORY, mode=0o1777, uid=7, gid=9, mtime_s=1_500_000_000),
    directory("dirs/attributes", xattrs=(("user.on-dir", b"yes"),)),
    file("files/empty"),
    file("files/run", b"#!/bin/sh\n", mode=0o4755, uid=1000, gid=2000, mtime_s=-1),
    file("files/secret", b"for the owner", mode=0o600),
    file("files/chunked", hashlib.shake_128(b"x").digest(1_000_000)),
    file("files/zeros", bytes(600_000)),
    file("files/attributes", b"a", xattrs=(("user.binary", b"\0\xff"), ("user.empty", b""))),
    file("links/one", b"same", link_group=4),
    file("links/two", b"same", link_group=4),
    file("links/three", bytes(300_000), link_group=5),
    file("links/other", bytes(300_000), link_group=5),
    file("names/with 'quotes\" and\nnewline", b"n"),
    file("names/raw-\udcff\udcfe", b"r"),
    file("names/ünï/日本", b"u"),
    file("names/" + "x" * 255, b"l"),
    file("names/.wh.gone", b"only a name"),
    link("symbolic/to-file", "../files/run"),
    link("symbolic/raw-target", "a\udcff"),
    link("symbolic/dangling", "../../nowhere"),
    link("symbolic/long", "t" * 1000),
    Entry(path="special/fifo", kind=Kind.FIFO, mode=0o600),
    Entry(path="special/socket", kind=Kind.SOCKET, mode=0o755),
    Entry(path="special/null", kind=Kind.CHAR, mode=0o666, rdev=os.makedev(1, 3)),
    Entry(path="special/disk", kind=Kind.BLOCK, mode=0o660, rdev=os.makedev(259, 7)),
    file("catalogs/a/f", b"1"),
    file("catalogs/a/b/f", b"2"),
    file("catalogs/raw-\udcfe/f", b"3"),
)
CATALOGS = ("", "catalogs", "catalogs/a", "catalogs/a/b", "catalogs/raw-\udcfe", "links")


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("compression", ["zlib", "none"])
def test_no_tool_finds_a_problem_through_a_repository_s_life(
    tmp_path, satisfied, satisfied_over_http, algorithm, compression
):
    settings = replace(repository.SMALL, algorithm=algorithm, compression=compression, nanoseconds=True)
    repo = repository.make(tmp_path / "repo", settings)
    satisfied(repo)
    repo.publish(graft("/a/all", *ENTRIES, catalogs=CATALOGS), tag=TagName("v1"))
    satisfied(repo)
    changed = [
        entry._replace(content=b"new", size_bytes=3) if entry.path == "catalogs/a/f" else entry for entry in ENTRIES
    ]
    repo.publish(graft("/a/all", *changed, catalogs=CATALOGS), graft("/plain", file("f", b"1")), at=later(1))
    satisfied(repo)
    repo.publish(removals=(RepoPath("/a/all/catalogs/a"), RepoPath("/a/all/links/one")), at=later(2))
    satisfied(repo)
    add_tag(repo.folder, TagName("extra"), keys_folder=repo.keys, now=later(3), revision="v1")
    remove_tag(repo.folder, "v1", keys_folder=repo.keys, now=later(3))
    satisfied(repo)
    repo.publish(removals=(RepoPath("/a"), RepoPath("/plain")), at=later(4))
    satisfied(repo)
    satisfied_over_http(repo)


def test_update_of_a_repository_of_the_cvmfs_tools(tmp_path, satisfied, satisfied_over_http):
    for name in vectors.NAMES:
        folder = vectors.extract(name, tmp_path / name)
        repo = Repo(folder, vectors.VECTORS / name / "keys")
        repo.publish(graft("/added/here", file("f", b"1"), file("n/f", b"2"), catalogs=("n",)))
        satisfied(repo)
        satisfied_over_http(repo, name)


def test_a_stratum_1_can_be_read_and_trusted(tmp_path, require_tool):
    program = require_tool("cvmfs_swissknife")
    repo = repository.make(tmp_path / "repo")
    repo.publish(graft("/a", file("f", b"content"), file("g", os.urandom(300_000))), at=_now())
    resign_whitelist(repo.folder, keys_folder=repo.keys, now=_now())
    name, key = repository.FQRN, repo.keys / f"{repository.FQRN}.pub"
    replica, work = tmp_path / "replica", tmp_path / "work"
    for folder in (*(replica / f"data/{number:02x}" for number in range(256)), replica / "data/txn", work):
        folder.mkdir(parents=True)
    with serving({name: repo.folder, "replica": replica}) as url:
        words = [program, "pull", "-m", name, "-u", f"{url}/cvmfs/{name}", "-k", key, "-x", work, "-n", "2", "-i"]
        words += ["-r", f"local,{replica}/data/txn,{replica}", "-w", f"{url}/cvmfs/replica", "-t", "10", "-a", "1"]
        words += ["-R", work / "reflog.chksum"]
        done = tools.run(words, check=False)
    assert done.ok, done.tail
    report = check(replica, public_key=key.read_bytes(), now=_now())
    assert report.errors == ()
    with open_repository(replica, public_key=key.read_bytes(), now=_now()) as reader:
        assert b"".join(reader.read("/a/f")) == b"content"


def test_client_shows_every_kind_of_entry(tmp_path, require_tool, require_root):
    require_tool("cvmfs2")
    repo = repository.make(tmp_path / "repo", replace(repository.SMALL, nanoseconds=True))
    entries = tuple(entry._replace(mtime_ns=123_456_789) for entry in ENTRIES)
    repo.publish(graft("/a/all", *entries, catalogs=CATALOGS), at=_now())
    resign_whitelist(repo.folder, keys_folder=repo.keys, now=_now())
    key = repo.keys / f"{repository.FQRN}.pub"
    name = repository.FQRN
    with (
        serving({name: repo.folder}) as url,
        mounted(name, f"{url}/cvmfs/@fqrn@", public_key=key, work=tmp_path) as top,
    ):
        for entry in entries:
            same(top / "a/all" / entry.path, entry)
        with repo.open(at=_now()) as reader:
            listed = sorted(os.fsencode(stored.path) for stored in reader.walk())
        assert sorted(_walk(top)) == listed
        for one, other in (("one", "two"), ("three", "other")):
            infos = [(top / "a/all/links" / each).stat() for each in (one, other)]
            assert [info.st_nlink for info in infos] == [2, 2]
            assert infos[0].st_ino == infos[1].st_ino
        assert (top / "a/all/catalogs/a/b/.cvmfscatalog").read_bytes() == b""


def _now():
    return repository.datetime.now(repository.UTC)


def _walk(top: Path):
    yield b""
    for folder, names, files in os.walk(os.fsencode(top)):
        for each in (*names, *files):
            yield os.path.relpath(folder + b"/" + each, os.fsencode(top))


def test_client_follows_a_new_revision(tmp_path, require_tool, require_root):
    """The client that is mounted sees the next revision, whole."""
    require_tool("cvmfs2")
    talk = require_tool("cvmfs_talk")
    repo = repository.make(tmp_path / "repo")
    resign_whitelist(repo.folder, keys_folder=repo.keys, now=_now())
    repo.publish(graft("/r", file("1/f", b"first")), graft("/stable", link("now", "../r/1")), at=_now())
    key = repo.keys / f"{repository.FQRN}.pub"
    name = repository.FQRN
    with (
        serving({name: repo.folder}) as url,
        mounted(name, f"{url}/cvmfs/@fqrn@", public_key=key, work=tmp_path) as top,
    ):
        assert (top / "stable/now/f").read_bytes() == b"first"
        repo.publish(
            graft("/r/2", file("f", b"second"), catalogs=("",)), graft("/stable", link("now", "../r/2")), at=_now()
        )
        done = tools.run([talk, "-p", tmp_path / "cache" / name / f"cvmfs_io.{name}", "remount", "sync"], check=False)
        assert done.ok, done.tail
        assert (top / "stable/now/f").read_bytes() == b"second"


@pytest.mark.parametrize("name", vectors.NAMES)
def test_reading_over_http_is_the_same(tmp_path, name):
    repo = vectors.extract(name, tmp_path / "repo")
    expected = vectors.load(name, "expected.json")["revisions"]
    with serving({name: repo}) as url:
        address = f"{url}/cvmfs/{name}"
        with open_repository(address, public_key=vectors.public_key(name), now=vectors.NOW) as newest:
            for revision in expected:
                with newest.at(Digest.parse(revision["root_hash"])) as reader:
                    assert vectors.shown(reader) == revision["entries"]
        report = check(address, public_key=vectors.public_key(name), now=vectors.NOW)
        assert report.errors == ()


def test_damage_is_found_over_http(tmp_path):
    name = "sha1.afpub.example"
    repo = vectors.extract(name, tmp_path / "repo")
    for case in vectors.CASES:
        if case["id"] in {"chunk-flip", "file-missing"}:
            vectors.damage(case, repo)
    with serving({name: repo}) as url:
        address = f"{url}/cvmfs/{name}"
        report = check(address, public_key=vectors.public_key(name), now=vectors.NOW)
        assert {finding.check for finding in report.errors} == {"object-damaged", "object-missing"}
        fast = check(address, public_key=vectors.public_key(name), now=vectors.NOW, data=False)
        assert {finding.check for finding in fast.errors} == {"object-missing"}


def test_server_that_is_not_there():
    with serving({}) as url:
        pass
    with pytest.raises(RepositoryError, match=r"cannot read http://127\.0\.0\.1.*Connection refused"):
        open_repository(f"{url}/cvmfs/{repository.FQRN}")


def test_settings_beside_the_repository_are_not_served(tmp_path):
    repo = repository.make(tmp_path / "repo")
    with serving({repository.FQRN: repo.folder}) as url, pytest.raises(RepositoryError, match="is no repository"):
        open_repository(f"{url}/cvmfs/{repository.FQRN}/.afpub")


def test_export_over_http(tmp_path):
    repo = repository.make(tmp_path / "repo")
    repo.publish(graft("/a", *(entry for entry in ENTRIES if entry.kind is not Kind.BLOCK), catalogs=CATALOGS))
    with serving({repository.FQRN: repo.folder}) as url:
        key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
        address = f"{url}/cvmfs/{repository.FQRN}"
        with open_repository(address, public_key=key, now=repository.NOW) as reader:
            done = export(reader, "/a", tmp_path / "copy")
    assert done.skipped == ("special/fifo", "special/null", "special/socket")
    assert (tmp_path / "copy" / "files" / "chunked").read_bytes() == hashlib.shake_128(b"x").digest(1_000_000)


@pytest.fixture
def several(tmp_path) -> Repo:
    """Eight revisions a day apart, one with a name, nested catalogs and chunks in them."""
    repo = repository.make(tmp_path / "several")
    for number in range(8):
        repo.publish(
            graft("/sw/one", file("f", b"one %d" % number), file("big", os.urandom(200_000)), catalogs=("",)),
            graft("/sw/two", file("f", b"same"), file("n/f", b"two %d" % number), catalogs=("", "n")),
            at=repository.NOW + timedelta(days=number, minutes=1),
            tag=TagName("good") if number == 1 else None,
        )
    return repo


def test_collected_repository_satisfies(several, satisfied, satisfied_over_http):
    done = collect_garbage(several.folder, keys_folder=several.keys, now=repository.NOW + timedelta(days=8))
    assert len(done.dropped) == 4
    assert done.objects_removed > 10
    satisfied(several)
    satisfied_over_http(several)
    several.publish(graft("/sw/one", file("f", b"one 0"), catalogs=("",)), at=repository.NOW + timedelta(days=9))
    satisfied(several)


@pytest.fixture
def spool(require_root):
    """Where their collector wants to keep statistics; it does not start without."""
    folder = Path("/var/spool/cvmfs") / repository.FQRN
    folder.mkdir(parents=True)
    yield
    shutil.rmtree(folder)


@pytest.mark.parametrize("days", [0, 1, 2.5, 3, 20])
@pytest.mark.usefixtures("spool")
def test_collection_keeps_what_the_cvmfs_tools_keep(several, require_tool, tmp_path, days):
    """Their collector and ours, on two copies of one repository."""
    program = require_tool("cvmfs_swissknife")
    now = repository.NOW + timedelta(days=8)
    theirs = Repo(tmp_path / "theirs", several.keys)
    shutil.copytree(several.folder, theirs.folder)
    with theirs.open() as reader:
        (tmp_path / "reflog.chksum").write_text(f"{reader.manifest.reflog}")
    work = tmp_path / "work"
    work.mkdir()
    oldest_s = int((now - timedelta(days=days)).timestamp()) + 1  # they keep what was made at that very second
    with serving({repository.FQRN: theirs.folder}) as url:
        words = ["-r", f"{url}/cvmfs/{repository.FQRN}", "-u", f"local,{work},{theirs.folder}", "-t", work]
        words += ["-n", repository.FQRN, "-k", several.keys / f"{repository.FQRN}.pub", "-z", f"{oldest_s}"]
        done = tools.run([program, "gc", *words, "-R", tmp_path / "reflog.chksum"], check=False)
    assert done.ok, done.tail
    collect_garbage(several.folder, keys_folder=several.keys, now=now, grace=timedelta(days=days))
    left, ours = (
        {str(path.relative_to(repo.folder)) for path in repo.folder.glob("data/??/*")} for repo in (theirs, several)
    )
    assert {name for name in ours if not name.endswith("H")} == {name for name in left if not name.endswith("H")}
    assert {name for name in left if name.endswith("H")} <= ours
    assert len({name for name in ours if name.endswith("H")}) <= len({name for name in left if name.endswith("H")}) + 1


def test_republished_tree_satisfies(several, satisfied):
    republish(several.folder, "good", keys_folder=several.keys, now=repository.NOW + timedelta(days=8))
    satisfied(several)
    collect_garbage(several.folder, keys_folder=several.keys, now=repository.NOW + timedelta(days=9))
    satisfied(several)


def test_client_reads_on_after_a_collection(several, require_tool, require_root, tmp_path):
    require_tool("cvmfs2")
    done = collect_garbage(several.folder, keys_folder=several.keys, now=repository.NOW + timedelta(days=8))
    assert done.objects_removed > 10
    resign_whitelist(several.folder, keys_folder=several.keys, now=_now())
    key = several.keys / f"{repository.FQRN}.pub"
    with (
        serving({repository.FQRN: several.folder}) as url,
        mounted(repository.FQRN, f"{url}/cvmfs/@fqrn@", public_key=key, work=tmp_path) as top,
    ):
        assert (top / "sw/one/f").read_bytes() == b"one 7"
        assert len((top / "sw/one/big").read_bytes()) == 200_000


def test_client_does_not_notice_that_the_key_is_rotated(tmp_path, require_tool, require_root, satisfied_over_http):
    require_tool("cvmfs2")
    talk = require_tool("cvmfs_talk")
    repo = repository.make(tmp_path / "repo")
    keys = tmp_path / "keys"
    shutil.copytree(repo.keys, keys)
    repo = Repo(repo.folder, keys)
    repo.publish(graft("/a", file("f", b"before")), at=_now())
    resign_whitelist(repo.folder, keys_folder=keys, now=_now())
    with (
        serving({repository.FQRN: repo.folder}) as url,
        mounted(
            repository.FQRN, f"{url}/cvmfs/@fqrn@", public_key=keys / f"{repository.FQRN}.pub", work=tmp_path
        ) as top,
    ):

        def remount() -> None:
            socket = tmp_path / "cache" / repository.FQRN / f"cvmfs_io.{repository.FQRN}"
            tools.run([talk, "-p", socket, "remount", "sync"], timeout_s=60)

        assert (top / "a/f").read_bytes() == b"before"
        rotate_key(repo.folder, keys_folder=keys, now=_now())
        remount()
        assert (top / "a/f").read_bytes() == b"before"
        satisfied_over_http(repo)
        repo.publish(graft("/a", file("f", b"after")), at=_now())
        remount()
        assert (top / "a/f").read_bytes() == b"after"
        finish_rotation(repo.folder, keys_folder=keys, now=_now())
        repo.publish(graft("/a", file("f", b"finished")), at=_now())
        remount()
        assert (top / "a/f").read_bytes() == b"finished"
        satisfied_over_http(repo)


@pytest.mark.parametrize("name", vectors.NAMES)
def test_care_for_a_repository_of_the_cvmfs_tools(tmp_path, satisfied, name):
    """What they wrote is collected, repaired, republished, and gets a new key."""
    keys = tmp_path / "keys"
    shutil.copytree(vectors.VECTORS / name / "keys", keys)
    repo = Repo(vectors.extract(name, tmp_path / name), keys)
    more = {"keys_folder": keys, "now": vectors.NOW}
    done = collect_garbage(repo.folder, grace=timedelta(0), enable=True, **more)
    assert done.dropped
    assert done.objects_removed >= len(done.dropped)
    satisfied(repo)
    (repo.folder / ".cvmfsreflog").unlink()
    assert [finding.where for finding in repair(repo.folder, **more).findings] == [".cvmfsreflog"]
    satisfied(repo)
    assert republish(repo.folder, "trunk-previous", **more).changed
    satisfied(repo)
    rotate_key(repo.folder, **more)
    satisfied(repo)
