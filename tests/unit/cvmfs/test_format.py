"""The small pieces of the format: digests, path hashes, attributes, compression, manifest, whitelist, keys."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import cvmfs_repository as repository
import cvmfs_vectors as vectors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.cvmfs import xattr
from publisher.cvmfs.compression import Compression, Compressor, decompress
from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.envelope import parse_envelope
from publisher.cvmfs.keys import (
    KeyFiles,
    create_keys,
    load_certificate,
    load_private_key,
    load_public_key,
    private_key_findings,
    sign_manifest_hash,
    sign_whitelist_hash,
    verify_manifest_hash,
    verify_whitelist_hash,
)
from publisher.cvmfs.manifest import Manifest, parse_manifest
from publisher.cvmfs.pathhash import parent_hash, path_hash
from publisher.cvmfs.settings import SETTINGS_NAME, Settings, encode_settings, read_settings
from publisher.cvmfs.source import FolderSource
from publisher.cvmfs.variant import expand_variant
from publisher.cvmfs.whitelist import Whitelist, fingerprint, parse_whitelist
from publisher.errors import DiskError, FormatError, RepositoryError, TrustError
from publisher.names import Fqrn


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        (Algorithm.SHA1, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        (Algorithm.RMD160, "9c1185a5c5e9fc54612808977ee8f548b2258d31-rmd160"),
        (Algorithm.SHAKE128, "7f9c2ba4e88f827d616045507605853ed73b8093-shake128"),
    ],
)
def test_digests_in_text_form(algorithm, text):
    digest = algorithm.digest(b"")
    assert str(digest) == text
    assert Digest.parse(text) == digest
    assert digest.object_name(ObjectKind.CHUNK) == f"data/{text[:2]}/{text[2:]}P"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "da39",
        "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709",
        "../../../../etc/passwd",
        "0" * 40 + "-md5",
        "0" * 40 + "\n",
    ],
)
def test_what_is_no_digest(text):
    with pytest.raises(FormatError, match="is no digest"):
        Digest.parse(text)


def test_digest_of_another_length():
    with pytest.raises(FormatError, match="a digest has 19 bytes, not 20"):
        Digest(raw=b"x" * 19, algorithm=Algorithm.SHA1)


def test_path_hashes():
    assert path_hash("") == struct.unpack("<qq", bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e"))
    assert path_hash("/a\udcff") == struct.unpack("<qq", hashlib.md5(b"/a\xff").digest())
    assert parent_hash("/a") == path_hash("")
    assert parent_hash("") == (0, 0)


_NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)


@given(st.dictionaries(_NAMES, st.binary(max_size=255), max_size=255))
def test_attributes_come_back(values):
    attributes = tuple((os.fsdecode(name), values[name]) for name in sorted(values))
    assert xattr.decode(xattr.encode(attributes, where="f")) == attributes


def test_attributes_of_the_cvmfs_tools():
    assert xattr.encode((("user.kept", b"1"),), where="f") == b"\x01\x01\x09\x01user.kept1"
    assert xattr.encode((), where="f") is None


@given(st.binary(max_size=80))
def test_any_bytes_are_attributes_or_refused(blob):
    try:
        decoded = xattr.decode(blob)
    except FormatError:
        return
    assert sorted(xattr.encode(decoded, where="f")) == sorted(blob)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ((("user.x", b"v" * 256),), "f: the extended attribute 'user.x' has 256 bytes; CVMFS holds 255"),
        ((("n" * 256, b""),), "f: an extended attribute's name of 256 bytes does not fit CVMFS"),
        (tuple((f"user.{n}", b"") for n in range(256)), "f has 256 extended attributes; CVMFS holds 255"),
    ],
)
def test_attributes_that_do_not_fit(attributes, message):
    with pytest.raises(RepositoryError) as caught:
        xattr.encode(attributes, where="f")
    assert caught.value.message == message


@pytest.mark.parametrize("compression", list(Compression))
@given(data=st.binary(max_size=5000), level=st.integers(1, 12))
def test_contents_come_back(compression, data, level):
    stored = Compressor(compression=compression, level=level).compress(data)
    assert b"".join(decompress([stored], compression, limit=len(data))) == data
    pieces = [stored[at : at + 7] for at in range(0, len(stored), 7)]
    assert b"".join(decompress(pieces, compression, limit=len(data))) == data


def test_the_empty_object_has_its_well_known_name():
    for compressor in (Compressor(), Compressor(reference=True), Compressor(level=12)):
        stored = compressor.compress(b"")
        assert str(Algorithm.SHA1.digest(stored)) == "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"", "ends in the middle of its compressed stream"),
        (zlib.compress(b"abc")[:-1], "ends in the middle of its compressed stream"),
        (zlib.compress(b"abc") + b"x", "has bytes behind its compressed stream"),
        (b"no stream", "is no valid zlib stream"),
        (zlib.compress(b"abcd"), "has more than the expected 3 bytes of content"),
        (zlib.compress(bytes(1 << 28)), "has more than the expected 3 bytes of content"),
    ],
)
def test_damaged_streams(stored, message):
    with pytest.raises(FormatError) as caught:
        list(decompress([stored], Compression.ZLIB, limit=3))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no signature"),
        (b"C1\n--\n", "has no signature"),
        (b"--\nabc\nsig", "is empty"),
        (b"C1\n--\nabc\nsig", "'abc' is no digest"),
    ],
)
def test_broken_envelopes(data, message):
    with pytest.raises(FormatError) as caught:
        parse_envelope(data, what="the manifest")
    assert message in caught.value.message


MANIFEST = Manifest(
    root=Algorithm.SHA1.digest(b"root"),
    root_size_bytes=1,
    fqrn="a.b",
    revision=3,
    certificate=Algorithm.SHA1.digest(b"c"),
)


def _signed(body: bytes) -> bytes:
    return body + b"--\n" + str(Algorithm.SHA1.digest(body)).encode() + b"\nsignature"


def test_manifest_comes_back():
    manifest, envelope = parse_manifest(_signed(MANIFEST.body() + b"?unknown\n\nS4\n"))
    assert manifest == replace(MANIFEST, revision=4)
    assert envelope.signature == b"signature"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"S3\n", b"", "the manifest has no field S"),
        (b"S3\n", b"S-3\n", "the manifest's field S is '-3', no number"),
        (b"S3\n", b"S" + b"9" * 30 + b"\n", "no number"),
        (b"Gno\n", b"Gmaybe\n", "the manifest's field G is 'maybe', neither yes nor no"),
        (b"Rd41", b"Re41", "the manifest's field R is not the digest of the root path"),
        (b"\nX", b"\nXx", "the manifest's field X: 'x"),
    ],
)
def test_damaged_manifests(old, new, message):
    body = MANIFEST.body()
    assert old in body
    with pytest.raises(FormatError) as caught:
        parse_manifest(_signed(body.replace(old, new)))
    assert message in caught.value.message


def test_manifest_that_was_changed():
    data = _signed(MANIFEST.body()).replace(b"S3", b"S4")
    with pytest.raises(TrustError, match=r"the manifest \.cvmfspublished was changed after it was signed"):
        parse_manifest(data)


WHITELIST = Whitelist(
    fqrn="a.b",
    issued=datetime(2026, 1, 1, tzinfo=UTC),
    expires=datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    fingerprints=("AB:CD",),
)


def test_whitelist_expires_by_the_hour():
    for hour, minute, expired in ((11, 59, False), (12, 0, True), (12, 29, True), (13, 0, True)):
        assert WHITELIST.expired(datetime(2026, 1, 31, hour, minute, tzinfo=UTC)) is expired


def test_whitelist_comes_back():
    body = WHITELIST.body() + b"Vpkcs7\nEF:01 # a comment\n"
    whitelist, _ = parse_whitelist(_signed(body))
    assert whitelist == replace(WHITELIST, fingerprints=("AB:CD", "EF:01"), modes=("pkcs7",))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"20260101000000\n", "does not begin with issue time, expiry and name"),
        (b"20260101000000\nEsoon\nNa.b\n", "the whitelist has 'soon' where a time belongs"),
    ],
)
def test_damaged_whitelists(body, message):
    with pytest.raises(FormatError) as caught:
        parse_whitelist(_signed(body))
    assert message in caught.value.message


def test_fingerprint_ends_with_the_algorithm():
    assert fingerprint(b"x", Algorithm.SHAKE128).endswith("-SHAKE128")
    assert fingerprint(b"", Algorithm.SHA1).startswith("DA:39:A3:EE:")


def test_keys(tmp_path):
    fqrn = Fqrn("keys.afpub.example")
    files = create_keys(fqrn, tmp_path / "keys", now=repository.NOW)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {
        f"{fqrn}.masterkey": 0o400,
        f"{fqrn}.key": 0o400,
        f"{fqrn}.pub": 0o444,
        f"{fqrn}.crt": 0o444,
    }
    assert list(private_key_findings(files)) == []
    files.master_key.chmod(0o440)
    (finding,) = private_key_findings(files)
    assert finding.message == "the private key can be read by others (mode 0440)"
    with pytest.raises(DiskError, match=r"there is a key file .* already"):
        create_keys(fqrn, tmp_path / "keys", now=repository.NOW)


def test_signatures_of_both_kinds():
    files = KeyFiles(folder=repository.shared_keys(), fqrn=repository.FQRN)
    text = str(Algorithm.SHAKE128.digest(b"x"))
    certificate = load_certificate(files.certificate.read_bytes(), where="crt")
    signature = sign_manifest_hash(load_private_key(files.repository_key), text)
    assert verify_manifest_hash(certificate, text, signature)
    assert not verify_manifest_hash(certificate, text[:-1], signature)
    master = load_private_key(files.master_key)
    public = load_public_key(files.public_key.read_bytes(), where="pub")
    signature = sign_whitelist_hash(master, text)
    assert verify_whitelist_hash(public, text, signature)
    assert not verify_whitelist_hash(public, text[:-1], signature)
    assert not verify_whitelist_hash(public, text, sign_manifest_hash(master, text))
    assert not verify_whitelist_hash(public, text, b"short")


@pytest.mark.parametrize("name", vectors.NAMES)
def test_signatures_of_the_cvmfs_tools_are_made_again(tmp_path, name):
    """RSA signatures of this kind have one value: ours is theirs, byte for byte."""
    repo = vectors.extract(name, tmp_path)
    keys = KeyFiles(folder=vectors.VECTORS / name / "keys", fqrn=Fqrn(name))
    _, manifest = parse_manifest((repo / ".cvmfspublished").read_bytes())
    assert sign_manifest_hash(load_private_key(keys.repository_key), manifest.signed_hash) == manifest.signature
    _, whitelist = parse_whitelist((repo / ".cvmfswhitelist").read_bytes())
    assert sign_whitelist_hash(load_private_key(keys.master_key), whitelist.signed_hash) == whitelist.signature


def test_files_that_hold_no_key(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"nothing")
    with pytest.raises(TrustError, match="holds no private key that can be read without a password"):
        load_private_key(path)
    with pytest.raises(TrustError, match="pub holds no public key"):
        load_public_key(b"nothing", where="pub")
    with pytest.raises(TrustError, match="crt holds no certificate"):
        load_certificate(b"nothing", where="crt")


def test_settings_come_back(tmp_path):
    settings = Settings(algorithm=Algorithm.SHAKE128, compression="none", ttl_s=60, chunk_fixed=True)
    path = tmp_path / SETTINGS_NAME
    path.parent.mkdir()
    path.write_bytes(encode_settings(settings))
    assert read_settings(FolderSource(tmp_path), algorithm=Algorithm.SHA1) == settings


def test_settings_of_a_repository_of_others_are_the_defaults(tmp_path):
    assert read_settings(FolderSource(tmp_path), algorithm=Algorithm.RMD160) == Settings(algorithm=Algorithm.RMD160)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged: "),
        ('{"algorithm": "md5"}', "is damaged: 'md5' is not a valid Algorithm"),
        ('{"speed": 3}', "unknown setting 'speed'"),
        ('{"compression": "zstd"}', "there is no compression 'zstd'"),
        ('{"compression_level": 99}', "there is no compression level 99"),
        ('{"jobs": -1}', "there can be 0 to 256 jobs, not -1"),
        ('{"jobs": 257}', "there can be 0 to 256 jobs, not 257"),
        ('{"ttl_s": 0}', "the time to live must be positive, not 0 s"),
    ],
)
def test_damaged_settings(tmp_path, text, message):
    path = tmp_path / SETTINGS_NAME
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(RepositoryError) as caught:
        read_settings(FolderSource(tmp_path), algorithm=Algorithm.SHA1)
    assert message in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("$(A)", "value"),
        ("$(B:-x)/y", "x/y"),
        ("$(B)", ""),
        ("a$(B)b$(A:-z)", "abvalue"),
        ("$(unclosed", "$(unclosed"),
        ("$A", "$A"),
    ],
)
def test_variant_links(target, shown):
    assert expand_variant(target, {"A": "value"}) == shown


def test_whitelist_is_valid_for_thirty_days(tmp_path):
    repo = repository.make(tmp_path / "repo")
    whitelist, _ = parse_whitelist((repo.folder / ".cvmfswhitelist").read_bytes())
    assert whitelist.expires - whitelist.issued == timedelta(days=30)
