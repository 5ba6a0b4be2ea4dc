"""The frame that manifest and whitelist share: lines, ``--``, the digest of the lines, a signature."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.cvmfs.digest import Digest
from publisher.errors import FormatError, TrustError

_RULE = b"--\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """A signed list of lines."""

    body: bytes
    """All lines with their newlines."""
    signed_hash: str
    """The digest of the body in text form: what the signature is over."""
    signature: bytes

    def __bytes__(self) -> bytes:
        return self.body + _RULE + self.signed_hash.encode() + b"\n" + self.signature

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines without their newlines."""
        return tuple(self.body.decode("utf-8", "surrogateescape").split("\n")[:-1])


def parse_envelope(data: bytes, *, what: str) -> Envelope:
    """The parts of a signed file, its digest checked.

    Raises:
        FormatError: it is not framed as it should be.
        TrustError: the digest is not that of the lines.
    """
    if data.startswith(_RULE):
        raise FormatError(f"{what} is empty")
    body, rule, rest = data.partition(b"\n" + _RULE)
    line, newline, signature = rest.partition(b"\n")
    if not rule or not newline:
        raise FormatError(f"{what} has no signature")
    body += b"\n"
    text = line.decode("ascii", "replace")
    try:
        digest = Digest.parse(text)
    except FormatError as exc:
        raise FormatError(f"{what}: {exc.message} in the line below '--'") from None
    if digest.algorithm.digest(body) != digest:
        raise TrustError(f"{what} was changed after it was signed: its digest is not {text}")
    return Envelope(body=body, signed_hash=text, signature=signature)
