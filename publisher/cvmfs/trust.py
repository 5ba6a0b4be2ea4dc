"""The chain from a public key to a manifest: whitelist, certificate, signature."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from publisher.cvmfs.digest import Algorithm, ObjectKind
from publisher.cvmfs.envelope import Envelope
from publisher.cvmfs.keys import (
    certificate_der,
    load_certificate,
    load_public_key,
    verify_manifest_hash,
    verify_whitelist_hash,
)
from publisher.cvmfs.manifest import MANIFEST_NAME, Manifest, parse_manifest
from publisher.cvmfs.source import Source, fetch, read_file
from publisher.cvmfs.whitelist import WHITELIST_NAME, Whitelist, fingerprint, parse_whitelist
from publisher.errors import NotFoundError, RepositoryError, TrustError

_CERTIFICATE_LIMIT = 1 << 20
RESIGN_HINT = "sign the whitelist again with the master key: afpub keys resign"


def read_manifest(source: Source) -> tuple[Manifest, Envelope]:
    """The manifest; its signature is not looked at.

    Raises:
        RepositoryError: there is no repository.
        FormatError: the manifest is damaged.
        TrustError: it was changed after it was signed.
    """
    try:
        return parse_manifest(read_file(source, MANIFEST_NAME))
    except NotFoundError:
        raise RepositoryError(
            f"{source.where} is no repository: it has no {MANIFEST_NAME}",
            hint="give the folder or address that holds it; a new one is made with: afpub repo create",
        ) from None


def read_whitelist(source: Source) -> tuple[Whitelist, Envelope]:
    """The whitelist; its signature is not looked at.

    Raises:
        TrustError: there is none.
        FormatError: it is damaged.
    """
    try:
        return parse_whitelist(read_file(source, WHITELIST_NAME))
    except NotFoundError:
        raise TrustError(f"{source.where} has no whitelist {WHITELIST_NAME}", hint=RESIGN_HINT) from None


def read_certificate(source: Source, manifest: Manifest) -> x509.Certificate:
    """The certificate that the manifest names.

    Raises:
        TrustError: there is none, or its object is not what its name promises.
    """
    if manifest.certificate is None:
        raise TrustError(f"the manifest of {source.where} names no certificate")
    name = manifest.certificate.object_name(ObjectKind.CERTIFICATE)
    try:
        pem = fetch(source, manifest.certificate, ObjectKind.CERTIFICATE, limit=_CERTIFICATE_LIMIT)
    except TrustError:
        raise
    except RepositoryError as exc:
        raise TrustError(exc.message, hint=exc.hint) from None
    return load_certificate(pem, where=f"the object {name}")


def verify_whitelist(source: Source, public_key: bytes, *, fqrn: str, now: datetime) -> Whitelist:
    """The whitelist, its signature, name and expiry checked.

    Raises:
        TrustError: one of them is wrong.
    """
    whitelist, envelope = read_whitelist(source)
    keys = load_public_key(public_key, where="the public key file")
    if not verify_whitelist_hash(keys, envelope.signed_hash, envelope.signature):
        raise TrustError(
            f"the whitelist of {source.where} was not signed with the key that belongs to the public key",
            hint="check that the public key is that of this repository",
        )
    check_whitelist(whitelist, where=source.where, fqrn=fqrn, now=now)
    return whitelist


def check_whitelist(whitelist: Whitelist, *, where: str, fqrn: str, now: datetime) -> None:
    """Raises TrustError when a whitelist is of another repository or has expired."""
    if whitelist.fqrn != fqrn:
        raise TrustError(f"the whitelist of {where} is that of {whitelist.fqrn}, not of {fqrn}")
    if whitelist.expired(now):
        day = whitelist.expires.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        raise TrustError(f"the whitelist of {where} expired on {day}", hint=RESIGN_HINT)


def verify_manifest(source: Source, public_key: bytes, *, now: datetime) -> Manifest:
    """The manifest, the whole chain from the public key checked.

    Raises:
        TrustError: a link of the chain is broken.
    """
    manifest, envelope = read_manifest(source)
    whitelist = verify_whitelist(source, public_key, fqrn=manifest.fqrn, now=now)
    certificate = read_certificate(source, manifest)
    if not allows_certificate(whitelist, certificate, manifest.algorithm):
        raise TrustError(f"the certificate that signed {source.where} is not in its whitelist")
    if not verify_manifest_hash(certificate, envelope.signed_hash, envelope.signature):
        raise TrustError(f"the signature of the manifest of {source.where} is wrong")
    return manifest


def allows_certificate(whitelist: Whitelist, certificate: x509.Certificate, algorithm: Algorithm) -> bool:
    """True when the whitelist holds the certificate's fingerprint."""
    der = certificate_der(certificate)
    return any(whitelist.allows(fingerprint(der, each)) for each in (algorithm, Algorithm.SHA1))
