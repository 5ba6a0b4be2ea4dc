"""The settings of a repository, and what they do to what is published."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import cvmfs_repository as repository
import cvmfs_vectors as vectors
import pytest
from cvmfs_repository import file, graft, later

from publisher.cvmfs.adjust import change_settings
from publisher.cvmfs.check import check
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.settings import SETTINGS_NAME, Settings, read_settings, with_values
from publisher.cvmfs.storage import FolderStorage
from publisher.errors import NameInvalidError, RepositoryError, UsageError

PACKED = ("*.png", "*.root", "/sw/*/raw/**")
NOISE = hashlib.shake_128(b"packed").digest(600_000)
FILES = (
    file("a.png", b"\x89PNG"),
    file("a.txt", b"text"),
    file("twin.png", b"text"),
    file("big.root", NOISE),
    file("big.dat", NOISE),
    file("raw/deep/er/f", b"raw"),
    file("empty.png", b""),
)


def test_patterns_say_which_files_are_stored_as_they_are(tmp_path):
    repo = repository.make(tmp_path / "repo", replace(repository.SMALL, uncompressed=PACKED))
    repo.publish(graft("/sw/x", *FILES, catalogs=("",)), graft("/one.png", file("", b"single")), at=later(1))
    with repo.open() as reader:
        rows = {row.entry.path: row for row in reader.walk() if row.entry.kind == "file"}
        plain = {path for path, row in rows.items() if row.compression is Compression.NONE}
        assert plain == {
            "one.png",
            *(f"sw/x/{name}" for name in ("a.png", "twin.png", "big.root", "raw/deep/er/f", "empty.png")),
        }
        for entry in FILES:
            assert b"".join(reader.read(f"/sw/x/{entry.path}")) == entry.content
        assert rows["sw/x/twin.png"].digest.raw == hashlib.sha1(b"text").digest()
        assert rows["sw/x/a.txt"].digest != rows["sw/x/twin.png"].digest
        assert len(rows["sw/x/big.root"].chunks) > 1
    assert check(repo.folder, now=repository.NOW).findings == ()


def test_nothing_is_uncompressed_unless_asked_for(tmp_path):
    repo = repository.make(tmp_path / "repo")
    repo.publish(graft("/sw/x", *FILES), at=later(1))
    with repo.open() as reader:
        assert {row.compression for row in reader.walk() if row.entry.kind == "file"} == {Compression.ZLIB}


def test_settings_change_for_what_is_published_from_then_on(tmp_path):
    repo = repository.make(tmp_path / "repo")
    repo.publish(graft("/a", file("x.png", b"1")), at=later(1))
    changed = change_settings(repo.folder, ["uncompressed=*.png,*.zip", "chunk_most=1M"], algorithm=Algorithm.SHA1)
    assert (changed.uncompressed, changed.chunk_most) == (("*.png", "*.zip"), 1 << 20)
    assert read_settings(FolderStorage(repo.folder), algorithm=Algorithm.SHA1) == changed
    repo.publish(graft("/b", file("x.png", b"1")), at=later(2))
    with repo.open() as reader:
        kinds = [reader.lookup(f"/{name}/x.png").compression for name in "ab"]
    assert kinds == [Compression.ZLIB, Compression.NONE]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("nonsense=1", "'nonsense=1' sets nothing"),
        ("ttl_s", "'ttl_s' sets nothing"),
        ("ttl_s=soon", "'ttl_s' is a whole number, not 'soon'"),
        ("chunk_fixed=yes", "'chunk_fixed' is true or false, not 'yes'"),
        ("algorithm=shake128", "'algorithm' is chosen when a repository is created"),
        ("garbage_collectable=false", "'garbage_collectable' is chosen when a repository is created"),
    ],
)
def test_wrong_assignments_are_refused(assignment, message):
    with pytest.raises(UsageError) as caught:
        with_values(Settings(), [assignment])
    assert (caught.value.message, bool(caught.value.hint)) == (message, True) or assignment == "chunk_fixed=yes"


def test_everything_may_be_chosen_for_a_new_repository():
    made = with_values(Settings(), ["algorithm=shake128", "chunk_average=16M", "chunk_most=1G"], new=True)
    assert (made.algorithm, made.chunk_average) == (Algorithm.SHAKE128, 16 << 20)
    with pytest.raises(UsageError, match="'algorithm' cannot be 'md4'"):
        with_values(Settings(), ["algorithm=md4"], new=True)


@pytest.mark.parametrize("assignment", ["limit_file_bytes=-1", "uncompressed=a//b", "compression_level=77", "ttl_s=0"])
def test_values_that_cannot_be_used_change_nothing(tmp_path, assignment):
    repo = repository.make(tmp_path / "repo")
    before = (repo.folder / SETTINGS_NAME).read_bytes()
    with pytest.raises((RepositoryError, NameInvalidError, UsageError)):
        change_settings(repo.folder, [assignment], algorithm=Algorithm.SHA1)
    assert (repo.folder / SETTINGS_NAME).read_bytes() == before


def test_a_damaged_pattern_names_the_file(tmp_path):
    repo = repository.make(tmp_path / "repo")
    (repo.folder / SETTINGS_NAME).write_text('{"uncompressed": ["a//b"]}')
    with pytest.raises(RepositoryError, match=r"settings\.json: 'a//b' is no pattern for paths"):
        read_settings(FolderStorage(repo.folder), algorithm=Algorithm.SHA1)


def test_mixed_files_are_stored_as_the_cvmfs_tools_store_them(tmp_path):
    """The vector was published once compressed and once with ``-Z none``; the patterns name what the latter brought."""
    vector = vectors.extract("plain.afpub.example", tmp_path / "vector")
    key = vectors.public_key("plain.afpub.example")
    with open_repository(vector, public_key=key, now=vectors.NOW) as reader:
        files = {row.entry.path: row for row in reader.walk() if row.entry.kind == "file"}
        plain = [path for path, row in files.items() if row.compression is Compression.NONE]
        entries = [row.entry._replace(content=b"".join(reader.read(row))) for row in files.values()]
    assert 0 < len(plain) < len(files)
    own = replace(repository.SMALL, reference_compressor=True, uncompressed=tuple(f"/{path}" for path in plain))
    repo = repository.make(tmp_path / "repo", own)
    repo.publish(graft("", *entries), at=later(1))
    with repo.open() as reader:
        for path, row in files.items():
            made = reader.lookup(f"/{path}")
            assert (path, made.compression, made.digest) == (path, row.compression, row.digest)
            assert made.chunks == row.chunks, path
    assert check(repo.folder, now=repository.NOW).findings == ()
