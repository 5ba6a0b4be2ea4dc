"""Where big files are cut.

The reference rule looks at a window of 32 bytes: ``x = ((x << 1) ^ byte) mod 2**32``, and cuts where x is near
the middle of its range. Byte by byte that is slow in Python, so whole buffers are treated as one long integer:
bits 24-31 of x at every position come from shifting and combining the buffer with itself, and bits 16-23 and 8-15
are the same values 8 and 16 positions later. Only the few positions whose upper bits fit are computed one by one.

Source: cvmfs/ingestion/chunk_detector.{h,cc} (2.12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from publisher.errors import RepositoryError

_WINDOW = 32
_MIDDLE = 0x7FFFFFFF
_ALL = 0xFFFFFFFF
_LOWEST_OF_TOP = 23
"""Bit 31 is compared with bit 23."""
_SCAN = 1 << 16
"""Bytes handled as one integer: fits the processor's cache."""
_STEP = 1 << 20
"""Bytes read at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkRule:
    """The sizes of chunks, in bytes."""

    least: int = 4 << 20
    average: int = 8 << 20
    most: int = 16 << 20
    fixed: bool = False
    """Cut every ``average`` bytes instead of looking at the content."""

    def __post_init__(self) -> None:
        if not _WINDOW <= self.least <= self.average <= self.most:
            raise RepositoryError(
                f"chunk sizes {self.least}, {self.average}, {self.most} are not in order, or below {_WINDOW}"
            )

    @property
    def threshold(self) -> int:
        """How near the middle x must be."""
        return _ALL // self.average


def hits(x: int, threshold: int) -> bool:
    """True where the rule cuts at a window value."""
    if x == _ALL:
        return True
    distance = (x - _MIDDLE) & _ALL
    return min(distance, (1 << 32) - distance) < threshold


def window_value(data: bytes | bytearray, at: int) -> int:
    """The value x after stepping over the byte at ``at``; the window lies before it."""
    value = 0
    for byte in data[at - _WINDOW + 1 : at + 1]:
        value = (value << 1) ^ byte
    return value & _ALL


def first_hit(data: bytes | bytearray, start: int, stop: int, threshold: int) -> int:
    """The first position in start..stop-1 where the rule cuts, or -1; 32 bytes before start must be there."""
    at = start
    while at < stop:
        end = min(stop, at + _SCAN)
        for position in _candidates(data, at, end, threshold):
            if hits(window_value(data, position), threshold):
                return position
        at = end
    return -1


def _candidates(data: bytes | bytearray, start: int, stop: int, threshold: int) -> Iterator[int]:
    """Positions whose bits 30 down to the free ones are all equal, and bit 31 not, or all of them ones.

    Every hit is among them; zeros, of which files have many, are not.
    """
    base = start - _WINDOW
    piece = data[base:stop]
    size = len(piece)
    high = _upper_bytes(int.from_bytes(piece, "little"), size)
    # Index q holds bits 24-31 of x at position q + 24, and 8 or 16 places on its bits 16-23 and 8-15.
    differ = high ^ (high >> 64)
    free = threshold.bit_length()
    first = 0x7F & -(1 << max(0, min(8, free - 16)))
    second = 0xFF & -(1 << max(0, min(8, free - 8)))
    wrong = (differ & _repeat(first, size)) | ((differ >> 64) & _repeat(second, size))
    if free <= _LOWEST_OF_TOP:
        top = _repeat(0x80, size)
        wrong |= ((differ | high) & top) ^ top
        wrong |= (high ^ (high >> 1)) & _repeat(0x3F, size)  # text and tables repeat: bits 24-30 are all alike too
    flat = wrong.to_bytes(size, "little")
    found = flat.find(0, _WINDOW - 24, size - 24)
    while found >= 0:
        yield base + found + 24
        found = flat.find(0, found + 1, size - 24)


def _upper_bytes(data: int, size: int) -> int:
    """At index q the xor of the bytes around q, each moved by its distance: ``b[q-j] << j`` for j = -7..7."""
    left = data
    left ^= (left << 9) & _repeat(0xFE, size)
    left ^= (left << 18) & _repeat(0xFC, size)
    left ^= (left << 36) & _repeat(0xF0, size)
    right = data
    right ^= (right >> 9) & _repeat(0x7F, size)
    right ^= (right >> 18) & _repeat(0x3F, size)
    right ^= (right >> 36) & _repeat(0x0F, size)
    return left ^ right ^ data


@lru_cache(maxsize=64)
def _repeat(byte: int, count: int) -> int:
    return int.from_bytes(bytes((byte,)) * count, "little")


Read = Callable[[int, int], bytes]
"""The bytes of a file: from where, and how many; fewer only at its end."""


def cuts_behind(read: Read, start: int, length: int, rule: ChunkRule) -> bool:
    """True where the rule cuts at the end of this chunk, if it does not cut earlier."""
    if length == rule.most:
        return True
    window = read(start + length - _WINDOW + 1, _WINDOW)
    return len(window) == _WINDOW and hits(window_value(window, _WINDOW - 1), rule.threshold)


def next_length(read: Read, start: int, rest: int, rule: ChunkRule) -> int:
    """The size of a chunk in bytes.

    Only what decides about the cut is read: of a whole file, about a half.

    Args:
        read: gives the bytes of the file.
        start: where the chunk begins.
        rest: bytes that the file has from there on.
        rule: where it is cut.
    """
    if rule.fixed:
        return min(rest, rule.average)
    if rest <= rule.least:
        return rest
    most = min(rest, rule.most)
    at = rule.least
    while at < most:
        piece = read(start + at - _WINDOW, min(_STEP, most - at) + _WINDOW)
        found = first_hit(piece, _WINDOW, len(piece), rule.threshold)
        if found >= 0:
            return at + found - _WINDOW
        if len(piece) <= _WINDOW:  # the file has become shorter, which whoever reads the chunk will notice
            break
        at += len(piece) - _WINDOW
    return most
