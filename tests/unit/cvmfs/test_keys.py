"""Keys: made, looked at, rotated; the whitelist signed by whoever has the master key."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import cvmfs_repository as repository
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cvmfs_repository import Repo, file, graft, later

from publisher.cvmfs.check import check
from publisher.cvmfs.keys import KeyFiles, create_keys, load_private_key
from publisher.cvmfs.keystate import inspect_keys
from publisher.cvmfs.rotation import finish_rotation, rotate_key
from publisher.cvmfs.signing import load_signer, master_signer, resign_whitelist
from publisher.cvmfs.source import FolderSource
from publisher.cvmfs.trust import read_whitelist
from publisher.errors import DiskError, NotFoundError, TrustError

FQRN = repository.FQRN


@pytest.fixture
def repo(tmp_path) -> Repo:
    """A repository with keys of its own, which may be changed."""
    made = repository.make(tmp_path / "repo")
    keys = tmp_path / "keys"
    shutil.copytree(made.keys, keys)
    keys.chmod(0o700)
    own = Repo(made.folder, keys)
    own.publish(graft("/a", file("f", b"1")), at=later(1))
    return own


def files(repo: Repo) -> KeyFiles:
    return KeyFiles(folder=repo.keys, fqrn=FQRN)


def inspect(repo: Repo, *, minutes: int = 10):
    return inspect_keys(files(repo), repo.folder, now=later(minutes))


def said(state) -> list[tuple[str, str]]:
    return [(finding.severity.value, finding.message) for finding in state.report.findings]


def rotate(repo: Repo, minutes: int = 10, **more):
    return rotate_key(repo.folder, keys_folder=repo.keys, now=later(minutes), **more)


def finish(repo: Repo, minutes: int = 20, **more):
    return finish_rotation(repo.folder, keys_folder=repo.keys, now=later(minutes), **more)


def clean(repo: Repo) -> None:
    report = check(repo.folder, public_key=files(repo).public_key.read_bytes(), now=later(99), all_tags=True)
    assert report.findings == ()


MASTER_NOTE = ("note", "publishing never needs the master key: keep it apart")


def test_keys_in_order(repo):
    state = inspect(repo)
    assert state.report.ok
    assert said(state) == [MASTER_NOTE]
    assert [(row.role, row.mode) for row in state.files] == [
        ("master key", 0o400),
        ("public master key", 0o444),
        ("repository key", 0o400),
        ("certificate", 0o444),
    ]
    master, public, own, certificate = (row.fingerprint for row in state.files)
    assert master == public != own
    assert public.startswith("SHA256:")
    assert certificate == state.signed_by == state.whitelist.fingerprints[0]
    assert state.left == timedelta(days=30, minutes=-10)


def test_keys_that_others_can_read_or_replace(repo):
    files(repo).repository_key.chmod(0o440)
    repo.keys.chmod(0o770)
    state = inspect(repo)
    assert ("warning", "the private key can be read by others (mode 0440)") in said(state)
    assert ("error", "others can put files in the place of the keys (mode 0770)") in said(state)
    assert not state.report.ok


def test_master_key_that_is_kept_apart_is_not_missed(repo):
    files(repo).master_key.unlink()
    state = inspect(repo)
    assert said(state) == []
    assert state.files[0].mode is None


def test_whitelist_that_ends(repo):
    state = inspect(repo, minutes=24 * 60 * 25)
    assert ("warning", "the whitelist expires on 2026-12-24 12:00 UTC") in said(state)
    assert state.report.ok
    assert state.left.days == 5
    state = inspect(repo, minutes=24 * 60 * 31)
    assert ("error", f"the whitelist of {repo.folder} expired on 2026-12-24 12:00 UTC") in said(state)
    assert state.left.days == -1


def test_keys_of_another_repository(repo, tmp_path):
    other = create_keys(FQRN, tmp_path / "other", now=repository.NOW)
    shutil.copy(other.master_key, tmp_path / "m")
    files(repo).master_key.unlink()
    (tmp_path / "m").rename(files(repo).master_key)
    files(repo).certificate.unlink()
    shutil.copy(other.certificate, files(repo).certificate)
    messages = dict(reversed(pair) for pair in said(inspect(repo)))
    assert messages[f"does not belong to {files(repo).public_key}"] == "error"
    assert messages[f"is not the certificate of {files(repo).repository_key}"] == "error"
    assert messages["the whitelist does not name the certificate in the keys folder"] == "error"


def test_a_key_that_is_missing(repo):
    files(repo).public_key.unlink()
    path = files(repo).public_key
    assert ("error", f"cannot read the key file {path}: No such file or directory") in said(inspect(repo))


def test_a_key_with_a_flipped_bit_signs_nothing(repo):
    """Its numbers are not looked at one by one, since what it signs is."""
    key = load_private_key(files(repo).repository_key)
    numbers = key.private_numbers()
    values = {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp", "public_numbers")}
    wrong = rsa.RSAPrivateNumbers(**values | {"dmp1": numbers.dmp1 ^ 4, "d": numbers.d ^ 4})
    damaged = wrong.private_key(unsafe_skip_rsa_key_validation=True).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    place = files(repo).repository_key
    place.unlink()
    place.write_bytes(damaged)
    place.chmod(0o400)
    before = (repo.folder / ".cvmfspublished").read_bytes()
    with pytest.raises(TrustError, match="the repository key is damaged"):
        repo.publish(graft("/a", file("f", b"2")), at=later(2))
    assert (repo.folder / ".cvmfspublished").read_bytes() == before


def test_resigning_needs_neither_the_repository_key_nor_a_key_file(repo, tmp_path):
    """On the machine that has the master key."""
    master = tmp_path / "safe"
    files(repo).master_key.rename(master)
    files(repo).repository_key.unlink()
    whitelist = resign_whitelist(repo.folder, keys_folder=repo.keys, now=later(600), sign=master_signer(master))
    assert whitelist.expires == later(600) + timedelta(days=30)
    clean(repo)


def test_a_wrong_signature_is_never_put_in_place(repo, tmp_path):
    other = create_keys(FQRN, tmp_path / "other", now=repository.NOW)
    before = (repo.folder / ".cvmfswhitelist").read_bytes()
    for sign in (master_signer(other.master_key), lambda text: b"", lambda text: text.encode()):
        with pytest.raises(TrustError) as caught:
            resign_whitelist(repo.folder, keys_folder=repo.keys, now=later(600), sign=sign)
        assert caught.value.message == (
            f"the whitelist was not signed by the master key that belongs to {files(repo).public_key}"
        )
        assert caught.value.hint == (
            "sign with that key: PKCS#1 v1.5 padding of the bytes as they are, without a digest (RSA-PKCS)"
        )
    assert (repo.folder / ".cvmfswhitelist").read_bytes() == before


def test_rotation(repo):
    old_pem = files(repo).certificate.read_bytes()
    old_key = files(repo).repository_key.read_bytes()
    with repo.open() as reader:
        before = reader.manifest
    done = rotate(repo)
    assert done.whitelist.fingerprints == (done.old, done.new)
    assert done.old != done.new
    assert done.old_key.read_bytes() == old_key
    assert (done.old_key.stat().st_mode & 0o777, files(repo).repository_key.stat().st_mode & 0o777) == (0o400, 0o400)
    with repo.open(at=later(11)) as reader:
        assert reader.manifest == replace(
            before, certificate=reader.manifest.certificate, reflog=reader.manifest.reflog
        )
        assert reader.manifest.certificate != before.certificate
    clean(repo)
    assert said(inspect(repo)) == [MASTER_NOTE, ("note", "1 other certificates are allowed to sign")]
    repo.publish(graft("/b", file("f", b"2")), at=later(12))
    clean(repo)

    whitelist = finish(repo)
    assert whitelist.fingerprints == (done.new,)
    assert sorted(path.suffix for path in repo.keys.iterdir()) == [".crt", ".key", ".masterkey", ".pub"]
    clean(repo)
    files(repo).certificate.unlink()
    files(repo).certificate.write_bytes(old_pem)
    files(repo).repository_key.unlink()
    files(repo).repository_key.write_bytes(old_key)
    with pytest.raises(TrustError, match="does not name the certificate"):
        repo.publish(graft("/c", file("f", b"3")), at=later(30))


def test_old_manifest_is_trusted_until_the_rotation_is_finished(repo):
    """A cache may hand out the old manifest with the new whitelist."""
    manifest = repo.folder / ".cvmfspublished"
    old = manifest.read_bytes()
    rotate(repo)
    new = manifest.read_bytes()
    manifest.write_bytes(old)
    repo.open(at=later(11)).close()
    manifest.write_bytes(new)
    finish(repo)
    manifest.write_bytes(old)
    with pytest.raises(TrustError, match="is not in its whitelist"):
        repo.open(at=later(21))


def test_rotating_keeps_certificates_of_others(repo):
    whitelist, _ = read_whitelist(FolderSource(repo.folder))
    first = rotate(repo)
    second = rotate(repo, 12)
    assert second.whitelist.fingerprints == (*first.whitelist.fingerprints, second.new)
    left = finish(repo)
    assert left.fingerprints == (whitelist.fingerprints[0], second.new)


def test_nothing_to_finish(repo):
    with pytest.raises(NotFoundError) as caught:
        finish(repo)
    assert caught.value.hint == "rotate the key first: afpub keys rotate"


def test_rotation_without_the_master_key_changes_nothing(repo):
    files(repo).master_key.unlink()
    before = {path: path.read_bytes() for path in repo.keys.iterdir()}
    with pytest.raises(TrustError, match="masterkey"):
        rotate(repo)
    assert {path: path.read_bytes() for path in repo.keys.iterdir()} == before
    clean(repo)


def test_rotation_that_ended_between_key_and_certificate(repo):
    """Publishing goes on; the next rotation puts the files in order."""
    old = files(repo).certificate.read_bytes()
    rotate(repo)
    files(repo).certificate.rename(repo.keys / f"{FQRN}.crt.new")
    files(repo).certificate.write_bytes(old)
    repo.publish(graft("/b", file("f", b"1")), at=later(12))
    rotate(repo, 13)
    assert not files(repo).new_certificate.exists()
    load_signer(files(repo))
    repo.publish(graft("/b", file("f", b"2")), at=later(14))
    clean(repo)


def test_certificate_of_another_key(repo, tmp_path):
    other = create_keys(FQRN, tmp_path / "other", now=repository.NOW)
    other.certificate.rename(files(repo).certificate)
    with pytest.raises(TrustError) as caught:
        repo.publish(graft("/b", file("f", b"2")), at=later(12))
    assert caught.value.message == f"{files(repo).certificate} is not the certificate of {files(repo).repository_key}"
    assert caught.value.hint == "if a rotation of the key was interrupted, this finishes it: afpub keys rotate"


def test_making_keys_that_was_interrupted(tmp_path):
    made = create_keys(FQRN, tmp_path, now=repository.NOW)
    (tmp_path / f"{FQRN}.crt.new-1").write_bytes(b"half")
    made.certificate.unlink()
    with pytest.raises(DiskError) as caught:
        create_keys(FQRN, tmp_path, now=repository.NOW)
    names = f"{made.master_key} {made.public_key} {made.repository_key}"
    assert caught.value.hint == f"if making keys was interrupted here, and nothing uses them: rm -f {names}"
    for path in (made.master_key, made.public_key, made.repository_key):
        path.unlink()
    create_keys(FQRN, tmp_path, now=repository.NOW)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".crt", ".key", ".masterkey", ".pub"]


def test_master_key_in_a_file_of_its_own(tmp_path):
    master = tmp_path / "safe.pem"
    made = create_keys(FQRN, tmp_path / "keys", now=repository.NOW, master_key=master)
    assert not made.master_key.exists()
    assert master.stat().st_mode & 0o777 == 0o400
    with pytest.raises(DiskError, match="there is a key file"):
        create_keys(FQRN, tmp_path / "more", now=repository.NOW, master_key=master)
