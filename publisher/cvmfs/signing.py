"""What a publisher signs with, and renewing the whitelist."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.envelope import Envelope
from publisher.cvmfs.keys import (
    KeyFiles,
    certificate_der,
    load_certificate,
    load_private_key,
    load_public_key,
    read_key_file,
    sign_manifest_hash,
    sign_whitelist_hash,
    verify_manifest_hash,
    verify_whitelist_hash,
)
from publisher.cvmfs.location import Location, storage_of
from publisher.cvmfs.lock import exclusive
from publisher.cvmfs.manifest import Manifest
from publisher.cvmfs.source import Source
from publisher.cvmfs.storage import Storage
from publisher.cvmfs.trust import (
    allows_certificate,
    check_whitelist,
    read_manifest,
    read_whitelist,
    verify_whitelist,
)
from publisher.cvmfs.whitelist import VALIDITY, WHITELIST_NAME, Whitelist, fingerprint
from publisher.errors import TrustError
from publisher.names import Fqrn

_PATIENCE_S = 600.0
"""Whoever else signs may be typing the number of a card."""
SignHash = Callable[[str], bytes]
"""Gives the master key's signature of a digest in text form: PKCS#1 v1.5 padding, no DigestInfo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """A repository key and its certificate."""

    key: rsa.RSAPrivateKey = field(repr=False)
    certificate_pem: bytes
    certificate: x509.Certificate

    def sign(self, manifest: Manifest) -> bytes:
        """The bytes of the signed manifest.

        Raises:
            TrustError: the key is damaged, so that no client would accept the signature.
        """
        body = manifest.body()
        text = str(manifest.algorithm.digest(body))
        signature = sign_manifest_hash(self.key, text)
        if not verify_manifest_hash(self.certificate, text, signature):
            raise TrustError(
                "the repository key is damaged: what it signs does not fit its certificate",
                hint="put the key file back from its backup",
            )
        return bytes(Envelope(body=body, signed_hash=text, signature=signature))


def load_signer(files: KeyFiles) -> Signer:
    """The repository key in a keys folder.

    A rotation that was killed leaves the new key beside the old certificate; the new one is there then too.

    Raises:
        TrustError: a file is missing, or key and certificate do not belong together.
    """
    key = load_private_key(files.repository_key, checked=False)
    for path in (files.certificate, files.new_certificate):
        if path == files.certificate or path.exists():
            pem = read_key_file(path)
            certificate = load_certificate(pem, where=str(path))
            if certificate.public_key() == key.public_key():
                return Signer(key=key, certificate_pem=pem, certificate=certificate)
    raise TrustError(
        f"{files.certificate} is not the certificate of {files.repository_key}",
        hint="if a rotation of the key was interrupted, this finishes it: afpub keys rotate",
    )


def check_may_sign(signer: Signer, source: Source, files: KeyFiles, *, algorithm: Algorithm, now: datetime) -> None:
    """Refuses to publish what no client would accept.

    Raises:
        TrustError: the whitelist has expired, is of another repository, or does not name the certificate.
    """
    if files.public_key.exists():
        public = read_key_file(files.public_key)
        whitelist = verify_whitelist(source, public, fqrn=files.fqrn, now=now)
    else:
        whitelist, _ = read_whitelist(source)
        check_whitelist(whitelist, where=source.where, fqrn=files.fqrn, now=now)
    if not allows_certificate(whitelist, signer.certificate, algorithm):
        raise TrustError(
            f"the whitelist of {source.where} does not name the certificate {files.certificate}",
            hint="use the keys that the repository was created with, or resign the whitelist: afpub keys resign",
        )


def master_signer(path: Path, *, ask: Callable[[Path], str] | None = None) -> SignHash:
    """Signs with a master key in a file.

    Args:
        path: the file.
        ask: gives the password of an encrypted one.

    Raises:
        TrustError: it cannot be read.
    """
    key = load_private_key(path, ask=ask)
    return lambda text: sign_whitelist_hash(key, text)


def signed_whitelist(whitelist: Whitelist, sign: SignHash, files: KeyFiles, algorithm: Algorithm) -> bytes:
    """The bytes of a signed whitelist, which clients that have the public key will accept.

    Raises:
        TrustError: the signature is not that of the master key, or there is no public key.
    """
    body = whitelist.body()
    text = str(algorithm.digest(body))
    signature = sign(text)
    public = load_public_key(read_key_file(files.public_key), where=str(files.public_key))
    if not verify_whitelist_hash(public, text, signature):
        raise TrustError(
            f"the whitelist was not signed by the master key that belongs to {files.public_key}",
            hint="sign with that key: PKCS#1 v1.5 padding of the bytes as they are, without a digest (RSA-PKCS)",
        )
    return bytes(Envelope(body=body, signed_hash=text, signature=signature))


def new_whitelist(
    certificate: x509.Certificate, fqrn: Fqrn, *, algorithm: Algorithm, now: datetime, validity: timedelta = VALIDITY
) -> Whitelist:
    """A whitelist that allows one certificate."""
    issued = now.astimezone(UTC).replace(microsecond=0)
    return Whitelist(
        fqrn=fqrn,
        issued=issued,
        expires=issued + validity,
        fingerprints=(fingerprint(certificate_der(certificate), algorithm),),
    )


def resign_whitelist(  # noqa: PLR0913 - what is signed, how, and for how long
    location: Location,
    *,
    keys_folder: Path,
    now: datetime,
    validity: timedelta = VALIDITY,
    sign: SignHash | None = None,
    drop: str = "",
) -> Whitelist:
    """Signs a repository's whitelist again, so that it is valid from now on; needs the master key.

    Publishers need not be waited for: they only read the whitelist.

    Args:
        location: the repository.
        keys_folder: holds the certificate and the public master key.
        now: the present.
        validity: how long from now on.
        sign: signs; the master key in the keys folder when left out.
        drop: fingerprint of a certificate that is not to be allowed any more.

    Raises:
        TrustError: a key is missing, or the signature is not that of the master key.
        RepositoryError: there is no repository.
        TransactionOpenError: somebody else has been writing the whitelist for a long time.
    """
    storage = storage_of(location)
    manifest, _ = read_manifest(storage)
    fqrn = Fqrn(manifest.fqrn)
    files = KeyFiles(folder=keys_folder, fqrn=fqrn)
    certificate = load_certificate(read_key_file(files.certificate), where=str(files.certificate))
    whitelist = new_whitelist(certificate, fqrn, algorithm=manifest.algorithm, now=now, validity=validity)
    with hold_whitelist(storage):
        former = former_fingerprints(storage)
        if whitelist.fingerprints[0] in former:
            whitelist = replace(whitelist, fingerprints=tuple(mark for mark in former if mark != drop))
        data = signed_whitelist(whitelist, sign or master_signer(files.master_key), files, manifest.algorithm)
        storage.put_state(WHITELIST_NAME, data)
    return whitelist


@contextlib.contextmanager
def hold_whitelist(storage: Storage) -> Iterator[None]:
    """Nobody else changes the whitelist meanwhile; what a killed process left is removed.

    Raises:
        TransactionOpenError: somebody else has been writing it for a long time.
    """
    storage.prepare()
    path = storage.spool / "whitelist.lock"
    with exclusive(path, what=f"the whitelist of {storage.where}", wait_s=_PATIENCE_S):
        storage.tidy(WHITELIST_NAME)
        storage.read_state(WHITELIST_NAME)  # where the lock is not everybody's, only this one is replaced
        yield


def former_fingerprints(source: Source) -> tuple[str, ...]:
    """The certificates that a repository's whitelist allows; none where there is no whitelist."""
    try:
        whitelist, _ = read_whitelist(source)
    except TrustError:
        return ()
    return whitelist.fingerprints
