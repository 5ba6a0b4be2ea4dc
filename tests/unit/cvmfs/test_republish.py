"""The tree of an earlier revision becomes the newest one again."""

from __future__ import annotations

from datetime import timedelta

import cvmfs_repository as repository
import pytest
from cvmfs_repository import Repo, file, graft, later

from publisher.cvmfs.check import check
from publisher.cvmfs.gc import collect_garbage
from publisher.cvmfs.republish import republish
from publisher.errors import AlreadyPublishedError, NotFoundError
from publisher.names import TagName


@pytest.fixture
def repo(tmp_path) -> Repo:
    made = repository.make(tmp_path / "repo")
    made.publish(
        graft("/sw/a", file("f", b"good"), file("n/g", b"n"), catalogs=("", "n")), at=later(1), tag=TagName("good")
    )
    made.publish(graft("/sw/a", file("f", b"bad")), graft("/sw/b", file("f", b"b")), at=later(2))
    return made


def again(repo: Repo, revision, minutes: int = 3, **more):
    return republish(repo.folder, revision, keys_folder=repo.keys, now=later(minutes), **more)


def tree(reader) -> list[tuple[object, ...]]:
    return [(stored.entry, stored.digest, stored.catalog) for stored in reader.walk()]


def clean(repo: Repo) -> None:
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=later(99), all_tags=True).findings == ()


@pytest.mark.parametrize("name", ["good", 2])
def test_tree_comes_back_as_it_was(repo, name):
    with repo.open() as reader, reader.at(name) as old:
        wanted = tree(old)
        bad = reader.root_hash
    done = again(repo, name)
    assert (done.revision, done.changed, done.catalogs_written) == (4, True, 1)
    with repo.open() as reader:
        assert (reader.revision, reader.root_hash) == (4, done.root.digest)
        assert tree(reader) == wanted
        assert next(reader.catalogs()).properties["previous_revision"] == str(bad)
        assert {tag.name: tag.revision for tag in reader.tags()} == {"good": 2, "trunk": 4, "trunk-previous": 3}
        assert reader.at(3).lookup("sw/b/f") is not None
    clean(repo)


def test_what_comes_next_starts_from_it(repo):
    again(repo, "good", tag=TagName("better"))
    repo.publish(graft("/sw/c", file("f", b"c")), at=later(4))
    with repo.open() as reader:
        assert b"".join(reader.read("sw/a/f")) == b"good"
        assert reader.lookup("sw/b") is None
        assert reader.at("better").revision == 4
    clean(repo)


def test_twice_is_once(repo):
    first = again(repo, "good")
    for name in ("good", 4, "trunk"):
        done = again(repo, name, 5)
        assert (done.changed, done.root) == (False, first.root)


def test_refusals(repo):
    with pytest.raises(AlreadyPublishedError, match="the tag 'good' exists already"):
        again(repo, "good", tag=TagName("good"))
    with pytest.raises(NotFoundError, match="has no tag 'none'"):
        again(repo, "none")
    repo.publish(graft("/x", file("f", b"x")), at=later(6))
    repo.publish(graft("/x", file("f", b"y")), at=later(7))
    collect_garbage(repo.folder, keys_folder=repo.keys, now=later(8), grace=timedelta(0))
    with pytest.raises(NotFoundError, match="has no revision 3 any more"):
        again(repo, 3, 9)
    clean(repo)
