"""The two ways in which objects are stored."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import deflate

from publisher.errors import FormatError, RepositoryError

_DEFAULT_LEVEL = 6
_STEP = 1 << 20
"""Most bytes handed out at once by the decompressor."""


class Compression(IntEnum):
    """How an object's bytes are stored; the numbers stand in catalog flags (bits 11-13)."""

    ZLIB = 0
    NONE = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Compressor:
    """A way to store contents."""

    compression: Compression = Compression.ZLIB
    level: int = 6
    """Effort, 1 (fast) to 12 (small); 1 to 9 for the reference library."""
    reference: bool = False
    """Use zlib, whose objects have the same names as those of the CVMFS tools, at a third of the speed."""

    def __post_init__(self) -> None:
        if not 1 <= self.level <= (9 if self.reference else 12):
            raise RepositoryError(f"there is no compression level {self.level}")

    @property
    def key(self) -> str:
        """Short text that differs wherever the stored bytes may differ."""
        if self.compression is Compression.NONE:
            return "none"
        return f"{'zlib' if self.reference else 'libdeflate'}-{self.level}"

    def compress(self, data: bytes) -> bytes:
        """The bytes as they are stored."""
        if self.compression is Compression.NONE:
            return data
        if self.reference or not data:
            # The empty object has a name that every CVMFS tool knows; only zlib makes it.
            return zlib.compress(data, self.level if self.reference else _DEFAULT_LEVEL)
        return bytes(deflate.zlib_compress(data, self.level))


METADATA = Compressor(level=6)
"""How catalogs and other metadata are stored; a reader accepts nothing but zlib there."""
REPLICATED = Compressor(reference=True)
"""How the certificate and the metainfo are stored. A stratum 1 does not copy these two objects: it unpacks them, and
packs them with zlib under the old names, which fit only what zlib has made. Source: cvmfs/swissknife_pull.cc (2.12)."""


def decompress(blocks: Iterable[bytes], compression: Compression, *, limit: int) -> Iterator[bytes]:
    """The contents of an object, piece by piece.

    Args:
        blocks: the stored bytes.
        compression: how they are stored.
        limit: most bytes of content that are legal here.

    Raises:
        FormatError: the stream is damaged, cut, too long, or followed by other bytes.
    """
    total = 0
    pieces = iter(blocks) if compression is Compression.NONE else _inflate(blocks)
    for piece in pieces:
        total += len(piece)
        if total > limit:
            raise FormatError(f"has more than the expected {limit} bytes of content")
        if piece:
            yield piece


def _inflate(blocks: Iterable[bytes]) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    try:
        for block in blocks:
            rest = block
            while rest:
                if stream.eof:
                    raise FormatError("has bytes behind its compressed stream")
                yield stream.decompress(rest, _STEP)
                rest = stream.unconsumed_tail
            if stream.unused_data:
                raise FormatError("has bytes behind its compressed stream")
        yield stream.flush()
    except zlib.error as exc:
        raise FormatError(f"is no valid zlib stream ({exc})") from None
    if not stream.eof:
        raise FormatError("ends in the middle of its compressed stream")
