"""What makes publishing quick must not change what is published."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import zlib
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import SMALL, cut, file, graft, later, link

from publisher.cvmfs import contents, packer, storage
from publisher.cvmfs.catalog import Catalog, CatalogRef
from publisher.cvmfs.check import check
from publisher.cvmfs.chunker import ChunkRule, next_length
from publisher.cvmfs.compression import Compression, Compressor
from publisher.cvmfs.content_index import ContentIndex, StoredIndex
from publisher.cvmfs.crew import usual_hands
from publisher.cvmfs.digest import Algorithm, ObjectKind
from publisher.cvmfs.fingerprint import fingerprint, fingerprint_of
from publisher.cvmfs.packer import Packer, Part, Plan
from publisher.cvmfs.settings import Settings, read_settings
from publisher.cvmfs.store import ObjectStore
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
    wait, rename = storage.sync_filesystem, storage.os.replace
    monkeypatch.setattr(storage, "sync_filesystem", lambda folder: (steps.append("sync"), wait(folder)))
    monkeypatch.setattr(storage.os, "replace", lambda old, new: (steps.append(f"{new}"), rename(old, new)))
    repo.publish(graft("/a", *(file(f"f{number}", b"%d" % number) for number in range(100))), at=later(1))
    names = steps[1:-3]
    assert steps[0] == steps[-3] == "sync"
    assert len(names) > 100
    assert all("/data/" in name for name in names)
    assert [name.rpartition("/")[2] for name in steps[-2:]] == [".cvmfsreflog", ".cvmfspublished"]
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=later(9)).findings == ()


@pytest.mark.parametrize(("files", "size_bytes"), [(1, 1), (7, 1 << 20), (64, 300), (1000, 1 << 30)])
def test_how_much_is_packed_together_does_not_matter(repo, monkeypatch, files, size_bytes):
    monkeypatch.setattr(contents, "_BATCH_FILES", files)
    monkeypatch.setattr(contents, "_BATCH_BYTES", size_bytes)
    big = {f"big{number}": noise(700_000, number) for number in range(3)}
    small = {f"s{number}": noise(number * 11, number) for number in range(80)}
    told = []
    repo.publish(
        graft("/a", *(file(name, data) for name, data in (big | small).items())),
        at=later(1),
        progress=lambda state: told.append((state.files_done, state.bytes_done)),
    )
    assert told == sorted(told)
    assert told[-1] == (83, sum(map(len, (big | small).values())))
    with repo.open() as reader:
        for name, data in (big | small).items():
            assert b"".join(reader.read(f"a/{name}")) == data


def test_contents_that_the_store_has_lost_are_packed_again(repo):
    data = {f"f{number}": noise(number * 5000, number) for number in range(20)}
    tree = [file(name, content) for name, content in data.items()]
    repo.publish(graft("/a", *tree), at=later(1))
    objects = sorted(repo.folder.glob("data/??/*"), key=lambda path: path.stat().st_size)
    lost, cut = objects[-1], objects[-2]
    lost.unlink()
    os.truncate(cut, 10)
    assert repo.publish(graft("/b", *tree), at=later(2)).objects_new > 2
    with repo.open() as reader:
        for name, content in data.items():
            assert b"".join(reader.read(f"a/{name}")) == content


def test_names_are_given_while_more_is_packed(repo, monkeypatch):
    """Many objects go to the store in batches, beside the work; each of a batch's twins is one object."""
    monkeypatch.setattr(storage.FolderStorage, "batch", (3, 1 << 30))
    batches = []
    put = storage.FolderStorage.put_objects

    def noted(self, waiting, *, replace=False):
        batches.append((len(waiting), threading.current_thread() is threading.main_thread()))
        return put(self, waiting, replace=replace)

    monkeypatch.setattr(storage.FolderStorage, "put_objects", noted)
    monkeypatch.setattr(contents, "_BATCH_FILES", 1)
    data = {f"f{number}": noise(300, number % 10) for number in range(40)}
    result = repo.publish(graft("/a", *(file(name, content) for name, content in data.items())), at=later(1))
    assert batches[:3] == [(3, False)] * 3
    objects = {path.name for path in repo.folder.glob("data/??/*") if path.name[-1] not in "CHMX"}
    assert len(objects) == 10
    assert result.objects_new == 10 + 2, "a catalog and a history besides"
    with repo.open() as reader:
        assert all(b"".join(reader.read(f"a/{name}")) == content for name, content in data.items())
    assert not list((repo.folder / "data/txn").iterdir())


def test_a_disk_that_is_full_while_more_is_packed(repo, monkeypatch):
    monkeypatch.setattr(storage.FolderStorage, "batch", (3, 1 << 30))
    monkeypatch.setattr(contents, "_BATCH_FILES", 1)
    before = (repo.folder / ".cvmfspublished").read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(storage.FolderStorage, "put_objects", failing)
        with pytest.raises(DiskError, match="No space left"):
            repo.publish(graft("/a", *(file(f"f{n}", noise(300, n)) for n in range(40))), at=later(1))
    assert (repo.folder / ".cvmfspublished").read_bytes() == before
    assert not list((repo.folder / "data/txn").iterdir())
    assert repo.publish(graft("/a", *(file(f"f{n}", noise(300, n)) for n in range(40))), at=later(1)).objects_new > 40


def test_a_batch_that_failed_waits_again(repo, monkeypatch):
    monkeypatch.setattr(storage.FolderStorage, "batch", (2, 1 << 30))
    place = storage.FolderStorage(repo.folder)
    store = ObjectStore(place, algorithm=Algorithm.SHA1)
    with monkeypatch.context() as patch:
        patch.setattr(storage.FolderStorage, "put_objects", failing)
        digests = [store.add(b"%d" % number, ObjectKind.FILE, Compressor()) for number in range(2)]
        with pytest.raises(DiskError, match="No space left"):
            store.flush()
    store.flush()
    assert all((repo.folder / digest.object_name(ObjectKind.FILE)).is_file() for digest in digests)


def failing(*_, **__):
    raise DiskError("cannot write x: No space left on device")


@pytest.mark.parametrize("here", [0, 1 << 40], ids=["cut by the publisher", "cut by a worker"])
def test_who_cuts_a_big_file_does_not_matter(repo, tmp_path, monkeypatch, here):
    monkeypatch.setattr(contents, "_CUT_BYTES", here)
    path = tmp_path / "big"
    path.write_bytes(noise(900_000, 1) * 2)
    plain = noise(400_000, 2)
    repo.publish(graft("/a", file("big", path), file("small", b"1"), file("text", plain)), at=later(1))
    with repo.open() as reader:
        rule = read_settings(reader.source, algorithm=reader.manifest.algorithm).chunk_rule
    wanted = []
    for data in (path.read_bytes(), plain):
        ends = list(itertools.accumulate(cut(data, rule)))
        wanted.append([0, *ends[:-1]] if len(ends) > 1 else [])
    with repo.open() as reader:
        found = [[chunk.offset for chunk in reader.lookup(f"a/{name}").chunks] for name in ("big", "text")]
        assert found == wanted
        assert len(wanted[0]) > 1
        assert b"".join(reader.read("a/big")) == path.read_bytes()
        assert b"".join(reader.read("a/text")) == plain


@pytest.fixture(params=[0, 1 << 40], ids=["cut by the publisher", "cut by a worker"])
def _cut_anywhere(request, monkeypatch):
    monkeypatch.setattr(contents, "_CUT_BYTES", request.param)


def publish_big(repo, path, data, minutes):
    """Publishes a file, and gives the sizes of its chunks."""
    path.write_bytes(data)
    repo.publish(graft(f"/a{minutes}", file("big", path)), at=later(minutes), jobs=1)
    with repo.open() as reader:
        assert b"".join(reader.read(f"a{minutes}/big")) == data
        return [chunk.size_bytes for chunk in reader.lookup(f"a{minutes}/big").chunks] or [len(data)]


@pytest.mark.usefixtures("_cut_anywhere")
@pytest.mark.parametrize("local", [True, False], ids=["in a folder", "in a bucket"])
def test_where_a_known_file_is_cut_is_not_looked_for_again(repo, tmp_path, monkeypatch, local):
    if not local:  # then whoever packs cannot look whether an object is there
        monkeypatch.setattr(storage.FolderStorage, "local", "")
    data, path = noise(900_000, 1), tmp_path / "big"
    data = data[: sum(cut(data, SMALL.chunk_rule)[:3]) + SMALL.chunk_least + 100]
    first = publish_big(repo, path, data, 1)
    assert len(first) == 4
    looked = []

    def noted(read, start, rest, rule):
        looked.append(start)
        return next_length(read, start, rest, rule)

    monkeypatch.setattr(packer, "next_length", noted)
    assert publish_big(repo, path, data, 2) == first
    assert not [start for start in looked if len(data) - start > SMALL.chunk_least]
    lost = max(repo.folder.glob("data/??/*P"))
    size = lost.stat().st_size
    lost.unlink()
    assert publish_big(repo, path, data, 3) == first
    assert lost.stat().st_size == size
    assert len([start for start in looked if len(data) - start > SMALL.chunk_least]) == local


@pytest.mark.usefixtures("_cut_anywhere")
def test_a_file_that_changed_is_cut_where_the_rule_says(repo, tmp_path):
    """Whatever was published before."""
    path, data, rule = tmp_path / "big", noise(900_000, 1), SMALL.chunk_rule
    sizes = publish_big(repo, path, data, 1)
    behind, middle = sizes[0], sizes[0] // 2
    changed = [
        data + noise(300_000, 2),
        data[:-100_000],
        data[:middle] + b"!" + data[middle:],
        data[: behind + 1],
        data[:behind],
        data[: behind - 1],
        data[:4096] + noise(500_000, 3),
        noise(4096, 4) + data,
    ]
    for number, each in enumerate(changed, 1):
        assert publish_big(repo, path, data, 2 * number) == sizes
        assert publish_big(repo, path, each, 2 * number + 1) == cut(each, rule), number


def test_the_byte_behind_a_piece_counts(tmp_path):
    """It is the last of the window that the rule looks at, and here it decides."""
    settings = Settings(chunk_least=65536, chunk_average=1 << 25, chunk_most=1 << 25)
    repo = repository.make(tmp_path / "repo", settings)
    data, at = bytearray(200_000), 100_000
    data[at - 24], data[at - 16], data[at - 8], data[at] = 0x7F, 0xFF, 0xFF, 0xFF
    assert publish_big(repo, tmp_path / "big", bytes(data), 1) == [at, 100_000]
    data[at] = 0
    sizes = publish_big(repo, tmp_path / "big", bytes(data), 2)
    assert sizes == cut(bytes(data), settings.chunk_rule)
    assert sizes[0] != at


def test_a_small_file_that_shrank_or_grew_is_noticed(repo, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    entry = file("f", path)
    for data in (b"1234", b"123456", b""):
        path.write_bytes(data)
        with pytest.raises(DiskError, match="changed while it was published"):
            repo.publish(graft("/a", entry), at=later(1))


def test_a_piece_of_a_file_that_changed_after_the_cut_is_noticed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    plan = Plan(
        algorithm=Algorithm.SHA1,
        compressor=Compressor(),
        index="",
        scratch=f"{tmp_path}/x-",
        rule=ChunkRule(),
        objects="",
    )
    alone = Packer(plan, StoredIndex(""))
    piece = Part(f"{path}", "file", 10, 2, 5, path.stat().st_mtime_ns)
    (packed,) = alone.pack((piece,))
    assert zlib.decompress(Path(packed.temporary).read_bytes()) == b"23456"
    for wrong in (piece._replace(mtime_ns=piece.mtime_ns - 1), piece._replace(size=11)):
        with pytest.raises(DiskError, match=f"{path} changed while it was published"):
            alone.pack((wrong,))


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


def test_lengths_of_pieces_are_forgotten_with_their_contents(tmp_path):
    place = tmp_path / "index"
    with ContentIndex(place) as index:
        assert index.length(b"begin") == 0
        for name, length in ((b"a", 7), (b"b", -8)):
            index.put(name, name * 20, 5)
            index.put_length(b"begin " + name, length, name)
        assert index.length(b"begin b") == -8
        index.flush()
    with ContentIndex(place) as index, StoredIndex(f"{place}") as stored:
        for each in (index, stored):
            assert [each.length(b"begin " + name) for name in (b"a", b"b", b"c")] == [7, -8, 0]
        index.forget(lambda raw: raw[:1] == b"b")
        assert [index.length(b"begin " + name) for name in (b"a", b"b")] == [0, -8]


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


def test_one_process_for_each_processor_that_is_ours(monkeypatch):
    for ours, expected in ((1, 1), (4, 4), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, ours=ours: set(range(ours)))
        assert usual_hands() == expected
