"""A new repository key in the place of the old one, without clients noticing.

The whitelist lists both certificates before the first manifest is signed with the new key. So a client that sees the
old manifest trusts it as well as one that sees the new manifest. Killed anywhere, rotating again goes on.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from publisher.cvmfs.commit import commit_reflog, read_reflog
from publisher.cvmfs.disk import failing_as, replace_file, sync_path
from publisher.cvmfs.keys import KeyFiles, certificate_der, create_repository_key, load_certificate, read_key_file
from publisher.cvmfs.location import Location, source_of
from publisher.cvmfs.publish import session
from publisher.cvmfs.signing import (
    SignHash,
    hold_whitelist,
    load_signer,
    master_signer,
    new_whitelist,
    resign_whitelist,
    signed_whitelist,
)
from publisher.cvmfs.trust import read_manifest, read_whitelist
from publisher.cvmfs.whitelist import WHITELIST_NAME, Whitelist, fingerprint
from publisher.errors import NotFoundError, TrustError
from publisher.names import Fqrn


@dataclass(frozen=True, kw_only=True, slots=True)
class _NewFiles(KeyFiles):
    """The key and certificate that are to come, beside those in use."""

    @property
    def repository_key(self) -> Path:
        return self.folder / f"{self.fqrn}.key.new"

    @property
    def certificate(self) -> Path:
        return self.new_certificate


@dataclass(frozen=True, kw_only=True, slots=True)
class _OldFiles(KeyFiles):
    """The key and certificate that were in use."""

    @property
    def repository_key(self) -> Path:
        return self.folder / f"{self.fqrn}.key.old"

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.fqrn}.crt.old"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """What a rotation came to."""

    old: str
    """Fingerprint of the certificate that was in use."""
    new: str
    whitelist: Whitelist
    old_key: Path
    """Where the old private key is kept until the rotation is finished."""


def rotate_key(
    location: Location, *, keys_folder: Path, now: datetime, sign: SignHash | None = None, wait_s: float = 0.0
) -> Rotation:
    """Makes a new repository key and signs the manifest with it; old and new certificate are allowed then.

    Args:
        location: the repository.
        keys_folder: holds the keys in use, and gets the new ones.
        now: the present.
        sign: signs the whitelist; the master key in the keys folder when left out.
        wait_s: how long to wait for a publisher, in seconds.

    Raises:
        TransactionOpenError: a publisher holds the repository.
        TrustError: a key is missing, or the signature is not that of the master key.
        DiskError: a file cannot be written.
    """
    manifest, _ = read_manifest(source_of(location))
    files = KeyFiles(folder=keys_folder, fqrn=Fqrn(manifest.fqrn))
    new_files = _NewFiles(folder=keys_folder, fqrn=files.fqrn)
    _finish_renaming(files, new_files)
    sign = sign or master_signer(files.master_key)
    with session(location, keys_folder=keys_folder, now=now, wait_s=wait_s) as held:
        _make_new(new_files, now)
        signer = load_signer(new_files)
        manifest = held.reader.manifest
        algorithm = manifest.algorithm
        old, new = (fingerprint(certificate_der(each.certificate), algorithm) for each in (held.signer, signer))
        whitelist = new_whitelist(signer.certificate, files.fqrn, algorithm=algorithm, now=now)
        with hold_whitelist(held.storage):
            former, _ = read_whitelist(held.storage)
            listed = tuple(dict.fromkeys((*former.fingerprints, new)))
            whitelist = replace(whitelist, fingerprints=listed, expires=max(former.expires, whitelist.expires))
            held.storage.put_state(WHITELIST_NAME, signed_whitelist(whitelist, sign, files, algorithm))
        reflog = read_reflog(held.storage, manifest, held.reader.history())
        commit_reflog(held.store, signer, manifest, reflog)
        old_key = _keep_old(files)
        _rename(new_files.repository_key, files.repository_key)
        _rename(new_files.certificate, files.certificate)
    return Rotation(old=old, new=new, whitelist=whitelist, old_key=old_key)


def finish_rotation(
    location: Location, *, keys_folder: Path, now: datetime, sign: SignHash | None = None, wait_s: float = 0.0
) -> Whitelist:
    """Takes the old certificate off the whitelist, and removes the old private key.

    Raises:
        NotFoundError: the key was not rotated, or that was finished.
        TrustError: a key is missing, or the signature is not that of the master key.
    """
    manifest, _ = read_manifest(source_of(location))
    files = KeyFiles(folder=keys_folder, fqrn=Fqrn(manifest.fqrn))
    _finish_renaming(files, _NewFiles(folder=keys_folder, fqrn=files.fqrn))
    old = _OldFiles(folder=keys_folder, fqrn=files.fqrn)
    if not old.certificate.exists():
        raise NotFoundError(
            f"there is no old certificate {old.certificate}", hint="rotate the key first: afpub keys rotate"
        )
    mark = fingerprint(
        certificate_der(load_certificate(read_key_file(old.certificate), where=f"{old.certificate}")),
        manifest.algorithm,
    )
    with session(location, keys_folder=keys_folder, now=now, wait_s=wait_s) as held:
        manifest = held.reader.manifest
        reflog = read_reflog(held.storage, manifest, held.reader.history())
        commit_reflog(held.store, held.signer, manifest, reflog)  # whoever published last, it is ours now
        whitelist = resign_whitelist(held.storage, keys_folder=keys_folder, now=now, sign=sign, drop=mark)
        for path in (old.repository_key, old.certificate):
            with failing_as("remove", path):
                path.unlink(missing_ok=True)
    return whitelist


def _make_new(files: KeyFiles, now: datetime) -> None:
    """A new pair, or the one that an interrupted rotation made."""
    if files.repository_key.exists() and files.certificate.exists():
        with contextlib.suppress(TrustError):
            load_signer(files)
            return
    for path in (files.repository_key, files.certificate):
        with failing_as("remove", path):
            path.unlink(missing_ok=True)
    create_repository_key(files.repository_key, files.certificate, files.fqrn, now=now)


def _keep_old(files: KeyFiles) -> Path:
    old = _OldFiles(folder=files.folder, fqrn=files.fqrn)
    for source, target, mode in (
        (files.repository_key, old.repository_key, 0o400),
        (files.certificate, old.certificate, 0o444),
    ):
        replace_file(target, read_key_file(source), mode)
    return old.repository_key


def _rename(source: Path, target: Path) -> None:
    with failing_as("replace", target):
        os.replace(source, target)  # noqa: PTH105 - the call that is atomic, by its own name
        sync_path(target.parent)


def _finish_renaming(files: KeyFiles, new: KeyFiles) -> None:
    """A rotation that was killed left a new key with an old certificate, or half a copy of the old key."""
    for suffix in ("key", "crt"):
        for path in files.folder.glob(f"{files.fqrn}.{suffix}.*.new-*"):
            with failing_as("remove", path):
                path.unlink(missing_ok=True)
    if new.certificate.exists() and not new.repository_key.exists():
        _rename(new.certificate, files.certificate)
