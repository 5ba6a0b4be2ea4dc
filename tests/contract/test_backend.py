"""What every back-end promises (publisher/backends/base.py)."""

from __future__ import annotations

import threading

import pytest

from publisher.backends.base import Changeset
from publisher.cvmfs.export import STATE_NAME
from publisher.errors import AfpubError, AlreadyPublishedError, BusyError, DiskError, StaleBaseError
from publisher.names import RepoPath, TagName
from publisher.progress import Silent
from publisher.staging.digest import tree_digest
from publisher.tree import Entry, FolderTree, Graft, Kind

ROOT = Entry(path="", kind=Kind.DIRECTORY, mode=0o755)
AT = RepoPath("/af/images/x/1.0")


def file(path, content, **more):
    return Entry(
        path=path,
        kind=Kind.FILE,
        mode=0o644,
        content=content,
        size_bytes=len(content),
        **more,
    )


def link(path, target):
    return Entry(path=path, kind=Kind.SYMLINK, mode=0o777, target=target, size_bytes=len(target))


TREE = (
    ROOT,
    Entry(path="bin", kind=Kind.DIRECTORY, mode=0o755),
    file("bin/tool", b"#!/bin/sh\n", mtime_s=1000),
    file("data", b"\0" * 100_000),
    link("tool", "bin/tool"),
)


def changeset(backend, *grafts, **more):
    return Changeset(base=backend.head(), grafts=grafts, **more)


def test_a_tree_reads_back_as_it_was(backend, tmp_path):
    done = backend.publish(changeset(backend, Graft(at=AT, tree=TREE)))
    assert (done.new, done.files, done.revision) == (True, 2, backend.head())
    copy = backend.export(AT, tmp_path / "copy", Silent())
    own = [entry for entry in FolderTree(folder=copy) if not entry.path.startswith(STATE_NAME)]
    assert tree_digest(own) == tree_digest(TREE)
    assert (copy / "bin/tool").stat().st_mtime == 1000


def test_one_changeset_is_one_revision(backend):
    before = backend.head().number
    done = backend.publish(
        changeset(
            backend,
            Graft(at=AT, tree=TREE),
            Graft(at=RepoPath("/af/index.json"), tree=(file("", b"{}"),)),
            Graft(at=RepoPath("/af/channels/stable"), tree=(link("", "../releases/1.0"),)),
            tag=TagName("afpub-1.0"),
        )
    )
    assert done.revision.number == before + 1
    assert backend.read(RepoPath("/af/index.json")) == b"{}"


def test_files_and_links_are_replaced(backend, tmp_path):
    for content, target in ((b"one", "a"), (b"two", "b")):
        backend.publish(
            changeset(
                backend,
                Graft(at=RepoPath("/af/index.json"), tree=(file("", content),)),
                Graft(at=RepoPath("/af/stable"), tree=(link("", target),)),
            )
        )
        copy = backend.export(RepoPath("/af"), tmp_path / "copy", Silent())
        assert (copy / "index.json").read_bytes() == content
        assert (copy / "stable").readlink().name == target


def test_what_is_there_already_makes_no_revision(backend):
    backend.publish(changeset(backend, Graft(at=AT, tree=TREE)))
    before = backend.head()
    again = backend.publish(changeset(backend, Graft(at=AT, tree=TREE)))
    assert (again.new, again.revision) == (False, before)


def test_removals(backend):
    backend.publish(changeset(backend, Graft(at=AT, tree=TREE)))
    backend.publish(changeset(backend, removals=(AT / "data",)))
    assert backend.read(AT / "data") is None
    assert backend.read(AT / "bin/tool") == b"#!/bin/sh\n"


def test_what_is_not_there_reads_as_nothing(backend):
    assert backend.read(RepoPath("/nowhere/at/all")) is None


def test_a_repository_that_moved_on_is_noticed(backend):
    old = changeset(backend, Graft(at=AT, tree=TREE))
    backend.publish(changeset(backend, Graft(at=RepoPath("/other"), tree=(file("", b"1"),))))
    before = backend.head()
    with pytest.raises(StaleBaseError):
        backend.publish(old)
    assert backend.head() == before


def test_a_tag_names_one_revision(backend):
    tag = TagName("afpub-1.0")
    backend.publish(changeset(backend, Graft(at=AT, tree=TREE), tag=tag))
    later = changeset(backend, Graft(at=AT / "more", tree=(file("", b"1"),)), tag=tag)
    before = backend.head()
    assert [finding.check for finding in backend.preflight(later).errors] == ["tag"]
    with pytest.raises(AlreadyPublishedError):
        backend.publish(later)
    assert backend.head() == before


def test_preflight_has_nothing_to_say_about_a_good_changeset(backend):
    good = changeset(backend, Graft(at=AT, tree=TREE), tag=TagName("afpub-1.0"))
    assert backend.preflight(good).ok


def test_a_source_that_cannot_be_read_publishes_nothing(backend, tmp_path):
    gone = TREE[3]._replace(content=f"{tmp_path}/gone")
    before = backend.head()
    with pytest.raises(DiskError, match="gone"):
        backend.publish(changeset(backend, Graft(at=AT, tree=(*TREE[:3], gone))))
    assert backend.head() == before
    assert backend.publish(changeset(backend, Graft(at=AT, tree=TREE))).new


def test_two_publishers_at_once(backend):
    """One wins; the other is told that somebody is at work or that the repository moved on."""
    base = backend.head()
    outcomes = []
    gate = threading.Barrier(2)

    def run(name):
        change = Changeset(base=base, grafts=(Graft(at=RepoPath(f"/{name}"), tree=TREE),))
        gate.wait()
        try:
            outcomes.append(backend.publish(change).new)
        except BusyError as exc:
            outcomes.append(type(exc).__name__)

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(True) == 1
    assert {item for item in outcomes if item is not True} <= {"StaleBaseError", "TransactionOpenError"}
    assert backend.head().number == base.number + 1


def test_progress_counts_bytes(backend):
    seen = []
    backend.publish(
        changeset(backend, Graft(at=AT, tree=TREE)), progress=lambda done, total: seen.append((done, total))
    )
    total = sum(entry.size_bytes for entry in TREE if entry.kind is Kind.FILE)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


def test_the_root_cannot_be_removed(backend):
    with pytest.raises(AfpubError, match="root"):
        backend.publish(changeset(backend, removals=(RepoPath(""),)))
