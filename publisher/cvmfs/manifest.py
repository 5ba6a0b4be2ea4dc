"""``.cvmfspublished``, the signed pointer to the root catalog."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.cvmfs.digest import Algorithm, Digest
from publisher.cvmfs.envelope import Envelope, parse_envelope
from publisher.errors import FormatError

MANIFEST_NAME = ".cvmfspublished"
ROOT_PATH_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
"""MD5 of the empty path, which every manifest repeats."""
DEFAULT_TTL_S = 240
_YES = {"yes": True, "no": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The fields of a manifest. Source: cvmfs/manifest.cc (2.12)."""

    root: Digest
    root_size_bytes: int
    """Size of the uncompressed root catalog."""
    fqrn: str
    revision: int
    ttl_s: int = DEFAULT_TTL_S
    published_s: int = 0
    """When it was published, seconds since 1970; clients refuse to go back."""
    certificate: Digest | None = None
    history: Digest | None = None
    metainfo: Digest | None = None
    reflog: Digest | None = None
    """Digest of ``.cvmfsreflog``."""
    garbage_collectable: bool = False
    alternative_path: bool = False
    """Root objects are found through ``.cvmfsalt-`` links (access controlled repositories)."""

    def body(self) -> bytes:
        """The lines in the order in which the CVMFS tools write them."""
        fields: list[tuple[str, object]] = [
            ("C", self.root),
            ("B", self.root_size_bytes),
            ("R", ROOT_PATH_MD5),
            ("D", self.ttl_s),
            ("S", self.revision),
            ("G", "yes" if self.garbage_collectable else "no"),
            ("A", "yes" if self.alternative_path else "no"),
            ("N", self.fqrn),
            ("X", self.certificate),
            ("H", self.history),
            ("T", self.published_s),
            ("M", self.metainfo),
            ("Y", self.reflog),
        ]
        return "".join(f"{key}{value}\n" for key, value in fields if value is not None).encode()

    @property
    def algorithm(self) -> Algorithm:
        """The repository's digest algorithm."""
        return self.root.algorithm


def parse_manifest(data: bytes) -> tuple[Manifest, Envelope]:
    """The manifest in the bytes of ``.cvmfspublished``; its signature is not looked at.

    Raises:
        FormatError: a field is missing or wrong.
        TrustError: the digest is not that of the lines.
    """
    envelope = parse_envelope(data, what=f"the manifest {MANIFEST_NAME}")
    fields = {line[0]: line[1:] for line in envelope.lines if line}
    missing = [key for key in "CRDSN" if key not in fields]
    if missing:
        raise FormatError(f"the manifest has no field {missing[0]}")
    if fields["R"] != ROOT_PATH_MD5:
        raise FormatError("the manifest's field R is not the digest of the root path")
    manifest = Manifest(
        root=_digest(fields, "C") or _lack("C"),
        root_size_bytes=_number(fields, "B"),
        fqrn=fields["N"],
        revision=_number(fields, "S"),
        ttl_s=_number(fields, "D"),
        published_s=_number(fields, "T"),
        certificate=_digest(fields, "X"),
        history=_digest(fields, "H"),
        metainfo=_digest(fields, "M"),
        reflog=_digest(fields, "Y"),
        garbage_collectable=_flag(fields, "G"),
        alternative_path=_flag(fields, "A"),
    )
    return manifest, envelope


def _lack(key: str) -> Digest:
    raise FormatError(f"the manifest's field {key} is empty")


def _digest(fields: dict[str, str], key: str) -> Digest | None:
    if not fields.get(key):
        return None
    try:
        return Digest.parse(fields[key])
    except FormatError as exc:
        raise FormatError(f"the manifest's field {key}: {exc.message}") from None


def _number(fields: dict[str, str], key: str) -> int:
    text = fields.get(key, "0")
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise FormatError(f"the manifest's field {key} is {text!r}, no number")
    return int(text)


def _flag(fields: dict[str, str], key: str) -> bool:
    text = fields.get(key, "no")
    if text not in _YES:
        raise FormatError(f"the manifest's field {key} is {text!r}, neither yes nor no")
    return _YES[text]
