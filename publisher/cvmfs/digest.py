"""Content digests and the names of objects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from publisher.errors import FormatError, RepositoryError

DIGEST_BYTES = 20
"""Length of every content digest."""
_TEXT = re.compile(r"([0-9a-f]{40})(|-rmd160|-shake128)")


class _RawHash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    @property
    def digest(self) -> Callable[..., bytes]: ...


class Algorithm(StrEnum):
    """The digest algorithms that name objects. Source: cvmfs/crypto/hash.h (2.12)."""

    SHA1 = "sha1"
    RMD160 = "rmd160"
    SHAKE128 = "shake128"

    @property
    def suffix(self) -> str:
        """What follows the hexadecimal digits in text form."""
        return "" if self is Algorithm.SHA1 else f"-{self.value}"

    @property
    def flag_bits(self) -> int:
        """The value of the hash field (bits 8-10) of a catalog row's flags, not shifted."""
        return _ORDER.index(self)

    @classmethod
    def from_flag_bits(cls, bits: int) -> Algorithm:
        """The algorithm of a catalog row.

        Raises:
            FormatError: there is no such algorithm.
        """
        if bits >= len(_ORDER):
            raise FormatError(f"unknown digest algorithm number {bits}")
        return _ORDER[bits]

    def object_name(self, raw: bytes, kind: ObjectKind) -> str:
        """The path of an object below the repository folder."""
        digits = raw.hex()
        return f"data/{digits[:2]}/{digits[2:]}{self.suffix}{kind.value}"

    def hasher(self) -> Hasher:
        """A hash to be fed in pieces."""
        return Hasher(self)

    def digest(self, data: bytes) -> Digest:
        """The digest of the bytes."""
        return Digest(raw=self.raw_digest(data), algorithm=self)

    def raw_digest(self, data: bytes) -> bytes:
        """The bytes of the digest of the bytes."""
        if self is Algorithm.SHA1:
            return hashlib.sha1(data, usedforsecurity=False).digest()
        hasher = Hasher(self)
        hasher.update(data)
        return hasher.digest().raw


_ORDER = (Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128)


class Hasher:
    """A running digest; hides that SHAKE128 is told its length at the end."""

    __slots__ = ("_algorithm", "_hash")

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._hash: _RawHash
        if algorithm is Algorithm.SHA1:
            self._hash = hashlib.sha1(usedforsecurity=False)
        elif algorithm is Algorithm.SHAKE128:
            self._hash = hashlib.shake_128()
        else:
            try:
                self._hash = hashlib.new("ripemd160", usedforsecurity=False)
            except ValueError:
                raise RepositoryError(
                    "this Python has no RIPEMD-160, which names the objects of this repository",
                    hint="use a Python whose OpenSSL has it",
                ) from None

    def update(self, data: bytes) -> None:
        """Add bytes."""
        self._hash.update(data)

    def digest(self) -> Digest:
        """The digest of all bytes so far."""
        length = (DIGEST_BYTES,) if self._algorithm is Algorithm.SHAKE128 else ()
        raw: bytes = self._hash.digest(*length)
        return Digest(raw=raw, algorithm=self._algorithm)


class ObjectKind(StrEnum):
    """The letter behind an object's name. Source: cvmfs/crypto/hash.h (2.12)."""

    FILE = ""
    CHUNK = "P"
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    METAINFO = "M"


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """A content digest."""

    raw: bytes
    algorithm: Algorithm

    def __post_init__(self) -> None:
        if len(self.raw) != DIGEST_BYTES:
            raise FormatError(f"a digest has {len(self.raw)} bytes, not {DIGEST_BYTES}")

    def __str__(self) -> str:
        return self.raw.hex() + self.algorithm.suffix

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest written as text.

        Raises:
            FormatError: it is none; capital digits are none either.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise FormatError(f"{text!r} is no digest")
        return cls(raw=bytes.fromhex(match[1]), algorithm=Algorithm(match[2][1:] or "sha1"))

    def object_name(self, kind: ObjectKind) -> str:
        """The object's path below the repository folder. Source: cvmfs/crypto/hash.h MakePath (2.12)."""
        return self.algorithm.object_name(self.raw, kind)


ZERO = "0" * (2 * DIGEST_BYTES)
"""How a property says that there was no earlier catalog."""
