"""Garbage collection removes what nothing needs, and nothing else."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from datetime import timedelta

import cvmfs_repository as repository
import pytest
from cvmfs_repository import Repo, file, graft, later

from publisher.cvmfs.check import check
from publisher.cvmfs.check_objects import parse_object_name
from publisher.cvmfs.digest import Algorithm, ObjectKind
from publisher.cvmfs.gc import collect_garbage, preview_garbage
from publisher.cvmfs.marking import Marks
from publisher.cvmfs.reflog import RefKind, parse_reflog
from publisher.cvmfs.tags import add_tag, remove_tag
from publisher.errors import NotFoundError, RepositoryError, TransactionOpenError, UsageError
from publisher.names import RepoPath, TagName

ALL = timedelta(0)
"""A grace period of nothing."""


@pytest.fixture
def repo(tmp_path) -> Repo:
    """Five revisions, an hour apart; the third has a name."""
    made = repository.make(tmp_path / "repo")
    made.publish(graft("/sw/a", file("f", b"first"), file("big", os.urandom(300_000)), catalogs=("",)), at=later(60))
    made.publish(graft("/sw/a", file("f", b"second"), catalogs=("",)), at=later(120), tag=TagName("good"))
    made.publish(graft("/sw/a", file("f", b"third"), catalogs=("",)), graft("/sw/b", file("g", b"b")), at=later(180))
    made.publish(graft("/sw/a", file("f", b"fourth"), catalogs=("",)), at=later(240))
    return made


def collect(repo: Repo, *, minutes: int = 300, grace: timedelta = ALL, **more):
    return collect_garbage(repo.folder, keys_folder=repo.keys, now=later(minutes), grace=grace, **more)


def preview(repo: Repo, *, minutes: int = 300, grace: timedelta = ALL):
    return preview_garbage(repo.folder, now=later(minutes), grace=grace)


def objects(repo: Repo) -> set[str]:
    return {str(path.relative_to(repo.folder)) for path in repo.folder.glob("data/??/*")}


def clean(repo: Repo) -> None:
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=later(999), all_tags=True).findings == ()


def numbers(rows) -> list[int | None]:
    return sorted(row.number for row in rows)


def read(repo: Repo, at, path: str = "sw/a/f") -> bytes:
    with repo.open() as reader, reader.at(at) as revision:
        return b"".join(revision.read(path))


def indexed(repo: Repo) -> set[bytes]:
    with sqlite3.connect(repo.folder / ".afpub" / "contents.sqlite") as database:
        return {row[0] for row in database.execute("SELECT digest FROM contents")}


def test_newest_tagged_and_undo_stay(repo):
    before = objects(repo)
    done = collect(repo)
    assert {row.number: row.why for row in done.kept} == {
        5: ("newest", "tag trunk"),
        4: ("tag trunk-previous",),
        3: ("tag good",),
    }
    assert numbers(done.dropped) == [1, 2]
    after = objects(repo)
    assert (done.objects_removed, done.objects_kept) == (len(before - after), len(after))
    assert done.removed[ObjectKind.CHUNK] >= 2
    assert done.removed[ObjectKind.FILE] == 1
    assert read(repo, 5) == b"fourth"
    assert read(repo, 4) == b"third"
    assert read(repo, "good") == b"second"
    clean(repo)


def test_nothing_is_left_that_no_revision_needs(repo):
    """The objects that stay are exactly those that readers of the kept revisions open."""
    collect(repo)
    needed = set()
    with repo.open() as reader:
        for root in ("good", 4, 5):
            with reader.at(root) as revision:
                needed |= {info.digest.object_name(ObjectKind.CATALOG) for info in revision.catalogs()}
                for stored in revision.walk():
                    if stored.digest:
                        needed.add(stored.digest.object_name(ObjectKind.FILE))
                    for chunk in stored.chunks:
                        digest = replace(revision.root_hash, raw=chunk.digest)
                        needed.add(digest.object_name(ObjectKind.CHUNK))
    kinds = (ObjectKind.HISTORY, ObjectKind.CERTIFICATE, ObjectKind.METAINFO)
    assert {name for name in objects(repo) if parse_object_name(name)[1] not in kinds} == needed


def test_dry_run_says_the_same_and_changes_nothing(repo):
    files = {path: path.read_bytes() for path in repo.folder.rglob("*") if path.is_file()}
    said = preview(repo)
    assert {path: path.read_bytes() for path in repo.folder.rglob("*") if path.is_file()} == files
    done = collect(repo)
    assert said.dry_run
    assert not done.dry_run
    assert replace(said, dry_run=False, seconds=0) == replace(done, seconds=0)
    assert preview(repo).objects_removed == 0


@pytest.mark.parametrize(
    ("minutes", "kept"),
    [
        (0, [3, 4, 5]),
        (59, [3, 4, 5]),
        (61, [3, 4, 5]),
        (121, [3, 4, 5]),
        (181, [2, 3, 4, 5]),
        (241, [1, 2, 3, 4, 5]),
    ],
)
def test_grace_keeps_what_clients_could_see_since(repo, minutes, kept):
    """Revisions 2 to 5 came 240, 180, 120 and 60 minutes ago."""
    done = collect(repo, grace=timedelta(minutes=minutes))
    assert numbers(done.kept) == kept
    clean(repo)


def test_without_names_the_revision_that_was_newest_at_the_moment_stays(repo):
    remove_tag(repo.folder, "good", keys_folder=repo.keys, now=later(250))
    assert numbers(collect(repo, grace=timedelta(minutes=121)).kept) == [3, 4, 5]
    assert numbers(collect(repo, grace=timedelta(minutes=119)).kept) == [4, 5]


def test_default_grace_is_three_days(repo):
    now = later(240) + timedelta(days=3)
    assert numbers(preview_garbage(repo.folder, now=now - timedelta(minutes=1)).kept) == [3, 4, 5]
    early = later(120) + timedelta(days=3, minutes=-1)
    assert numbers(preview_garbage(repo.folder, now=early).kept) == [2, 3, 4, 5]


def test_collected_revision_is_said_to_be_gone(repo):
    collect(repo)
    with repo.open() as reader:
        with pytest.raises(NotFoundError) as caught:
            reader.at(2)
        assert caught.value.message == (
            f"{repo.folder} has no revision 2 any more: garbage collection removed what was before revision 3 "
            "and has no tag"
        )
        assert caught.value.hint == "afpub repo tag lists the tags, whose revisions are kept"
        with pytest.raises(NotFoundError) as caught:
            reader.at(6)
        assert (caught.value.message, caught.value.hint) == (f"{repo.folder} has no revision 6", "the newest is 5")
        with pytest.raises(NotFoundError, match=r"has no revision 0"):
            reader.at(0)


def test_reflog_and_manifest_say_what_is_left(repo):
    with repo.open() as reader:
        before = reader.manifest
    done = collect(repo)
    data = (repo.folder / ".cvmfsreflog").read_bytes()
    reflog = parse_reflog(data)
    catalogs = {ref.digest for ref in reflog.refs if ref.kind is RefKind.CATALOG}
    assert catalogs == {row.root for row in done.kept}
    with repo.open() as reader:
        assert reader.manifest == replace(before, reflog=Algorithm.SHA1.digest(data))
    names = {name for name in objects(repo) if name[-1] in "HXM"}
    assert len(names) == sum(ref.kind is not RefKind.CATALOG for ref in reflog.refs)


def test_what_was_removed_can_be_published_again(repo):
    """The index of contents must not promise objects that are gone."""
    digests = indexed(repo)
    collect(repo)
    names = objects(repo)
    assert indexed(repo) < digests
    present = {parse_object_name(name)[0].raw for name in names}
    assert indexed(repo) <= present
    done = repo.publish(graft("/sw/c", file("f", b"first")), at=later(400))
    assert done.revision == 6
    assert read(repo, 6, "sw/c/f") == b"first"
    clean(repo)
    assert numbers(collect(repo, minutes=500).kept) == [3, 5, 6]


def test_content_that_only_another_revision_still_needs_stays(repo):
    repo.publish(graft("/sw/d", file("f", b"first")), at=later(260))
    remove_tag(repo.folder, "good", keys_folder=repo.keys, now=later(261))
    collect(repo)
    assert read(repo, 6, "sw/d/f") == b"first"
    clean(repo)


def test_a_tag_on_an_old_revision_saves_it(repo):
    add_tag(repo.folder, TagName("old"), keys_folder=repo.keys, now=later(250), revision=2)
    assert numbers(collect(repo).kept) == [2, 3, 4, 5]
    assert read(repo, "old") == b"first"


def test_second_collection_finds_nothing(repo):
    collect(repo)
    manifest = (repo.folder / ".cvmfspublished").read_bytes()
    done = collect(repo, minutes=400)
    assert (done.objects_removed, done.dropped) == (0, ())
    assert (repo.folder / ".cvmfspublished").read_bytes() == manifest
    assert numbers(collect(repo, minutes=500, grace=timedelta(days=30)).kept) == [3, 4, 5]


def test_debris_of_failed_publishes_is_removed(repo):
    lost = repo.folder / "data/ab/cdef0123456789cdef0123456789cdef012345"
    lost.parent.mkdir(exist_ok=True)
    lost.write_bytes(b"stored, never published")
    txn = repo.folder / "data" / "txn"
    (txn / "afpub-9-9").write_bytes(b"ours")
    (txn / "fresh").write_bytes(b"another tool is at work")
    (txn / "stale").write_bytes(b"another tool was at work")
    moment = later(300).timestamp()
    os.utime(txn / "fresh", (moment, moment - 3600))
    os.utime(txn / "stale", (moment, moment - 25 * 3600))
    assert preview(repo).temporaries == 2
    done = collect(repo, grace=timedelta(days=30))
    assert not lost.exists()
    assert (done.objects_removed, done.dropped) == (1, ())
    assert [path.name for path in txn.iterdir()] == ["fresh"]


def test_files_that_are_no_objects_are_left_alone(repo):
    stray = repo.folder / "data/00/notes.txt"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"?")
    collect(repo)
    assert stray.exists()


def test_repository_that_promises_to_keep_everything(tmp_path):
    repo = repository.make(tmp_path / "repo", replace(repository.SMALL, garbage_collectable=False))
    for number in range(4):
        repo.publish(graft("/a", file("f", b"%d" % number)), at=later(number + 1))
    before = objects(repo)
    with pytest.raises(RepositoryError) as caught:
        collect(repo)
    assert caught.value.message == (
        f"{repo.folder} is not garbage collectable: its manifest promises that old revisions stay"
    )
    assert caught.value.hint == "if nobody relies on that any more, say so for good: afpub repo gc --enable"
    assert objects(repo) == before
    assert numbers(collect(repo, enable=True).dropped) == [1, 2, 3]
    with repo.open() as reader:
        assert reader.manifest.garbage_collectable
    repo.publish(graft("/a", file("f", b"again")), at=later(400))
    collect(repo)
    clean(repo)


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_damaged_revision_that_is_kept_stops_it(repo, how):
    with repo.open() as reader, reader.at("good") as revision:
        nested = revision.lookup("sw/a").catalog.object_name(ObjectKind.CATALOG)
    path = repo.folder / nested
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] + b"\0")
    before = objects(repo)
    with pytest.raises(RepositoryError) as caught:
        collect(repo)
    assert caught.value.message.startswith("a revision that is to be kept is damaged, nothing was removed: ")
    assert nested in caught.value.message
    assert caught.value.hint == "afpub repo fsck says what is damaged"
    assert objects(repo) == before
    path.write_bytes(data)
    collect(repo)
    clean(repo)


def test_never_while_somebody_publishes(repo):
    def interfere(state) -> None:
        with pytest.raises(TransactionOpenError, match="is held by another publisher"):
            collect(repo)
        assert preview(repo).dry_run

    repo.publish(graft("/sw/x", file("f", b"x")), at=later(300), progress=interfere)
    clean(repo)


def test_no_negative_grace(repo):
    for call in (collect, preview):
        with pytest.raises(UsageError, match="the grace period cannot be negative"):
            call(repo, grace=timedelta(seconds=-1))


def test_reflog_that_is_missing_is_made_anew(repo):
    (repo.folder / ".cvmfsreflog").unlink()
    done = collect(repo)
    assert numbers(done.kept) == [3, 4, 5]
    assert read(repo, "good") == b"second"
    clean(repo)


@pytest.mark.parametrize("algorithm", [Algorithm.SHAKE128, Algorithm.RMD160])
def test_other_algorithms(tmp_path, algorithm):
    repo = repository.make(tmp_path / "repo", replace(repository.SMALL, algorithm=algorithm))
    for number in range(4):
        content = os.urandom(200_000)
        repo.publish(graft("/a", file("f", content), file("g", b"%d" % number)), at=later(number + 1))
    assert collect(repo).objects_removed > 0
    assert read(repo, 5, "a/f") == content
    clean(repo)


def test_removed_folders_lose_their_objects(repo):
    repo.publish(removals=(RepoPath("/sw/b"),), at=later(250))
    repo.publish(graft("/sw/e", file("f", b"e")), at=later(251))
    with repo.open() as reader, reader.at(5) as old:
        name = old.lookup("sw/b/g").digest.object_name(ObjectKind.FILE)
    assert (repo.folder / name).exists()
    collect(repo)
    assert not (repo.folder / name).exists()
    clean(repo)


def test_marks_are_a_set():
    marks = Marks()
    kinds = (ObjectKind.FILE, ObjectKind.CHUNK)
    digests = [bytes([7]) + number.to_bytes(19, "big") for number in range(6000)]
    for _ in range(3):
        for raw in digests:
            for kind in kinds:
                marks.add(raw, kind)
    assert marks.folder(7) == {Marks.key(raw, kind) for raw in digests for kind in kinds}
    assert marks.digests(7) == set(digests)
    assert marks.folder(8) == set()
    assert Marks.key(digests[0], ObjectKind.CATALOG) not in marks.folder(7)
