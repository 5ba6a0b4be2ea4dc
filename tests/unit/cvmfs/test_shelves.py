"""Marks and references of many objects, most of them in a file: nothing is lost, and little is in memory."""

from __future__ import annotations

import os
import tempfile
import tracemalloc

import cvmfs_repository as repository
import pytest
from cvmfs_repository import file, graft, later
from hypothesis import given
from hypothesis import strategies as st

from publisher.cvmfs import shelves
from publisher.cvmfs.check import check
from publisher.cvmfs.check_catalog import Reference
from publisher.cvmfs.check_objects import References
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.content_index import ContentIndex
from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.gc import GRACE, collect_garbage
from publisher.cvmfs.marking import Marks
from publisher.cvmfs.shelves import Shelves
from publisher.errors import DiskError


@pytest.fixture(params=[0, 300, 16 << 20])
def memory(request, monkeypatch):
    """Everything in the file, some of it, nothing."""
    monkeypatch.setattr(shelves, "_MEMORY_BYTES", request.param)
    return request.param


def test_shelves_keep_everything_in_order(memory):
    made, wanted = Shelves(), dict.fromkeys(range(256), b"")
    for count in range(2000):
        number, record = count * 7 % 256, b"%d;" % count
        made.add(number, record)
        wanted[number] += record
        if count == 1000:
            assert made.read(7) == wanted[7], "reading does not disturb"
    assert {number: made.read(number) for number in range(256)} == wanted


def test_little_is_in_memory(monkeypatch):
    monkeypatch.setattr(shelves, "_MEMORY_BYTES", 1 << 20)
    marks = Marks()
    tracemalloc.start()
    try:
        for count in range(200_000):
            marks.add(bytes([count & 0xFF]) + count.to_bytes(19, "big"), ObjectKind.FILE)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20, "4.2 MB were marked"
    finally:
        tracemalloc.stop()
    assert sum(len(marks.folder(number)) for number in range(256)) == 200_000


def test_marks_are_a_set(memory):
    marks = Marks()
    raws = [bytes([number % 3]) * 20 for number in range(50)]
    for raw in raws:
        marks.add(raw, ObjectKind.FILE)
        marks.add(raw, ObjectKind.CATALOG)
    kinds = (ObjectKind.FILE, ObjectKind.CATALOG)
    assert marks.folder(1) == {Marks.key(b"\1" * 20, kind) for kind in kinds}
    assert marks.digests(2) == {b"\2" * 20}
    assert marks.folder(3) == set()


@given(
    st.lists(
        st.builds(
            Reference,
            digest=st.builds(
                Digest, raw=st.binary(min_size=20, max_size=20), algorithm=st.sampled_from(list(Algorithm))
            ),
            kind=st.sampled_from(list(ObjectKind)),
            compression=st.sampled_from(list(Compression)),
            size_bytes=st.integers(-1, (1 << 63) - 1),
            where=st.binary(max_size=300).map(os.fsdecode),
        ),
        max_size=30,
    )
)
def test_references_come_back_as_they_were(given_references):
    made = References()
    made.extend(given_references)
    found = [reference for number in range(256) for claims in made.folder(number).values() for reference in claims]
    claims = {}
    for each in given_references:
        key = (each.digest, each.kind, each.compression, each.size_bytes)
        claims.setdefault(key, each)  # the first path is told
    assert sorted(map(repr, found)) == sorted(map(repr, claims.values()))


def test_collections_and_checks_are_the_same(memory, tmp_path):
    repo = repository.make(tmp_path / "repo")
    files = [file(f"f{number}", b"%d" % number) for number in range(80)]
    repo.publish(graft("/a", *files), at=later(1))
    repo.publish(graft("/a", *files[:40]), at=later(2))
    repo.publish(graft("/a", *files[:41]), at=later(3))
    done = collect_garbage(repo.folder, keys_folder=repo.keys, now=later(9) + 2 * GRACE)
    assert done.removed[ObjectKind.FILE] == 39
    assert check(repo.folder).findings == ()
    with repo.open() as reader:
        lost = reader.lookup("a/f7").digest.object_name(ObjectKind.FILE)
    (repo.folder / lost).unlink()
    for data in (True, False):
        (found,) = check(repo.folder, data=data).findings
        assert (found.check, found.message) == ("object-missing", f"the object {lost} is missing")
        assert found.where == "/a/f7"


def test_the_index_is_asked_in_the_order_of_digests(tmp_path):
    """So that the marks of one folder at a time are in memory."""
    asked = []

    def is_kept(raw):
        asked.append(raw)
        return raw[1] % 2 == 0

    with ContentIndex(tmp_path / "contents.sqlite") as index:
        keys = [os.urandom(32) for _ in range(1000)]
        for number, key in enumerate(keys):
            index.put(key, bytes([number * 37 % 256, number % 256]) + os.urandom(18), 5)
        index.flush()
        index.forget(is_kept)
        index.forget(is_kept)
        assert asked[:1000] == sorted(asked[:1000])
        assert len(asked) == 1500
        assert [key in index.get([key]) for key in keys] == [number % 2 == 0 for number in range(1000)]


def test_a_full_disk_for_temporary_files_is_told(monkeypatch):
    monkeypatch.setattr(shelves, "_MEMORY_BYTES", 0)

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(DiskError) as caught:
        Shelves().add(0, b"x")
    assert caught.value.message == f"cannot write temporary files in {tempfile.gettempdir()}: No space left on device"
    assert caught.value.hint == "make room on the disk and run it again"
