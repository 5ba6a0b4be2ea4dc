"""What a publisher signs with, and renewing the whitelist."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.disk import replace_file
from publisher.cvmfs.envelope import Envelope
from publisher.cvmfs.keys import (
    KeyFiles,
    certificate_der,
    load_certificate,
    load_private_key,
    read_key_file,
    sign_manifest_hash,
    sign_whitelist_hash,
)
from publisher.cvmfs.manifest import Manifest
from publisher.cvmfs.source import FolderSource
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """A repository key and its certificate."""

    key: rsa.RSAPrivateKey = field(repr=False)
    certificate_pem: bytes
    certificate: x509.Certificate

    def sign(self, manifest: Manifest) -> bytes:
        """The bytes of the signed manifest."""
        body = manifest.body()
        text = str(manifest.algorithm.digest(body))
        return bytes(Envelope(body=body, signed_hash=text, signature=sign_manifest_hash(self.key, text)))


def load_signer(files: KeyFiles) -> Signer:
    """The repository key in a keys folder.

    Raises:
        TrustError: a file is missing, or key and certificate do not belong together.
    """
    key = load_private_key(files.repository_key)
    pem = read_key_file(files.certificate)
    certificate = load_certificate(pem, where=str(files.certificate))
    if certificate.public_key() != key.public_key():
        raise TrustError(f"{files.certificate} is not the certificate of {files.repository_key}")
    return Signer(key=key, certificate_pem=pem, certificate=certificate)


def check_may_sign(signer: Signer, folder: Path, files: KeyFiles, *, algorithm: Algorithm, now: datetime) -> None:
    """Refuses to publish what no client would accept.

    Raises:
        TrustError: the whitelist has expired, is of another repository, or does not name the certificate.
    """
    source = FolderSource(folder)
    if files.public_key.exists():
        public = read_key_file(files.public_key)
        whitelist = verify_whitelist(source, public, fqrn=files.fqrn, now=now)
    else:
        whitelist, _ = read_whitelist(source)
        check_whitelist(whitelist, where=source.where, fqrn=files.fqrn, now=now)
    if not allows_certificate(whitelist, signer.certificate, algorithm):
        raise TrustError(
            f"the whitelist of {folder} does not name the certificate {files.certificate}",
            hint="use the keys that the repository was created with, or resign the whitelist: afpub keys resign",
        )


def signed_whitelist(whitelist: Whitelist, master: rsa.RSAPrivateKey, algorithm: Algorithm) -> bytes:
    """The bytes of a signed whitelist."""
    body = whitelist.body()
    text = str(algorithm.digest(body))
    return bytes(Envelope(body=body, signed_hash=text, signature=sign_whitelist_hash(master, text)))


def new_whitelist(
    signer: Signer, fqrn: Fqrn, *, algorithm: Algorithm, now: datetime, validity: timedelta = VALIDITY
) -> Whitelist:
    """A whitelist that allows one certificate."""
    issued = now.astimezone(UTC).replace(microsecond=0)
    return Whitelist(
        fqrn=fqrn,
        issued=issued,
        expires=issued + validity,
        fingerprints=(fingerprint(certificate_der(signer.certificate), algorithm),),
    )


def resign_whitelist(folder: Path, *, keys_folder: Path, now: datetime, validity: timedelta = VALIDITY) -> Whitelist:
    """Signs a repository's whitelist again, so that it is valid from now on; needs the master key.

    Raises:
        TrustError: a key is missing.
        RepositoryError: there is no repository.
    """
    manifest, _ = read_manifest(FolderSource(folder))
    fqrn = Fqrn(manifest.fqrn)
    files = KeyFiles(folder=keys_folder, fqrn=fqrn)
    signer = load_signer(files)
    whitelist = new_whitelist(signer, fqrn, algorithm=manifest.algorithm, now=now, validity=validity)
    former = _former_fingerprints(folder)
    if former and whitelist.fingerprints[0] in former:
        whitelist = replace(whitelist, fingerprints=former)
    data = signed_whitelist(whitelist, load_private_key(files.master_key), manifest.algorithm)
    replace_file(folder / WHITELIST_NAME, data)
    return whitelist


def _former_fingerprints(folder: Path) -> tuple[str, ...]:
    """Other certificates that the whitelist allows keep their place."""
    try:
        whitelist, _ = read_whitelist(FolderSource(folder))
    except TrustError:
        return ()
    return whitelist.fingerprints
