"""``.cvmfswhitelist``: which certificates may sign the manifest, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.envelope import Envelope, parse_envelope
from publisher.errors import FormatError

WHITELIST_NAME = ".cvmfswhitelist"
VALIDITY = timedelta(days=30)
"""How long the CVMFS tools make a whitelist valid."""
_TIME = "%Y%m%d%H%M%S"


@dataclass(frozen=True, kw_only=True, slots=True)
class Whitelist:
    """The contents of a whitelist. Source: cvmfs/whitelist.cc (2.12)."""

    fqrn: str
    issued: datetime
    expires: datetime
    fingerprints: tuple[str, ...]
    """Of certificates: capital digit pairs with colons, then the algorithm (nothing for SHA-1)."""
    modes: tuple[str, ...] = ()
    """Further ways of verification that it asks for, such as ``pkcs7``; afpub writes none."""

    def body(self) -> bytes:
        """The lines that are signed."""
        lines = [self.issued.strftime(_TIME), f"E{self.expires.strftime(_TIME)}", f"N{self.fqrn}"]
        return "".join(f"{line}\n" for line in (*lines, *self.fingerprints)).encode()

    def expired(self, now: datetime) -> bool:
        """True from the hour of the expiry on; clients compare hours."""
        hour = {"minute": 0, "second": 0, "microsecond": 0}
        return now.astimezone(UTC).replace(**hour) >= self.expires.replace(**hour)  # type: ignore[arg-type]

    def allows(self, fingerprint: str) -> bool:
        """True when a certificate of this fingerprint may sign."""
        return fingerprint in self.fingerprints


def fingerprint(certificate_der: bytes, algorithm: Algorithm) -> str:
    """A certificate's fingerprint as whitelists have it."""
    digits = algorithm.digest(certificate_der).raw.hex(":").upper()
    return digits + algorithm.suffix.upper()


def parse_whitelist(data: bytes) -> tuple[Whitelist, Envelope]:
    """The whitelist in the bytes of ``.cvmfswhitelist``; its signature is not looked at.

    Raises:
        FormatError: a line is missing or wrong.
        TrustError: the digest is not that of the lines.
    """
    envelope = parse_envelope(data, what=f"the whitelist {WHITELIST_NAME}")
    lines = envelope.lines
    if len(lines) < 3 or lines[1][:1] != "E" or lines[2][:1] != "N":
        raise FormatError("the whitelist does not begin with issue time, expiry and name")
    rest = lines[3:]
    modes = tuple(line[1:] for line in rest if line[:1] in {"V", "W"})
    marks = (line.split(" ")[0].split("\t")[0].split("#")[0] for line in rest if line[:1] not in {"V", "W"})
    whitelist = Whitelist(
        fqrn=lines[2][1:],
        issued=_time(lines[0]),
        expires=_time(lines[1][1:]),
        fingerprints=tuple(mark for mark in marks if mark),
        modes=modes,
    )
    return whitelist, envelope


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise FormatError(f"the whitelist has {text!r} where a time belongs") from None
