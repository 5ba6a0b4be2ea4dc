"""One thing is damaged at a time, and repaired; nothing wrong is ever put in its place."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import Repo, file, graft, later

from publisher.cvmfs.check import check
from publisher.cvmfs.digest import ObjectKind
from publisher.cvmfs.reflog import parse_reflog
from publisher.cvmfs.repair import Origin, repair
from publisher.cvmfs.source import FolderSource
from publisher.names import RepoPath, TagName
from publisher.tree import FolderTree, Graft


@pytest.fixture
def folder(tmp_path) -> Path:
    """What is published."""
    made = tmp_path / "package"
    (made / "lib").mkdir(parents=True)
    (made / "lib/small").write_bytes(b"small " * 100)
    (made / "big").write_bytes(os.urandom(400_000))
    return made


def published(folder: Path, at: Path, settings=repository.SMALL) -> Repo:
    repo = repository.make(at, settings)
    repo.publish(graft("/old", file("f", b"old")), at=later(1), tag=TagName("first"))
    repo.publish(
        Graft(at=RepoPath("/sw"), tree=tuple(FolderTree(folder=folder)), catalogs=frozenset({"lib"})), at=later(2)
    )
    repo.publish(graft("/old", file("f", b"new")), at=later(3))
    return repo


@pytest.fixture
def repo(folder, tmp_path) -> Repo:
    return published(folder, tmp_path / "repo")


@pytest.fixture
def mirror(repo, tmp_path) -> FolderSource:
    shutil.copytree(repo.folder, tmp_path / "mirror")
    return FolderSource(tmp_path / "mirror")


def errors(repo: Repo) -> list[str]:
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    report = check(repo.folder, public_key=key, now=later(99), all_tags=True)
    return [finding.message for finding in report.errors]


def mend(repo: Repo, **more) -> list[tuple[str, str]]:
    report = repair(repo.folder, keys_folder=repo.keys, now=later(10), **more)
    assert report.ok
    return [(finding.where, finding.message) for finding in report.findings]


def names(repo: Repo) -> dict[str, str]:
    """One object of each kind that the newest revision and the tag need."""
    with repo.open() as reader:
        manifest = reader.manifest
        stored, big = reader.lookup("sw/lib/small"), reader.lookup("sw/big")
        return {
            "root catalog": manifest.root.object_name(ObjectKind.CATALOG),
            "nested catalog": reader.lookup("sw/lib").catalog.object_name(ObjectKind.CATALOG),
            "tagged catalog": reader.at("first").root_hash.object_name(ObjectKind.CATALOG),
            "certificate": manifest.certificate.object_name(ObjectKind.CERTIFICATE),
            "tag database": manifest.history.object_name(ObjectKind.HISTORY),
            "metainfo": manifest.metainfo.object_name(ObjectKind.METAINFO),
            "file": stored.digest.object_name(ObjectKind.FILE),
            "chunk": replace(manifest.root, raw=big.chunks[1].digest).object_name(ObjectKind.CHUNK),
        }


KINDS = (
    "root catalog",
    "nested catalog",
    "tagged catalog",
    "certificate",
    "tag database",
    "metainfo",
    "file",
    "chunk",
)


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_object_comes_back_from_a_mirror(repo, mirror, kind, how):
    name = names(repo)[kind]
    good = (repo.folder / name).read_bytes()
    damage(repo.folder / name, how)
    assert errors(repo)
    assert mend(repo, mirror=mirror) == [(name, f"fetched from {mirror.where}")]
    assert (repo.folder / name).read_bytes() == good
    assert errors(repo) == []
    assert mend(repo, mirror=mirror) == []


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
@pytest.mark.parametrize("kind", ["file", "chunk"])
@pytest.mark.parametrize("reference", [False, True])
def test_contents_are_made_anew_from_the_folder(folder, tmp_path, kind, how, reference):
    settings = replace(repository.SMALL, reference_compressor=reference)
    repo = published(folder, tmp_path / "other", settings)
    name = names(repo)[kind]
    good = (repo.folder / name).read_bytes()
    damage(repo.folder / name, how)
    (repo.folder / ".afpub/settings.json").unlink()  # the way they were compressed is found out
    source = folder / ("lib/small" if kind == "file" else "big")
    origin = Origin(folder=folder, at=RepoPath("/sw"))
    assert mend(repo, origin=origin) == [(name, f"made anew from {source}")]
    assert (repo.folder / name).read_bytes() == good
    assert errors(repo) == []


def test_a_folder_that_changed_repairs_nothing(repo, folder):
    name = names(repo)["file"]
    damage(repo.folder / name, "flipped")
    bad = (repo.folder / name).read_bytes()
    (folder / "lib/small").write_bytes(b"SMALL " * 100)
    assert mend(repo, origin=Origin(folder=folder, at=RepoPath("/sw"))) == []
    assert (repo.folder / name).read_bytes() == bad


@pytest.mark.parametrize("how", ["missing", "flipped"])
def test_a_mirror_that_is_damaged_too_repairs_nothing(repo, mirror, how):
    name = names(repo)["file"]
    damage(mirror.folder / name, how)
    damage(repo.folder / name, "missing")
    assert mend(repo, mirror=mirror) == []
    assert not (repo.folder / name).exists()
    assert list((repo.folder / "data/txn").iterdir()) == []


def test_nothing_to_repair_changes_nothing(repo, mirror):
    before = {path: path.read_bytes() for path in repo.folder.rglob("*") if path.is_file()}
    assert mend(repo, mirror=mirror) == []
    assert {path: path.read_bytes() for path in repo.folder.rglob("*") if path.is_file()} == before


def test_damaged_garbage_is_removed(repo):
    lost = repo.folder / "data/ab/cdef0123456789cdef0123456789cdef012345"
    lost.parent.mkdir(exist_ok=True)
    lost.write_bytes(b"not what the name says")
    assert errors(repo)
    assert mend(repo) == [(str(lost.relative_to(repo.folder)), "was damaged and needed by nothing: removed")]
    assert errors(repo) == []


def test_damaged_garbage_stays_while_a_catalog_is_lost(repo):
    """It may be what the lost catalog refers to."""
    catalog = names(repo)["nested catalog"]
    small = names(repo)["file"]
    damage(repo.folder / catalog, "missing")
    damage(repo.folder / small, "flipped")
    assert mend(repo) == []
    assert (repo.folder / small).exists()


def test_damaged_objects_stay_while_the_tags_are_lost(repo):
    with repo.open() as reader, reader.at("first") as first:
        old = first.lookup("old/f").digest.object_name(ObjectKind.FILE)
    damage(repo.folder / names(repo)["tag database"], "flipped")
    damage(repo.folder / old, "flipped")
    assert mend(repo) == []
    assert (repo.folder / old).exists()


def test_what_only_an_earlier_revision_needs_is_repaired_too(repo, mirror):
    with repo.open() as reader, reader.at(3) as earlier:
        catalog = earlier.root_hash.object_name(ObjectKind.CATALOG)
    good = (repo.folder / catalog).read_bytes()
    damage(repo.folder / catalog, "flipped")
    assert (catalog, f"fetched from {mirror.where}") in mend(repo, mirror=mirror)
    assert (repo.folder / catalog).read_bytes() == good


@pytest.mark.parametrize("how", ["missing", "cut", "text", "other", "object"])
def test_reflog_is_made_anew(repo, how):
    path = repo.folder / ".cvmfsreflog"
    before = parse_reflog(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1024])
    elif how == "text":
        path.write_bytes(b"no database")
    elif how == "other":
        path.write_bytes(path.read_bytes().replace(repository.FQRN.encode(), b"x" * len(repository.FQRN)))
    else:
        (repo.folder / before.refs[2].digest.object_name(ObjectKind.HISTORY)).unlink()
    assert errors(repo)
    assert [where for where, _ in mend(repo)] == [".cvmfsreflog"]
    assert errors(repo) == []
    after = parse_reflog(path.read_bytes())
    catalogs = {ref.digest for ref in before.refs if ref.kind == 0}
    assert {ref.digest for ref in after.refs if ref.kind == 0} == catalogs
    assert mend(repo) == []


def test_what_dead_publishers_left_is_removed(repo):
    (repo.folder / "data/txn/afpub-1-1").write_bytes(b"half")
    (repo.folder / ".cvmfspublished.new-1").write_bytes(b"half")
    mend(repo)
    assert list((repo.folder / "data/txn").iterdir()) == []
    assert list(repo.folder.glob("*.new-*")) == []
