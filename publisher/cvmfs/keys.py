"""Keys, certificates, and the two kinds of signature that repositories carry."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.x509.oid import NameOID

from publisher.cvmfs.disk import failing_as, replace_file
from publisher.errors import DiskError, TrustError
from publisher.names import Fqrn
from publisher.report import Finding, warning

_KEY_BITS = 2048
_CERTIFICATE_DAYS = 3650
"""Clients do not look at a certificate's dates; the whitelist limits its use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFiles:
    """Where the keys of a repository are, named as the CVMFS tools name them."""

    folder: Path
    fqrn: Fqrn

    @property
    def master_key(self) -> Path:
        """Private master key: signs the whitelist; best kept off the publishing machine."""
        return self.folder / f"{self.fqrn}.masterkey"

    @property
    def public_key(self) -> Path:
        """Public master key: what clients get."""
        return self.folder / f"{self.fqrn}.pub"

    @property
    def repository_key(self) -> Path:
        """Private repository key: signs the manifest."""
        return self.folder / f"{self.fqrn}.key"

    @property
    def certificate(self) -> Path:
        """Certificate of the repository key."""
        return self.folder / f"{self.fqrn}.crt"

    @property
    def new_certificate(self) -> Path:
        """Certificate of the key that a rotation is about to put in place."""
        return self.folder / f"{self.fqrn}.crt.new"


def create_keys(
    fqrn: Fqrn, folder: Path, *, now: datetime, master_key: Path | None = None, master_password: str = ""
) -> KeyFiles:
    """Makes the four key files of a repository.

    Args:
        fqrn: the repository's name.
        folder: gets the files.
        now: the present, for the certificate.
        master_key: the file that gets the private master key instead of the folder.
        master_password: what the private master key is encrypted with; not at all when empty.

    Raises:
        DiskError: a file cannot be written, or is there already.
    """
    files = KeyFiles(folder=folder, fqrn=fqrn)
    master_file = master_key or files.master_key
    master = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    public = master.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise DiskError(f"cannot make the folder {folder}: {exc.strerror}") from exc
    paths = (master_file, files.public_key, files.repository_key, files.certificate)
    there = [path for path in paths if os.path.lexists(path)]
    if there:
        hint = "keep it, or give another folder"
        if files.certificate not in there:  # it comes last
            names = " ".join(f"{path}" for path in there)
            hint = f"if making keys was interrupted here, and nothing uses them: rm -f {names}"
        raise DiskError(f"there is a key file {there[0]} already", hint=hint)
    for path in folder.glob(f"{fqrn}.*.new-*"):
        with failing_as("remove", path):
            path.unlink(missing_ok=True)
    replace_file(master_file, _private_pem(master, master_password), 0o400)
    replace_file(files.public_key, public, 0o444)
    create_repository_key(files.repository_key, files.certificate, fqrn, now=now)
    return files


def create_repository_key(key: Path, certificate: Path, fqrn: Fqrn, *, now: datetime) -> None:
    """Makes a private repository key and its certificate.

    Raises:
        DiskError: a file cannot be written, or is there already.
    """
    for path in (certificate, key):
        if os.path.lexists(path):
            raise DiskError(f"there is a key file {path} already", hint="keep it, or give another folder")
    own = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    replace_file(key, _private_pem(own), 0o400)
    replace_file(certificate, _certificate(own, fqrn, now), 0o444)


def _private_pem(key: rsa.RSAPrivateKey, password: str = "") -> bytes:
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _certificate(key: rsa.RSAPrivateKey, fqrn: Fqrn, now: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{fqrn} CernVM-FS Release Managers"[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - timedelta(days=1))
        .not_valid_after(now.astimezone(UTC) + timedelta(days=_CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_key_findings(files: KeyFiles) -> Iterator[Finding]:
    """A warning for each private key that others than its owner can read."""
    for path in (files.master_key, files.repository_key):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        if mode & 0o077:
            yield warning(
                "key-readable",
                str(path),
                f"the private key can be read by others (mode {mode:04o})",
                hint=f"chmod 0400 {path}",
            )


def read_key_file(path: Path) -> bytes:
    """The bytes of a key file.

    Raises:
        TrustError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise TrustError(
            f"cannot read the key file {path}: {exc.strerror}",
            hint="give the folder that holds the repository's keys",
        ) from exc


def load_private_key(
    path: Path, *, ask: Callable[[Path], str] | None = None, checked: bool = True
) -> rsa.RSAPrivateKey:
    """The private key in a PEM file.

    Args:
        path: the file.
        ask: gives the password of an encrypted one; without it such a key is refused.
        checked: look whether its numbers belong together, which takes longer than to sign; who does not must verify
            what the key signs.

    Raises:
        TrustError: it cannot be read, is no RSA key, or the password is wrong.
    """
    data = read_key_file(path)
    password = ask(path).encode() if ask and is_encrypted(data) else None
    try:
        key = serialization.load_pem_private_key(data, password=password, unsafe_skip_rsa_key_validation=not checked)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        if password is not None:
            raise TrustError(f"the password of the private key {path} is wrong") from exc
        raise TrustError(f"{path} holds no private key that can be read without a password") from exc
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TrustError(f"{path} holds no RSA key")
    return key


def is_encrypted(pem: bytes) -> bool:
    """True for a private key that needs a password."""
    return b"ENCRYPTED" in pem


def load_public_key(pem: bytes, *, where: str) -> rsa.RSAPublicKey:
    """The public key in PEM bytes.

    Raises:
        TrustError: there is no RSA key in them.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise TrustError(f"{where} holds no public key") from exc
    if not isinstance(key, rsa.RSAPublicKey):
        raise TrustError(f"{where} holds no RSA key")
    return key


def load_certificate(pem: bytes, *, where: str) -> x509.Certificate:
    """The certificate in PEM bytes, which must be of an RSA key.

    Raises:
        TrustError: there is none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise TrustError(f"{where} holds no certificate") from exc
    if not isinstance(key, rsa.RSAPublicKey):
        raise TrustError(f"{where} is not the certificate of an RSA key")
    return certificate


def certificate_der(certificate: x509.Certificate) -> bytes:
    """The bytes that a fingerprint is taken of."""
    return certificate.public_bytes(serialization.Encoding.DER)


def sign_manifest_hash(key: rsa.RSAPrivateKey, text: str) -> bytes:
    """The manifest's signature: PKCS#1 v1.5 with SHA-1 over the digest in text form.

    Source: cvmfs/crypto/signature.cc Sign (2.12); always SHA-1, whatever names the objects.
    """
    return key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - as the format has it


def verify_manifest_hash(certificate: x509.Certificate, text: str, signature: bytes) -> bool:
    """True when the certificate's key made the signature."""
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        key.verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format
    except (InvalidSignature, ValueError):
        return False
    return True


def sign_whitelist_hash(key: rsa.RSAPrivateKey, text: str) -> bytes:
    """The whitelist's signature: PKCS#1 v1.5 padding of the digest in text form, no DigestInfo.

    Source: cvmfs/crypto/signature.cc SignRsa (2.12).
    """
    return key.sign(text.encode(), padding.PKCS1v15(), utils.NoDigestInfo())


def verify_whitelist_hash(key: rsa.RSAPublicKey, text: str, signature: bytes) -> bool:
    """True when the master key made the signature."""
    try:
        return key.recover_data_from_signature(signature, padding.PKCS1v15(), utils.NoDigestInfo()) == text.encode()
    except (InvalidSignature, ValueError):
        return False
