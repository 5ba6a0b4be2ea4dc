"""Every kind of thing in a repository is damaged, one at a time: each damage is found, and repaired where it can be."""

from __future__ import annotations

import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import FQRN, Repo, directory, file, graft, later, link
from cvmfs_vectors import edit_database

from publisher.cvmfs.check import check
from publisher.cvmfs.counters import COUNTERS
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.keys import KeyFiles, load_private_key, sign_whitelist_hash
from publisher.cvmfs.manifest import parse_manifest
from publisher.cvmfs.reflog import Ref, RefKind, encode_reflog, parse_reflog
from publisher.cvmfs.repair import repair
from publisher.cvmfs.signing import load_signer
from publisher.cvmfs.source import FolderSource
from publisher.cvmfs.whitelist import parse_whitelist
from publisher.names import TagName
from publisher.tree import Entry, Kind

ENTRIES = (
    directory("d/empty"),
    file("d/plain", b"plain"),
    file("d/other", b"other"),
    file("d/attributes", b"a", xattrs=(("user.a", b"1"),)),
    file("d/big", bytes(range(256)) * 1500),
    file("d/one", b"same", link_group=4),
    file("d/two", b"same", link_group=4),
    link("d/link", "plain"),
    Entry(path="d/fifo", kind=Kind.FIFO, mode=0o600),
    Entry(path="d/null", kind=Kind.CHAR, mode=0o666, rdev=os.makedev(1, 3)),
    file("n/m/f", b"nested"),
)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Repo:
    made = repository.make(tmp_path_factory.mktemp("damage") / "repo", replace(repository.SMALL, nanoseconds=True))
    made.publish(graft("/sw", *ENTRIES[:3]), tag=TagName("first"), at=later(1))
    made.publish(graft("/sw", *ENTRIES, catalogs=("", "n", "n/m")), at=later(2))
    return made


@pytest.fixture
def repo(original, tmp_path) -> Repo:
    shutil.copytree(original.folder, tmp_path / "repo", symlinks=True)
    return Repo(tmp_path / "repo", original.keys)


def findings(repo: Repo, **more):
    return check(repo.folder, public_key=public_key(repo), now=later(9), all_tags=True, **more).findings


def public_key(repo: Repo) -> bytes:
    return (repo.keys / f"{FQRN}.pub").read_bytes()


def mended(repo: Repo, original: Repo):
    """What is still found after a repair from a copy."""
    assert repair(repo.folder, keys_folder=repo.keys, now=later(8), mirror=FolderSource(original.folder)).ok
    return findings(repo)


def test_nothing_is_found_where_nothing_is_wrong(repo):
    assert findings(repo) == ()


# Files of the repository folder.


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _symlink(path: Path) -> None:
    """To the right bytes, even so: the CVMFS tools refuse links, and a web server may not follow them."""
    away = Path(f"{path}".partition("/repo/")[0]) / "away"
    path.rename(away)
    path.symlink_to(away)


WAYS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "flipped": _flip,
    "text": lambda path: path.write_bytes(b"<html>503 Service Unavailable</html>"),
    "folder": _folder,
    "link": _symlink,
    "private": lambda path: path.chmod(0o600),
}


def _objects(repo: Repo) -> dict[str, str]:
    with repo.open() as reader, reader.at("first") as first:
        manifest = reader.manifest
        big = reader.lookup("sw/d/big")
        return {
            "root": manifest.root.object_name(ObjectKind.CATALOG),
            "nested": reader.lookup("sw/n").catalog.object_name(ObjectKind.CATALOG),
            "innermost": reader.lookup("sw/n/m").catalog.object_name(ObjectKind.CATALOG),
            "tagged": first.root_hash.object_name(ObjectKind.CATALOG),
            "certificate": manifest.certificate.object_name(ObjectKind.CERTIFICATE),
            "tags": manifest.history.object_name(ObjectKind.HISTORY),
            "metainfo": manifest.metainfo.object_name(ObjectKind.METAINFO),
            "file": reader.lookup("sw/d/plain").digest.object_name(ObjectKind.FILE),
            "marker": reader.lookup("sw/n/.cvmfscatalog").digest.object_name(ObjectKind.FILE),
            "chunk": replace(manifest.root, raw=big.chunks[1].digest).object_name(ObjectKind.CHUNK),
        }


OBJECTS = ["root", "nested", "innermost", "tagged", "certificate", "tags", "metainfo", "file", "marker", "chunk"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", OBJECTS)
def test_objects(repo, original, what, way):
    path = repo.folder / _objects(original)[what]
    WAYS[way](path)
    assert not all(finding.severity.value == "note" for finding in findings(repo))
    assert mended(repo, original) == ()
    assert path.is_file() and not path.is_symlink()  # noqa: PT018 - one thing


@pytest.mark.parametrize("way", sorted(WAYS.keys() - {"link"}))
@pytest.mark.parametrize("name", [".cvmfspublished", ".cvmfswhitelist", ".cvmfsreflog"])
def test_files_that_are_no_objects(repo, original, name, way):
    path = repo.folder / name
    WAYS[way](path)
    assert findings(repo)
    if name == ".cvmfsreflog" or way == "private":
        assert mended(repo, original) == ()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("data/ab/" + "0" * 38, lambda path: path.write_bytes(b"no such object")),
        ("data/ab/" + "0" * 38 + "C", lambda path: path.write_bytes(b"no such catalog")),
        ("data/ab/" + "0" * 37, lambda path: path.write_bytes(b"name too short")),
        ("data/ab/" + "0" * 38 + "Z", lambda path: path.write_bytes(b"no such kind")),
        ("data/ab/" + "A" * 38, lambda path: path.write_bytes(b"capitals")),
        ("data/ab/" + "1" * 38, Path.mkdir),
        ("data/ab/" + "2" * 38, lambda path: path.symlink_to("/etc/passwd")),
        ("data/ab/" + "3" * 38, os.mkfifo),
        ("data/longer", Path.mkdir),
        ("data/file", lambda path: path.write_bytes(b"")),
    ],
)
def test_what_does_not_belong_there(repo, name, make):
    path = repo.folder / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    (finding,) = findings(repo)
    assert finding.where == name


@pytest.mark.parametrize("name", ["data", "data/00", ""])
def test_folders_that_a_web_server_cannot_enter(repo, original, name):
    place = repo.folder / (name if name != "data/00" else next(repo.folder.glob("data/??")).relative_to(repo.folder))
    place.chmod(0o700)
    assert [finding.check for finding in findings(repo)] == ["permissions"]
    assert mended(repo, original) == ()


# The manifest, the whitelist, the reflog, the tags: signed as they should be, and wrong.


def sign(repo: Repo, **fields) -> None:
    path = repo.folder / ".cvmfspublished"
    manifest, _ = parse_manifest(path.read_bytes())
    path.write_bytes(load_signer(KeyFiles(folder=repo.keys, fqrn=FQRN)).sign(replace(manifest, **fields)))


GONE = Digest.parse("ab" * 20)


@pytest.mark.parametrize(
    "fields",
    [
        {"root": GONE},
        {"root_size_bytes": 5},
        {"revision": 9},
        {"fqrn": "other.example.org"},
        {"certificate": GONE},
        {"certificate": None},
        {"history": GONE},
        {"metainfo": GONE},
        {"reflog": GONE},
        {"reflog": None},
    ],
    ids=str,
)
def test_manifests(repo, fields):
    sign(repo, **fields)
    assert findings(repo)


@pytest.mark.parametrize(
    "fields",
    [{"expires": later(-5)}, {"fqrn": "other.example.org"}, {"fingerprints": (":".join(["AB"] * 20),)}],
    ids=str,
)
def test_whitelists(repo, fields):
    path = repo.folder / ".cvmfswhitelist"
    whitelist, envelope = parse_whitelist(path.read_bytes())
    body = replace(whitelist, **fields).body()
    text = str(Digest.parse(envelope.signed_hash).algorithm.digest(body))
    key = load_private_key(repo.keys / f"{FQRN}.masterkey")
    path.write_bytes(bytes(replace(envelope, body=body, signed_hash=text, signature=sign_whitelist_hash(key, text))))
    assert [finding.check for finding in findings(repo)] == ["trust"]


def database(repo: Repo, name: str, statements: str) -> bytes:
    return edit_database(zlib.decompress((repo.folder / name).read_bytes()), statements)


def put(repo: Repo, data: bytes, kind: ObjectKind) -> Digest:
    stored = zlib.compress(data)
    manifest, _ = parse_manifest((repo.folder / ".cvmfspublished").read_bytes())
    digest = manifest.algorithm.digest(stored)
    path = repo.folder / digest.object_name(kind)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(stored)
    return digest


def log(repo: Repo, digest: Digest, kind: RefKind, **fields) -> None:
    """A new object goes into the reflog, and the manifest names it."""
    path = repo.folder / ".cvmfsreflog"
    data = encode_reflog(parse_reflog(path.read_bytes()).with_refs([Ref(digest=digest, kind=kind, added_s=1)]))
    path.write_bytes(data)
    sign(repo, reflog=digest.algorithm.digest(data), **fields)


@pytest.mark.parametrize(
    "statements",
    [
        "DELETE FROM refs WHERE type=0",
        "DELETE FROM refs WHERE type=1",
        "DELETE FROM refs WHERE type=2",
        "DELETE FROM refs WHERE type=3",
        "UPDATE refs SET type=7 WHERE type=3",
        "UPDATE refs SET type=1 WHERE type=3",
        "UPDATE refs SET timestamp=NULL",
        "UPDATE refs SET hash='zz' WHERE type=3",
        "UPDATE refs SET timestamp=timestamp+1",
        "UPDATE properties SET value='other.example.org' WHERE key='fqrn'",
        "DROP TABLE refs",
        "DROP TABLE properties",
    ],
)
def test_reflogs(repo, original, statements):
    path = repo.folder / ".cvmfsreflog"
    path.write_bytes(edit_database(path.read_bytes(), statements))
    assert findings(repo)
    assert mended(repo, original) == ()


@pytest.mark.parametrize(
    "statements",
    [
        f"UPDATE tags SET hash='{GONE}' WHERE name='first'",
        "UPDATE tags SET hash='zz' WHERE name='first'",
        "UPDATE tags SET hash=NULL WHERE name='first'",
        "UPDATE tags SET revision=77 WHERE name='first'",
        "UPDATE tags SET revision='x' WHERE name='first'",
        "UPDATE tags SET size=1 WHERE name='first'",
        "UPDATE tags SET timestamp=NULL WHERE name='first'",
        "UPDATE tags SET branch='none' WHERE name='first'",
        "UPDATE tags SET name='a b' WHERE name='first'",
        "UPDATE tags SET name='' WHERE name='first'",
        "UPDATE tags SET hash=(SELECT hash FROM tags WHERE name='first') WHERE name='trunk'",
        "DELETE FROM tags",
        "PRAGMA foreign_keys=OFF; DELETE FROM branches",
        "INSERT INTO branches VALUES ('b', '', 1)",
        "UPDATE branches SET initial_revision=99",
        "UPDATE properties SET value='other.example.org' WHERE key='fqrn'",
        "UPDATE properties SET value='1' WHERE key='schema_revision'",
        "DROP TABLE tags",
        "DROP TABLE branches",
    ],
)
def test_tag_databases(repo, statements):
    with repo.open() as reader:
        name = reader.manifest.history.object_name(ObjectKind.HISTORY)
    digest = put(repo, database(repo, name, statements), ObjectKind.HISTORY)
    log(repo, digest, RefKind.HISTORY, history=digest)
    assert findings(repo)


# Catalogs: every hash above them is right, so that only what they say can be wrong.


def edit(repo: Repo, mount: str, statements: str) -> None:
    """Changes the catalog mounted at a path, and names it anew all the way up."""
    with repo.open() as reader:
        refs = [ref for info in reader.catalogs() for ref in info.nested]
        root = reader.root_hash
    above = [ref for ref in refs if f"{mount}/".startswith(f"{ref.path}/")]
    data, digest = b"", root
    for ref in [*sorted(above, key=lambda each: len(each.path), reverse=True), None]:
        name = (ref.digest if ref else root).object_name(ObjectKind.CATALOG)
        data = database(repo, name, statements)
        digest = put(repo, data, ObjectKind.CATALOG)
        if ref:
            statements = f"UPDATE nested_catalogs SET sha1='{digest}', size={len(data)} WHERE path='{ref.path}'"
    log(repo, digest, RefKind.CATALOG, root=digest, root_size_bytes=len(data))
    with repo.open() as reader:
        history = database(
            repo,
            reader.manifest.history.object_name(ObjectKind.HISTORY),
            f"UPDATE tags SET hash='{digest}', size={len(data)} WHERE name='trunk'",
        )
    digest = put(repo, history, ObjectKind.HISTORY)
    log(repo, digest, RefKind.HISTORY, history=digest)


def test_an_edit_that_changes_nothing(repo):
    edit(repo, "/sw", "UPDATE catalog SET mode=mode")
    assert findings(repo) == ()


WHERE = {
    "plain": "name='plain'",
    "big": "name='big'",
    "hardlink": "name='one'",
    "symlink": "name='link'",
    "fifo": "name='fifo'",
    "device": "name='null'",
    "directory": "name='empty'",
    "root": "name='sw'",
    "mount": "name='n'",
}
EVERYWHERE = {
    "path hash": "md5path_1=md5path_1+1",
    "path hash 2": "md5path_2=md5path_2-1",
    "parent hash": "parent_1=parent_1+1",
    "parent hash 2": "parent_2=parent_2-1",
    "links 0": "hardlinks=0",
    "links more": "hardlinks=hardlinks+1",
    "mode 0": "mode=0",
    "mode NULL": "mode=NULL",
    "mode text": "mode='x'",
    "size NULL": "size=NULL",
    "size negative": "size=-1",
    "mtime text": "mtime='x'",
    "mtime NULL": "mtime=NULL",
    "mtimens": "mtimens=1000000000",
    "flags 0": "flags=0",
    "flags text": "flags='x'",
    "nested root": "flags=(flags|32)-(flags&32)",
    "name empty": "name=''",
    "name NULL": "name=NULL",
    "name slash": "name='a/b'",
    "name dots": "name='..'",
    "name other": "name=name||'x'",
    "symlink NULL": "symlink=NULL",
    "uid negative": "uid=-7",
    "uid NULL": "uid=NULL",
    "gid text": "gid='x'",
    "xattr broken": "xattr=x'0105'",
}
SOMEWHERE = [
    ("plain", "hash=NULL"),
    ("plain", "hash=x'00'"),
    ("plain", "hash=x'abababababababababababababababababababab'"),
    ("plain", "hash=(SELECT hash FROM catalog WHERE name='other'), size=6"),
    ("plain", "size=size+1"),
    ("plain", "symlink='x'"),
    ("plain", "flags=flags|64"),
    ("plain", "flags=flags|128"),
    ("plain", "flags=flags|256"),
    ("plain", "flags=flags|2048"),
    ("plain", "flags=flags|8"),
    ("plain", "mode=0x4000|0x1ed"),
    ("plain", "mode=0xa000|0x1ff"),
    ("plain", "name='other'"),
    ("plain", "xattr=x'0101'||x'0201'||x'6162'||x'00'"),
    ("big", "size=size-1"),
    ("big", "flags=flags-64"),
    ("hardlink", "hardlinks=2"),
    ("hardlink", "mode=mode-1"),
    ("symlink", "symlink=''"),
    ("symlink", "size=1"),
    ("symlink", "hash=(SELECT hash FROM catalog WHERE name='plain')"),
    ("fifo", "size=1"),
    ("fifo", "symlink='x'"),
    ("device", "hash=(SELECT hash FROM catalog WHERE name='plain')"),
    ("directory", "hash=(SELECT hash FROM catalog WHERE name='plain')"),
    ("directory", "hardlinks=(1<<32)|2"),
    ("directory", "flags=flags|0x10000"),
    ("symlink", "flags=flags|0x10000"),
    ("directory", "flags=flags|2"),
    ("directory", "flags=flags|0x4000"),
    ("root", "mode=mode-1"),
    ("root", "uid=5"),
    ("root", "gid=5"),
    ("root", "mtime=5"),
    ("root", "mtimens=5"),
    ("root", "size=5"),
    ("root", "xattr=x'0101'||x'0101'||x'61'||x'62'"),
    ("mount", "flags=1"),
    ("mount", "uid=5"),
]


OTHER_COLUMNS = "parent_1,parent_2,hardlinks,hash,size,mode,mtime,mtimens,flags,'ghost',symlink,uid,gid,xattr"


@pytest.mark.parametrize("column", EVERYWHERE)
@pytest.mark.parametrize("row", WHERE)
def test_every_column_of_every_kind_of_row(repo, row, column):
    edit(repo, "/sw", f"UPDATE catalog SET {EVERYWHERE[column]} WHERE {WHERE[row]}")
    assert findings(repo)


@pytest.mark.parametrize(("row", "change"), SOMEWHERE)
def test_columns_of_some_rows(repo, row, change):
    edit(repo, "/sw", f"UPDATE catalog SET {change} WHERE {WHERE[row]}")
    assert findings(repo)


@pytest.mark.parametrize(
    "statements",
    [
        "DELETE FROM catalog WHERE name='plain'",
        "DELETE FROM catalog WHERE name='d'",
        "DELETE FROM catalog WHERE name='sw'",
        "DELETE FROM catalog WHERE name='.cvmfscatalog'",
        f"INSERT INTO catalog SELECT 1,2,{OTHER_COLUMNS} FROM catalog WHERE name='plain'",
        "UPDATE chunks SET offset=offset+1 WHERE offset>0",
        "UPDATE chunks SET size=size-1 WHERE offset=0",
        "UPDATE chunks SET hash=NULL WHERE offset=0",
        "UPDATE chunks SET hash=x'00' WHERE offset=0",
        "UPDATE chunks SET hash=x'abababababababababababababababababababab' WHERE offset=0",
        "UPDATE chunks SET md5path_1=5 WHERE offset=0",
        "DELETE FROM chunks WHERE offset=0",
        "DELETE FROM chunks",
        "INSERT INTO chunks SELECT md5path_1,md5path_2,5,5,hash FROM catalog WHERE name='plain'",
        "UPDATE nested_catalogs SET path='/sw/x'",
        "UPDATE nested_catalogs SET sha1='ab' WHERE path='/sw/n'",
        "UPDATE nested_catalogs SET size=size+1",
        "UPDATE nested_catalogs SET size=0",
        "UPDATE nested_catalogs SET size=NULL",
        "DELETE FROM nested_catalogs",
        "INSERT INTO nested_catalogs SELECT '/sw/d', sha1, size FROM nested_catalogs",
        "INSERT INTO bind_mountpoints SELECT '/sw/d', sha1, size FROM nested_catalogs",
        "INSERT INTO bind_mountpoints SELECT path, sha1, size FROM nested_catalogs",
        *(f"DROP TABLE {table}" for table in ("catalog", "chunks", "nested_catalogs", "properties", "statistics")),
        *(
            f"DELETE FROM properties WHERE key='{key}'"
            for key in ("schema", "schema_revision", "revision", "last_modified", "root_prefix")
        ),
        *(
            f"UPDATE properties SET value='x' WHERE key='{key}'"
            for key in ("schema", "schema_revision", "revision", "last_modified", "root_prefix")
        ),
        "INSERT OR REPLACE INTO properties VALUES ('previous_revision', 'x')",
    ],
)
def test_rows_and_tables(repo, statements):
    edit(repo, "/sw", statements)
    assert findings(repo)


@pytest.mark.parametrize("prefix", ["self", "subtree"])
@pytest.mark.parametrize("counter", COUNTERS)
def test_counters(repo, prefix, counter):
    edit(repo, "/sw", f"UPDATE statistics SET value=value+1 WHERE counter='{prefix}_{counter}'")
    assert findings(repo)[0].check == "counter"


@pytest.mark.parametrize("change", ["DELETE FROM statistics", "UPDATE statistics SET value='x'"])
def test_counters_that_are_not_there(repo, change):
    edit(repo, "/sw", f"{change} WHERE counter='subtree_regular'")
    assert findings(repo)


def test_catalogs_of_other_places(repo):
    """The root catalog of the tag in the place of a nested one, and two nested ones in each other's place."""
    with repo.open() as reader:
        inner = reader.lookup("sw/n/m").catalog
    edit(repo, "/sw", f"UPDATE nested_catalogs SET sha1='{inner}' WHERE path='/sw/n'")
    assert {finding.check for finding in findings(repo)} >= {"catalog-place"}


def test_a_database_page_that_is_torn(repo):
    """Half of it is there, and its hash is that of the half: nothing but SQLite can tell."""
    with repo.open() as reader:
        data = zlib.decompress((repo.folder / reader.root_hash.object_name(ObjectKind.CATALOG)).read_bytes())
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)
    digest = put(repo, data[:2048] + bytes(len(data) - 2048), ObjectKind.CATALOG)
    log(repo, digest, RefKind.CATALOG, root=digest)
    assert findings(repo)
