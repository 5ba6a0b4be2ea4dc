"""What makes publishing quick must not change what is published."""

from __future__ import annotations

import hashlib

import cvmfs_repository as repository
import pytest
from cvmfs_repository import file, graft, later, link

from publisher.cvmfs import contents, store
from publisher.cvmfs.catalog import Catalog, CatalogRef
from publisher.cvmfs.check import check
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.content_index import ContentIndex
from publisher.cvmfs.fingerprint import fingerprint, fingerprint_of
from publisher.cvmfs.settings import Settings
from publisher.errors import DiskError


@pytest.fixture
def repo(tmp_path):
    return repository.make(tmp_path / "repo")


def noise(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(b"%d" % seed).digest(size)


def test_fingerprint_of_rows_is_that_of_their_catalog(repo):
    repo.publish(
        graft(
            "/a",
            file("chunked", noise(900_000)),
            file("x", b"x", xattrs=(("user.a", b"\0\xff"),)),
            file("raw-\udcff", b"r", mtime_s=-1),
            file("one", b"same", link_group=4),
            file("two", b"same", link_group=4),
            link("link", "$(HOME)/\udcfe"),
        ),
        at=later(1),
    )
    with repo.open() as reader:
        catalog = reader.catalog(CatalogRef(path="", digest=reader.root_hash, size_bytes=0))
        rows = tuple(catalog.rows())
        assert fingerprint(catalog) == fingerprint_of(rows) == fingerprint_of(rows[::-1])
        chunked = next(row for row in rows if row.chunked)
        for missing in rows:
            assert fingerprint_of([row for row in rows if row is not missing]) != fingerprint(catalog)
        assert len(chunked.chunks) > 2


def test_unchanged_catalogs_are_not_decoded(repo, monkeypatch):
    entries = [file(f"d{number % 7}/f{number}", b"%d" % number) for number in range(200)]
    repo.publish(graft("/a/b", *entries, catalogs=("", "d3")), at=later(1))
    decoded = []
    decode = Catalog.decode

    def noted(self, raw, directory, *, root=False):
        decoded.append(directory)
        return decode(self, raw, directory, root=root)

    monkeypatch.setattr(Catalog, "decode", noted)
    assert not repo.publish(graft("/a/b", *entries, catalogs=("", "d3")), at=later(2)).changed
    assert {path for path in decoded if path.startswith("/a/b")} == set()
    changed = [file("d3/f3", b"changed"), *(entry for entry in entries if entry.path != "d3/f3")]
    assert repo.publish(graft("/a/b", *changed, catalogs=("", "d3")), at=later(3)).catalogs_written == 3


def test_names_are_given_between_two_waits_for_the_disk(repo, monkeypatch):
    steps = []
    wait, rename = store.sync_filesystem, store.os.replace
    monkeypatch.setattr(store, "sync_filesystem", lambda folder: (steps.append("sync"), wait(folder)))
    monkeypatch.setattr(store.os, "replace", lambda old, new: (steps.append(f"{new}"), rename(old, new)))
    repo.publish(graft("/a", *(file(f"f{number}", b"%d" % number) for number in range(100))), at=later(1))
    names = steps[1:-3]
    assert steps[0] == steps[-3] == "sync"
    assert len(names) > 100
    assert all("/data/" in name for name in names)
    assert [name.rpartition("/")[2] for name in steps[-2:]] == [".cvmfsreflog", ".cvmfspublished"]
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=later(9)).findings == ()


@pytest.mark.parametrize("most_bytes", [1, 300_000, 1 << 30])
def test_what_is_held_in_memory_is_bounded_and_nothing_is_lost(repo, monkeypatch, most_bytes):
    monkeypatch.setattr(contents, "_AHEAD_BYTES", most_bytes)
    big = {f"big{number}": noise(700_000, number) for number in range(5)}
    small = {f"s{number}": noise(number * 11, number) for number in range(150)}
    repo.publish(graft("/a", *(file(name, data) for name, data in (big | small).items())), at=later(1), jobs=8)
    with repo.open() as reader:
        for name, data in (big | small).items():
            assert b"".join(reader.read(f"a/{name}")) == data


def test_a_small_file_that_shrank_or_grew_is_noticed(repo, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    entry = file("f", path)
    for data in (b"1234", b"123456", b""):
        path.write_bytes(data)
        with pytest.raises(DiskError, match="changed while it was published"):
            repo.publish(graft("/a", entry), at=later(1))


def test_index_finds_what_was_written_down_and_what_is_new(tmp_path):
    place = tmp_path / "index"
    with ContentIndex(place) as index:
        assert index.get([b"a", b"b"]) == {}
        index.put(b"a", b"1" * 20, 5)
        assert index.get([b"a", b"b"]) == {b"a": (b"1" * 20, 5)}
        index.flush()
    with ContentIndex(place) as index:
        index.put(b"b", b"2" * 20, 6)
        assert index.get([b"a", b"b", b"c"]) == {b"a": (b"1" * 20, 5), b"b": (b"2" * 20, 6)}


@pytest.mark.parametrize(
    ("given", "level"),
    [
        (Settings(), 5),
        (Settings(reference_compressor=True), 6),
        (Settings(compression_level=9), 9),
        (Settings(compression_level=3, reference_compressor=True), 3),
    ],
)
def test_usual_compression_levels(given, level):
    assert (given.compressor.level, given.compressor.compression) == (level, Compression.ZLIB)
