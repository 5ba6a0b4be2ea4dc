"""A plain copy is right, cheap to bring up to date, and never leads out of its folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import directory, file, graft, later, link

from publisher.cvmfs import export as export_module
from publisher.cvmfs.digest import ObjectKind
from publisher.cvmfs.export import export
from publisher.errors import DiskError, NotFoundError, RepositoryError, TrustError
from publisher.tree import Entry, FolderTree, Kind


@pytest.fixture
def repo(tmp_path):
    return repository.make(tmp_path / "repo")


ENTRIES = (
    directory("empty", mtime_s=1_500_000_000),
    file("run", b"#!/bin/sh\n", mode=0o4755, mtime_s=1_400_000_000),
    file("read-only/f", b"r", mode=0o444),
    file("raw-\udcff", b"r"),
    file("big", bytes(range(256)) * 3000),
    link("link", "run"),
    link("raw-link", "a\udcff"),
    link("variant", "$(X:-run)"),
    link("out", "../../../../etc/passwd"),
    file("n/f", b"1"),
    file("n/m/g", b"2"),
    Entry(path="fifo", kind=Kind.FIFO, mode=0o644),
)


def publish(repo, *entries, minutes=0, catalogs=("", "n", "n/m")):
    return repo.publish(graft("/af", *entries, catalogs=catalogs), at=later(minutes))


def copy(repo, folder, **more):
    with repo.open() as reader:
        return export(reader, "/af", folder, **more)


def content(folder):
    """Names, kinds, modes and bytes of a copy, without what the copy remembers of itself."""
    found = {}
    for entry in FolderTree(folder=folder):
        if not entry.path.startswith(".afpub-export"):
            data = Path(entry.content).read_bytes() if entry.kind is Kind.FILE else entry.target
            found[entry.path] = (entry.kind, entry.mode, data)
    return found


def test_copy_is_what_was_published(repo, tmp_path):
    publish(repo, *ENTRIES)
    done = copy(repo, tmp_path / "copy")
    assert (done.written, done.kept, done.removed, done.skipped) == (9, 0, 0, ("fifo",))
    found = content(tmp_path / "copy")
    for entry in ENTRIES:
        if entry.kind is Kind.FILE:
            assert found[entry.path] == (Kind.FILE, entry.mode & 0o777, entry.content)
    assert found["variant"] == (Kind.SYMLINK, 0o777, "run")
    assert found["raw-link"][2] == "a\udcff"
    assert os.readlink(tmp_path / "copy" / "out") == "../../../../etc/passwd"
    assert "fifo" not in found
    assert (tmp_path / "copy" / "run").stat().st_mtime == 1_400_000_000
    assert (tmp_path / "copy" / "empty").stat().st_mtime == 1_500_000_000


def test_second_copy_writes_only_what_changed(repo, tmp_path):
    publish(repo, *ENTRIES)
    copy(repo, tmp_path / "copy")
    again = copy(repo, tmp_path / "copy")
    assert (again.written, again.removed) == (0, 0)
    changed = tuple(entry._replace(content=b"3") if entry.path == "n/m/g" else entry for entry in ENTRIES)
    publish(repo, *changed, minutes=1)
    done = copy(repo, tmp_path / "copy")
    assert done.written == 1
    assert (tmp_path / "copy" / "n" / "m" / "g").read_bytes() == b"3"
    copy(repo, tmp_path / "fresh")
    assert content(tmp_path / "copy") == content(tmp_path / "fresh")


@pytest.mark.parametrize(
    "entries",
    [
        (file("run", b"#!/bin/sh\n", mode=0o700, mtime_s=1_400_000_000),),
        (file("p", b"f"),),
        (directory("p"), file("p/q/r", b"1"), file("p/s", b"2")),
        (link("p", "elsewhere"),),
        (file("n", b"no directory any more"),),
        (link("n", "elsewhere"), file("empty/full", b"x")),
        (),
    ],
    ids=range(7),
)
def test_any_change_ends_in_the_same_copy(repo, tmp_path, entries):
    """From each tree to each: kinds replace each other, and what is gone is removed."""
    publish(repo, *ENTRIES, directory("p/old"), file("p/old/f", b"1"))
    copy(repo, tmp_path / "copy")
    publish(repo, *entries, minutes=1, catalogs=("",))
    copy(repo, tmp_path / "copy")
    copy(repo, tmp_path / "fresh")
    assert content(tmp_path / "copy") == content(tmp_path / "fresh")
    publish(repo, *ENTRIES, minutes=2)
    copy(repo, tmp_path / "copy")
    copy(repo, tmp_path / "third")
    assert content(tmp_path / "copy") == content(tmp_path / "third")


def test_own_files_in_the_copy_are_left_alone(repo, tmp_path):
    publish(repo, *ENTRIES)
    copy(repo, tmp_path / "copy")
    (tmp_path / "copy" / "n" / "mine").write_text("mine")
    publish(repo, *ENTRIES[:5], file("n/f", b"changed"), minutes=1, catalogs=("", "n"))
    copy(repo, tmp_path / "copy")
    assert (tmp_path / "copy" / "n" / "mine").read_text() == "mine"
    assert not (tmp_path / "copy" / "n" / "m" / "g").exists()


def test_thorough_copy_mends_what_was_changed(repo, tmp_path):
    publish(repo, *ENTRIES)
    copy(repo, tmp_path / "copy")
    (tmp_path / "copy" / "n" / "m" / "g").write_bytes(b"changed by somebody")
    (tmp_path / "copy" / "n" / "f").unlink()
    assert copy(repo, tmp_path / "copy").written == 0
    assert copy(repo, tmp_path / "copy", thorough=True).written == 2
    assert (tmp_path / "copy" / "n" / "m" / "g").read_bytes() == b"2"


def test_no_link_in_the_copy_is_followed(repo, tmp_path):
    publish(repo, *ENTRIES)
    copy(repo, tmp_path / "copy")
    outside = tmp_path / "outside"
    (outside / "m").mkdir(parents=True)
    (tmp_path / "copy" / "n" / "m" / "g").unlink()
    (tmp_path / "copy" / "n" / "m" / ".cvmfscatalog").unlink()
    (tmp_path / "copy" / "n" / "m").rmdir()
    (tmp_path / "copy" / "n" / "m").symlink_to(outside)
    copy(repo, tmp_path / "copy", thorough=True)
    assert list(outside.rglob("*")) == [outside / "m"]
    assert not (tmp_path / "copy" / "n" / "m").is_symlink()
    assert (tmp_path / "copy" / "n" / "m" / "g").read_bytes() == b"2"


def test_a_copy_that_was_interrupted_is_brought_to_its_end(repo, tmp_path, monkeypatch):
    """Stopped after each number of files, then rolled back or forward: no file of the other revision stays."""
    publish(repo, *ENTRIES)
    copy(repo, tmp_path / "old")
    old = content(tmp_path / "old")
    changed = [
        entry._replace(content=b"new " + entry.content, size_bytes=len(entry.content) + 4)
        for entry in ENTRIES
        if entry.kind is Kind.FILE
    ]
    publish(repo, *changed, minutes=1)
    copy(repo, tmp_path / "new")
    new = content(tmp_path / "new")
    real = export_module._write_file
    for number in range(1, 7):
        left = [number]

        def stop(source, at, stored, left=left):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return real(source, at, stored)

        folder = tmp_path / f"copy-{number}"
        with repo.open() as newest, newest.at(2) as reader:
            export(reader, "/af", folder)
            monkeypatch.setattr(export_module, "_write_file", stop)
            with pytest.raises(KeyboardInterrupt):
                export(newest, "/af", folder, jobs=1)
            monkeypatch.setattr(export_module, "_write_file", real)
            if number % 2:
                export(reader, "/af", folder)
                assert content(folder) == old
            export(newest, "/af", folder)
        assert content(folder) == new


def test_damaged_object_is_never_put_in_place(repo, tmp_path):
    publish(repo, *ENTRIES)
    with repo.open() as reader:
        path = repo.folder / reader.lookup("af/n/m/g").digest.object_name(ObjectKind.FILE)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(TrustError, match="is damaged: its digest is"):
        copy(repo, tmp_path / "copy")
    assert not (tmp_path / "copy" / "n" / "m" / "g").exists()
    assert not list((tmp_path / "copy").rglob(".afpub-new-*"))


def test_read_only_folders(repo, tmp_path):
    entries = (directory("locked")._replace(mode=0o555), file("locked/f", b"1"))
    publish(repo, *entries, catalogs=("",))
    copy(repo, tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy" / "locked").stat().st_mode) == 0o555
    publish(repo, entries[0], file("locked/g", b"2"), minutes=1, catalogs=("",))
    copy(repo, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy" / "locked").iterdir()] == ["g"]
    assert stat.S_IMODE((tmp_path / "copy" / "locked").stat().st_mode) == 0o555


def test_copy_of_something_else_in_the_same_folder(repo, tmp_path):
    publish(repo, *ENTRIES)
    copy(repo, tmp_path / "copy")
    with repo.open() as reader, pytest.raises(RepositoryError, match=r"is a copy of test\.afpub\.example /af, not of"):
        export(reader, "/af/n", tmp_path / "copy")


def test_lost_memory_costs_time_only(repo, tmp_path):
    publish(repo, *ENTRIES)
    copy(repo, tmp_path / "copy")
    before = content(tmp_path / "copy")
    (tmp_path / "copy" / ".afpub-export").write_bytes(b"no database, but as long as a database should be" * 100)
    assert copy(repo, tmp_path / "copy").written == 9
    assert content(tmp_path / "copy") == before


def test_no_such_directory(repo, tmp_path):
    with repo.open() as reader, pytest.raises(NotFoundError, match="there is no directory /nothing in"):
        export(reader, "nothing", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_folder_that_cannot_be_made(repo, tmp_path):
    publish(repo, *ENTRIES)
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"cannot make the folder .*file/copy: Not a directory"):
        copy(repo, tmp_path / "file" / "copy")
