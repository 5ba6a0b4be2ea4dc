"""A repository is made whole, or not at all."""

from __future__ import annotations

import os

import cvmfs_repository as repository
import pytest

from publisher.cvmfs.check import check
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.settings import Settings
from publisher.errors import DiskError, TrustError


def create(folder, keys=None, **settings):
    return create_repository(
        folder,
        repository.FQRN,
        keys_folder=keys or repository.shared_keys(),
        settings=Settings(**settings),
        now=repository.NOW,
        metainfo={"administrator": "A. Manager", "description": "kernels"},
    )


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_new_repository_is_an_empty_root(tmp_path, algorithm):
    folder = tmp_path / "deep" / "repo"
    manifest = create(folder, algorithm=algorithm)
    assert (manifest.revision, manifest.fqrn, manifest.ttl_s) == (1, repository.FQRN, 240)
    repo = repository.Repo(folder, repository.shared_keys())
    with repo.open() as reader:
        (root,) = reader.walk()
        assert (root.entry.mode, root.nlink, root.raw_size) == (0o755, 2, 4096)
        (tag,) = reader.tags()
        assert (tag.name, tag.revision, tag.description) == ("trunk", 1, "current HEAD")
        (info,) = reader.catalogs()
        assert dict(info.statistics.rows()) == {name: int(name == "self_dir") for name, _ in info.statistics.rows()}
        assert "previous_revision" not in info.properties
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(folder, public_key=key, now=repository.NOW).findings == ()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["repo"]


def test_empty_folder_is_used(tmp_path):
    create(tmp_path)
    assert (tmp_path / ".cvmfspublished").exists()


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DiskError, match="is not empty"):
        create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_second_repository_in_the_same_place_is_refused(tmp_path):
    create(tmp_path / "repo")
    before = (tmp_path / "repo" / ".cvmfspublished").read_bytes()
    with pytest.raises(DiskError, match=r"there is a repository in .* already"):
        create(tmp_path / "repo")
    assert (tmp_path / "repo" / ".cvmfspublished").read_bytes() == before


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(DiskError, match="is not empty"):
        create(tmp_path / "link")


def test_without_keys_nothing_is_made(tmp_path):
    with pytest.raises(TrustError, match="cannot read the key file"):
        create(tmp_path / "repo", keys=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_failing_half_way_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left on device"):
        create(tmp_path / "repo")
    assert list(tmp_path.iterdir()) == []
