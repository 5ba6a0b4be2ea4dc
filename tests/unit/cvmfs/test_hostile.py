"""A repository that means harm gets an answer, never a path outside or a crash."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from contextlib import closing
from functools import partial

import cvmfs_repository as repository
import cvmfs_vectors as vectors
import pytest
from cvmfs_repository import file, graft
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.cvmfs.catalog import Catalog
from publisher.cvmfs.check import check
from publisher.cvmfs.digest import ObjectKind
from publisher.cvmfs.history import parse_history
from publisher.cvmfs.keys import load_certificate, load_public_key
from publisher.cvmfs.manifest import parse_manifest
from publisher.cvmfs.pathhash import path_hash
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.reflog import parse_reflog
from publisher.cvmfs.source import WebSource, _SameSchemes
from publisher.cvmfs.whitelist import parse_whitelist
from publisher.errors import AfpubError, FormatError, RepositoryError, UsageError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a root catalog with a few entries."""
    repo = repository.make(tmp_path_factory.mktemp("hostile") / "repo")
    repo.publish(graft("", file("f", b"1"), file("d/g", bytes(600_000)), file("d/h", b"x", xattrs=(("user.a", b"1"),))))
    with repo.open() as reader:
        name = reader.root_hash.object_name(ObjectKind.CATALOG)
    return zlib.decompress((repo.folder / name).read_bytes())


def read_all(data: bytes) -> list[str]:
    catalog = Catalog(data, where="the catalog")
    try:
        catalog.statistics()
        return [row.path for row in catalog.rows()]
    finally:
        catalog.close()


def test_the_good_one_is_read(good):
    assert read_all(good) == ["", "/d", "/d/g", "/d/h", "/f"]


def renamed(name: str) -> str:
    """SQL that gives /f another name, all hashes right."""
    first, second = path_hash(f"/{name}")
    value = os.fsencode(name).hex()
    return f"UPDATE catalog SET name=CAST(x'{value}' AS TEXT), md5path_1={first}, md5path_2={second} WHERE name='f'"


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (renamed(".."), "a name in / is '..'"),
        (renamed("."), "a name in / is '.'"),
        (renamed("../../etc/cron.d/x"), "which would lead out of its directory"),
        (renamed("a\0b"), "which would lead out of its directory"),
        (renamed(""), "a name in / is empty"),
        ("UPDATE catalog SET name=5 WHERE name='f'", "/5: the path hash is not that of the path"),
        ("UPDATE catalog SET name=NULL WHERE name='f'", "has NULL where text belongs"),
        ("UPDATE catalog SET symlink=NULL WHERE name='f'", "has NULL where text belongs"),
        ("UPDATE catalog SET mode=NULL WHERE name='f'", "has NULL where a number belongs"),
        ("UPDATE catalog SET size='big' WHERE name='f'", "has text where a number belongs"),
        ("UPDATE catalog SET size=-1 WHERE name='f'", "the size -1 is negative"),
        ("UPDATE catalog SET hash=7 WHERE name='f'", "has a number where bytes belong"),
        ("UPDATE catalog SET hash=x'00' WHERE name='f'", "the digest has 1 bytes"),
        ("UPDATE catalog SET mode=0 WHERE name='f'", "the mode 0 is of no known type"),
        ("UPDATE catalog SET flags=flags|(7<<8) WHERE name='f'", "unknown digest algorithm number 7"),
        ("UPDATE catalog SET flags=flags|(5<<11) WHERE name='f'", "unknown compression number 5"),
        ("UPDATE catalog SET mtimens=1000000000 WHERE name='f'", "the nanoseconds are 1000000000"),
        ("UPDATE catalog SET xattr=x'0102' WHERE name='h'", "the extended attributes are cut off"),
        ("UPDATE catalog SET xattr=x'02' WHERE name='h'", "the extended attributes are no blob of version 1"),
        ("UPDATE chunks SET size=size-1", "the chunks have a gap or overlap at byte"),
        ("UPDATE chunks SET hash=x'aa'", "the digest of the chunk at byte 0 has 1 bytes"),
        ("DELETE FROM catalog WHERE name=''", "has no row for its own root"),
        ("UPDATE catalog SET mode=4516 WHERE name=''", "has no row for its own root"),
        ("DROP TABLE statistics", "has no table statistics"),
        ("DROP TABLE chunks; CREATE VIEW chunks AS SELECT 1 AS offset", "has no table chunks"),
        ("ALTER TABLE catalog DROP COLUMN mtimens", "has no column mtimens"),
        ("ALTER TABLE catalog DROP COLUMN uid", "has no column uid"),
        ("UPDATE properties SET value='9.0' WHERE key='schema'", "has the unknown schema '9.0', revision '7'"),
        ("UPDATE statistics SET value=NULL WHERE counter='self_dir'", "has NULL where a number belongs"),
        ("INSERT INTO nested_catalogs VALUES ('/d', 'zz', 1)", "'zz' is no digest"),
        ("INSERT INTO nested_catalogs VALUES ('/d', NULL, 1)", "has NULL where text belongs"),
    ],
)
def test_hostile_catalogs_are_refused(good, statements, message):
    with pytest.raises(FormatError) as caught:
        read_all(vectors.edit_database(good, statements))
    assert message in caught.value.message
    assert "the catalog" in caught.value.message or "digest" in caught.value.message


def test_a_loop_of_directories_ends(good):
    """A directory that is its own parent is found by its path hash."""
    data = vectors.edit_database(good, "UPDATE catalog SET parent_1=md5path_1, parent_2=md5path_2 WHERE name='d'")
    assert read_all(data) == ["", "/f"]


@given(flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_flipped_bytes_are_read_or_refused(good, flips):
    damaged = bytearray(good)
    for at, value in flips:
        damaged[at % len(good)] ^= value
    paths: list[str] = []
    with contextlib.suppress(FormatError):
        paths = read_all(bytes(damaged))
    assert not any(part in {"", ".", ".."} for path in paths if path for part in path.split("/")[1:])


@given(size=st.integers(0, 2**20))
@settings(max_examples=100, deadline=None)
def test_cut_databases_are_refused_or_read(good, size):
    cut = good[: size % len(good)]
    for parse in (read_all, parse_history, parse_reflog):
        with contextlib.suppress(FormatError):
            parse(cut)


_SIGNED = "sha1.afpub.example"
_KEYS = vectors.VECTORS / _SIGNED / "keys"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The files of a real repository that are parsed before anything is trusted, with what parses them."""
    repo = vectors.extract(_SIGNED, tmp_path_factory.mktemp("signed"))
    return (
        (parse_manifest, (repo / ".cvmfspublished").read_bytes()),
        (parse_whitelist, (repo / ".cvmfswhitelist").read_bytes()),
        (parse_reflog, (repo / ".cvmfsreflog").read_bytes()),
        (partial(load_public_key, where="pub"), (_KEYS / f"{_SIGNED}.pub").read_bytes()),
        (partial(load_certificate, where="crt"), (_KEYS / f"{_SIGNED}.crt").read_bytes()),
    )


@given(flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_flipped_bytes_of_what_is_signed_are_read_or_refused(published, flips):
    for parse, data in published:
        damaged = bytearray(data)
        for at, value in flips:
            damaged[at % len(data)] ^= value
        with contextlib.suppress(AfpubError):
            parse(bytes(damaged))


def test_write_ahead_databases_are_refused(good):
    with pytest.raises(FormatError, match="is a database in write-ahead mode, which clients cannot read"):
        read_all(good[:18] + b"\x02\x02" + good[20:])


def test_what_a_trigger_or_function_would_do_is_not_done(good, tmp_path):
    path = tmp_path / "made"
    data = vectors.edit_database(
        good, f"CREATE TRIGGER t AFTER INSERT ON catalog BEGIN SELECT load_extension('{path}'); END"
    )
    assert "/f" in read_all(data)


@pytest.mark.parametrize("bomb", [b"\0" * (1 << 24)])
def test_an_object_that_unpacks_to_more_than_it_should_is_stopped(tmp_path, bomb):
    repo = repository.make(tmp_path / "repo")
    repo.publish(graft("/a", file("f", b"tiny")))
    with repo.open() as reader:
        stored = reader.lookup("a/f")
    target = repo.folder / stored.digest.object_name(ObjectKind.FILE)
    target.write_bytes(zlib.compress(bomb))
    with repo.open() as reader, pytest.raises(AfpubError, match=r"is damaged|more than the expected 4 bytes"):
        list(reader.read("a/f"))
    assert not check(repo.folder).ok


@pytest.mark.parametrize("address", ["ftp://host/x", "file:///etc", "gopher://x/y"])
def test_other_addresses_are_refused(address):
    with pytest.raises(UsageError, match="is no http or https address"):
        open_repository(address)


def test_redirects_lead_to_the_web_only():
    class Request:
        full_url = "http://host/x"

    with pytest.raises(RepositoryError, match="http://host/x redirects to file:///etc/passwd, which is no web address"):
        _SameSchemes().redirect_request(Request(), None, 302, "", {}, "file:///etc/passwd")
    assert WebSource("http://host/cvmfs/x/").where == "http://host/cvmfs/x"


def test_paths_of_lookups_are_no_way_out(tmp_path):
    repo = repository.make(tmp_path / "repo")
    repo.publish(graft("/a", file("f", b"1")))
    with repo.open() as reader:
        for path in ("a/../a/f", "a/./f", "a//f", "../a", "a/f/", "a/f/x"):
            found = reader.lookup(path)
            assert found is None or path == "a/f/"


def test_old_catalogs_are_read():
    """Repositories whose catalogs were never upgraded lack columns; what is missing is nothing."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        first, second = path_hash("")
        database.executescript(
            "CREATE TABLE properties (key TEXT PRIMARY KEY, value TEXT);"
            "CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, "
            "hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, flags INTEGER, name TEXT, "
            "symlink TEXT, uid INTEGER, gid INTEGER);"
            "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB);"
            "CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT);"
            "CREATE TABLE statistics (counter TEXT, value INTEGER);"
            "INSERT INTO properties VALUES ('schema', '2.5');"
            f"INSERT INTO catalog VALUES ({first}, {second}, 0, 0, 2, NULL, 4096, 16877, 1, 1, '', '', 0, 0);"
        )
        data = database.serialize()
    catalog = Catalog(data, where="old")
    (row,) = catalog.rows()
    assert (row.xattr, row.mtimens, row.links) == (None, None, 2)
    assert (catalog.nested(), catalog.binds()) == ((), ())
    catalog.close()
