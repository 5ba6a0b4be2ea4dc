"""What is read of a site's server, and what is told to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.backends.server.describe import description
from publisher.backends.server.gateway import overlap
from publisher.backends.server.program import safe_description
from publisher.backends.server.site import ServerOptions, parse_conf, read_site
from publisher.backends.server.sums import Sums
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.digest import Algorithm, Digest
from publisher.cvmfs.reader import Stored
from publisher.cvmfs.rows import Chunk, Content
from publisher.errors import ProjectError, RepositoryError
from publisher.names import Fqrn
from publisher.project.settings import ServerSettings, load_settings
from publisher.tree import Entry, Kind

FQRN = Fqrn("kernels.example.org")
CONF = """\
# Created by cvmfs_server.
CVMFS_CREATOR_VERSION=143
CVMFS_REPOSITORY_TYPE=stratum0
CVMFS_USER=librarian
CVMFS_UNION_DIR=/cvmfs/kernels.example.org
CVMFS_SPOOL_DIR=/var/spool/cvmfs/kernels.example.org
CVMFS_STRATUM0=http://localhost/cvmfs/kernels.example.org
CVMFS_UPSTREAM_STORAGE={upstream}
CVMFS_USE_FILE_CHUNKING=true
CVMFS_MIN_CHUNK_SIZE=4194304
CVMFS_AVG_CHUNK_SIZE=8388608
CVMFS_MAX_CHUNK_SIZE=16777216
CVMFS_AUTO_TAG_TIMESPAN=""
CVMFS_FILE_MBYTE_LIMIT="2048"   # for big libraries
export CVMFS_ENFORCE_LIMITS=true
"""
LOCAL = "local,/srv/cvmfs/kernels.example.org/data/txn,/srv/cvmfs/kernels.example.org"


def site(folder: Path, text: str):
    file = folder / "repositories.d" / FQRN / "server.conf"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return read_site(ServerOptions(work=folder, config=folder), FQRN)


def test_a_local_server(tmp_path):
    found = site(tmp_path, CONF.format(upstream=LOCAL))
    assert (found.user, found.upstream, found.gateway) == ("librarian", "local", "")
    assert found.storage == Path("/srv/cvmfs/kernels.example.org")
    assert found.transaction_lock == Path("/var/spool/cvmfs/kernels.example.org/in_transaction.lock")
    assert (found.limits.file_bytes >> 20, found.limits.nested_entries, found.enforced) == (2048, 500_000, True)
    assert found.public_key == tmp_path / "keys" / f"{FQRN}.pub"


def test_a_publisher_of_a_gateway(tmp_path):
    found = site(tmp_path, CONF.format(upstream="gw,/srv/txn,http://gw.example.org:4929/api/v1"))
    assert (found.upstream, found.gateway) == ("gw", "http://gw.example.org:4929/api/v1")
    assert found.storage is None
    assert found.location == "http://localhost/cvmfs/kernels.example.org"


def test_a_server_without_the_repository(tmp_path):
    site(tmp_path, CONF.format(upstream=LOCAL))
    with pytest.raises(RepositoryError) as caught:
        read_site(ServerOptions(work=tmp_path, config=tmp_path), Fqrn("other.example.org"))
    assert caught.value.message.startswith("this server has no repository other.example.org: there is no ")
    assert caught.value.hint == "it has kernels.example.org"


def test_a_configuration_that_lacks_something(tmp_path):
    with pytest.raises(RepositoryError, match=r"server\.conf has no CVMFS_SPOOL_DIR"):
        site(tmp_path, CONF.format(upstream=LOCAL).replace("CVMFS_SPOOL_DIR", "CVMFS_SPOOL"))


def test_nothing_in_a_configuration_is_run():
    assert parse_conf("A=\"$(rm -rf /)\" # b\nB=`id`\nC='1 2'\n") == {"A": "$(rm -rf /)", "B": "`id`", "C": "1 2"}


def test_descriptions_of_files():
    small = Content(size_bytes=6, algorithm=Algorithm.SHA1, compression=Compression.ZLIB, digest=b"\x01" * 20)
    assert description(small) == b"size=6\nchecksum=%b\ncompression=zlib\n" % (b"01" * 20)
    chunks = tuple(Chunk(offset=at, size_bytes=4, digest=bytes((at,)) * 20) for at in (0, 4))
    big = Content(size_bytes=8, algorithm=Algorithm.SHAKE128, compression=Compression.NONE, chunks=chunks)
    assert description(big).decode().splitlines() == [
        "size=8",
        f"checksum={'00' * 20}-shake128",
        "compression=none",
        "chunk_offsets=0,4",
        f"chunk_checksums={'00' * 20}-shake128,{'04' * 20}-shake128",
    ]


def test_files_in_pieces_are_known_by_their_pieces(tmp_path):
    """Servers write no digest of the whole, or that of another object, for a file in pieces."""

    def stored(number: int) -> Stored:
        entry = Entry(path=f"{number}", kind=Kind.FILE, mode=0o644, size_bytes=8)
        chunks = tuple(Chunk(offset=at, size_bytes=4, digest=bytes((number, at)) * 10) for at in (0, 4))
        digest = Digest(raw=bytes(20), algorithm=Algorithm.SHA1)
        return Stored(
            entry=entry,
            nlink=1,
            raw_size=8,
            algorithm=Algorithm.SHA1,
            compression=Compression.ZLIB,
            digest=digest,
            chunks=chunks,
        )

    with Sums(tmp_path / "sums") as sums:
        sums.add([(stored(1), b"one"), (stored(2), b"two")])
    with Sums(tmp_path / "sums") as again:
        assert [again.known(stored(number)) for number in (1, 2, 3)] == [b"one", b"two", None]


def test_a_damaged_memory_of_sums_is_made_anew(tmp_path):
    (tmp_path / "sums").write_bytes(b"no database at all" * 100)
    with Sums(tmp_path / "sums") as sums:
        sums.add([])
    assert (tmp_path / "sums").read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize("text", ["a b", "$(id)", "`id`", "a;b", 'a"b', "a'b", "a\nb", "-F/etc/passwd", "a|b", "ä"])
def test_descriptions_of_tags_that_a_shell_would_read(text):
    with pytest.raises(
        RepositoryError, match="cannot describe a tag: cvmfs_server passes descriptions through a shell"
    ):
        safe_description(text)


def test_descriptions_of_tags_that_are_harmless():
    assert safe_description("release_2026.11.1") == "release_2026.11.1"


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("r/a", "r/a/b", True),
        ("r/a", "r/ab", False),
        ("r", "r/a", True),
        ("r/a/b", "r/a/c", False),
        ("r/a/", "r/a", True),
    ],
)
def test_leases_that_overlap(one, other, answer):
    assert overlap(one, other) is answer


def settings(folder: Path, text: str):
    (folder / "afpub.toml").write_text(f'fqrn = "{FQRN}"\n{text}')
    return load_settings(folder)


def test_settings_of_a_server(tmp_path):
    assert settings(tmp_path, 'backend = "cvmfs-server"\n').server == ServerSettings()
    own = settings(tmp_path, 'backend = "cvmfs-server"\n[server]\nway = "copy"\nwhitelist_days = 5\n').server
    assert (own.way, own.whitelist_days) == ("copy", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('backend = "cvmfs-server"\n[server]\nwey = "copy"\n', "unknown key 'wey'"),
        ('backend = "cvmfs-server"\n[server]\nway = "rsync"\n', "'way' is 'rsync', which is none of"),
        ('backend = "cvmfs-server"\n[server]\nconfig = "etc"\n', "'config' is 'etc', no absolute path"),
        ('backend = "cvmfs-server"\nkeys = "keys"\n', "'keys' is of the embedded back-end"),
        ('[server]\nway = "copy"\n', "the table is for the other back-end, and this one is 'embedded'"),
        ('backend = "cvmfs_server"\n', "'backend' is 'cvmfs_server', which is none of embedded, cvmfs-server"),
    ],
)
def test_settings_that_are_wrong(tmp_path, text, message):
    with pytest.raises(ProjectError, match=message):
        settings(tmp_path, text)
