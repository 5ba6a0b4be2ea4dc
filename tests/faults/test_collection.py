"""Whatever happens to a garbage collection, the repository is right, and the next one finishes the work."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import Repo, file, graft, later

from publisher.cvmfs.check import check
from publisher.cvmfs.gc import collect_garbage
from publisher.errors import DiskError
from publisher.names import TagName


@pytest.fixture
def repo(tmp_path) -> Repo:
    made = repository.make(tmp_path / "repo")
    for number in range(4):
        made.publish(
            graft("/sw/one", file("f", b"one %d" % number), catalogs=("",)),
            graft("/sw/two", file("f", b"two %d" % number), file("n/f", b"n"), catalogs=("", "n")),
            tag=TagName("good") if number == 1 else None,
            at=later(-60 + number),
        )
    return made


def test_an_object_that_cannot_be_removed(repo, monkeypatch):
    unlink = os.unlink
    refused = []

    def refusing(path, **more):
        if "/data/" in str(path) and "/txn/" not in str(path) and len(refused) < 1:
            refused.append(path)
            raise OSError(1, "Operation not permitted")
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(DiskError) as caught:
        collect_garbage(repo.folder, keys_folder=repo.keys, now=later(30), grace=timedelta(0))
    assert caught.value.message == f"cannot remove {refused[0]}: Operation not permitted"
    monkeypatch.undo()
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=later(99), all_tags=True).findings == ()
    assert collect_garbage(repo.folder, keys_folder=repo.keys, now=later(31), grace=timedelta(0)).objects_removed > 0
    assert not Path(refused[0]).exists()
