"""How the keys of a repository are: fingerprints, permissions, and how long clients go on trusting them."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.keys import (
    KeyFiles,
    certificate_der,
    is_encrypted,
    load_certificate,
    load_private_key,
    load_public_key,
    private_key_findings,
    read_key_file,
)
from publisher.cvmfs.location import Location, source_of
from publisher.cvmfs.source import Source
from publisher.cvmfs.trust import RESIGN_HINT, read_certificate, read_manifest, read_whitelist, verify_whitelist
from publisher.cvmfs.whitelist import Whitelist, fingerprint
from publisher.errors import RepositoryError, TrustError
from publisher.report import Finding, Report, collect, error, note, warning

_T = TypeVar("_T")
_SOON = timedelta(days=7)
"""From here on there is little time to find whoever holds the master key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFile:
    """One of the files."""

    role: str
    path: Path
    mode: int | None
    """Permission bits; None where the file is not there."""
    fingerprint: str = ""
    """SHA-256 of a public key, or the fingerprint of a certificate as whitelists have it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyState:
    """What is to be known of the keys of a repository."""

    files: tuple[KeyFile, ...]
    signed_by: str
    """Fingerprint of the certificate that signed the newest manifest; empty where there is none."""
    whitelist: Whitelist | None
    left: timedelta | None
    """How long the whitelist is still valid."""
    report: Report


def inspect_keys(files: KeyFiles, location: Location, *, now: datetime) -> KeyState:
    """The keys of a repository, and whether they fit to a repository.

    Raises:
        RepositoryError: there is no repository.
    """
    source = source_of(location)
    manifest, _ = read_manifest(source)
    findings = [*private_key_findings(files), *_folder_findings(files)]
    rows = tuple(_rows(files, manifest.algorithm, findings))
    signed_by = ""
    try:
        certificate = read_certificate(source, manifest)
        signed_by = fingerprint(certificate_der(certificate), manifest.algorithm)
    except (TrustError, RepositoryError) as exc:
        findings.append(error("certificate", source.where, exc.message))
    whitelist = _whitelist(files, source, now, findings)
    if whitelist is not None:
        findings += _whitelist_findings(whitelist, rows, signed_by, where=source.where, now=now)
    return KeyState(
        files=rows,
        signed_by=signed_by,
        whitelist=whitelist,
        left=whitelist.expires - now if whitelist else None,
        report=collect(findings),
    )


def _folder_findings(files: KeyFiles) -> Iterator[Finding]:
    try:
        mode = stat.S_IMODE(files.folder.stat().st_mode)
    except OSError:
        return
    if mode & 0o022:
        yield error(
            "key-folder",
            f"{files.folder}",
            f"others can put files in the place of the keys (mode {mode:04o})",
            hint=f"chmod 0700 {files.folder}",
        )


def _rows(files: KeyFiles, algorithm: Algorithm, findings: list[Finding]) -> Iterator[KeyFile]:
    public = _try(findings, "public-key", files.public_key, lambda: _public(files))
    own = _try(findings, "repository-key", files.repository_key, lambda: load_private_key(files.repository_key))
    pem = _try(findings, "certificate", files.certificate, lambda: _certificate(files))
    if own and pem and pem.public_key() != own.public_key():
        findings.append(
            error(
                "certificate",
                f"{files.certificate}",
                f"is not the certificate of {files.repository_key}",
                hint="if a rotation of the key was interrupted, this finishes it: afpub keys rotate",
            )
        )
    master = None
    if files.master_key.exists() and is_encrypted(read_key_file(files.master_key)):
        findings.append(
            note("master-key", f"{files.master_key}", "is encrypted: whoever signs is asked for a password")
        )
    elif files.master_key.exists():
        master = _try(findings, "master-key", files.master_key, lambda: load_private_key(files.master_key))
        if master and public and master.public_key() != public:
            findings.append(error("master-key", f"{files.master_key}", f"does not belong to {files.public_key}"))
        findings.append(
            note("master-key", f"{files.master_key}", "publishing never needs the master key: keep it apart")
        )
    mark = fingerprint(certificate_der(pem), algorithm) if pem else ""
    for role, path, text in (
        ("master key", files.master_key, _key_mark(master.public_key()) if master else ""),
        ("public master key", files.public_key, _key_mark(public) if public else ""),
        ("repository key", files.repository_key, _key_mark(own.public_key()) if own else ""),
        ("certificate", files.certificate, mark),
    ):
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        yield KeyFile(role=role, path=path, mode=mode, fingerprint=text)


def _try(findings: list[Finding], check: str, path: Path, load: Callable[[], _T]) -> _T | None:
    try:
        return load()
    except TrustError as exc:
        findings.append(error(check, f"{path}", exc.message, hint=exc.hint))
    return None


def _public(files: KeyFiles) -> rsa.RSAPublicKey:
    return load_public_key(read_key_file(files.public_key), where=f"{files.public_key}")


def _certificate(files: KeyFiles) -> x509.Certificate:
    return load_certificate(read_key_file(files.certificate), where=f"{files.certificate}")


def _key_mark(key: rsa.RSAPublicKey) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"SHA256:{hashlib.sha256(der).hexdigest()}"


def _whitelist(files: KeyFiles, source: Source, now: datetime, findings: list[Finding]) -> Whitelist | None:
    try:
        public = read_key_file(files.public_key)
        return verify_whitelist(source, public, fqrn=files.fqrn, now=now)
    except (TrustError, RepositoryError) as exc:
        findings.append(error("whitelist", source.where, exc.message, hint=exc.hint))
    try:
        return read_whitelist(source)[0]
    except (TrustError, RepositoryError):
        return None


def _whitelist_findings(
    whitelist: Whitelist, rows: tuple[KeyFile, ...], signed_by: str, *, where: str, now: datetime
) -> Iterator[Finding]:
    own = next(row.fingerprint for row in rows if row.role == "certificate")
    if own and not whitelist.allows(own):
        yield error("whitelist", where, "the whitelist does not name the certificate in the keys folder")
    if signed_by and not whitelist.allows(signed_by):
        yield error("whitelist", where, "the whitelist does not name the certificate that signed the manifest")
    if not whitelist.expired(now) and whitelist.expires - now < _SOON:
        yield warning(
            "whitelist", where, f"the whitelist expires on {whitelist.expires:%Y-%m-%d %H:%M UTC}", hint=RESIGN_HINT
        )
    others = [mark for mark in whitelist.fingerprints if mark not in {own, signed_by}]
    if others:
        yield note(
            "whitelist",
            where,
            f"{len(others)} other certificates are allowed to sign",
            hint="when all servers have the newest revision: afpub keys rotate --finish",
        )
