"""SIF image files read without a container runtime: enough to say what they are and whether they are whole.

Source of the format: the SIF specification of the sif module of Sylabs (version 01), header and descriptors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_HEADER = struct.Struct("<32s10s3s3s16sqqqqqqqq")
_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
_MAGIC = b"SIF_MAGIC\0"
_DEFINITION, _SIGNATURE = 0x4001, 0x4005
_ARCHITECTURES = {b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64", b"06": "ppc64le"}
_MOST_DESCRIPTORS = 4096
_MOST_TEXT = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Sif:
    """What an image file says about itself."""

    architecture: str
    """As Go names it, such as ``amd64``; empty where it is not known."""
    created: datetime
    size_bytes: int
    needed_bytes: int
    """How long the file must be for everything that it lists to be in it."""
    definition: str
    """The recipe that it was built from; empty where none was kept."""
    signed: bool
    """A signature is in it; not checked."""

    @property
    def whole(self) -> bool:
        """False when the file was cut off on its way."""
        return self.size_bytes >= self.needed_bytes


def read_sif(file: Path) -> Sif | None:
    """What an image file says about itself; None where the file is no SIF.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        raw = stream.read(_HEADER.size)
        if len(raw) < _HEADER.size:
            return None
        fields = _HEADER.unpack(raw)
        if fields[1] != _MAGIC:
            return None
        _, _, _, arch, _, created, _, _, total, offset, length, _, _ = fields
        size = file.stat().st_size
        parts = _descriptors(stream, offset, min(total, _MOST_DESCRIPTORS), limit=size)
        return Sif(
            architecture=_ARCHITECTURES.get(arch[:2], ""),
            created=datetime.fromtimestamp(max(0, min(created, 1 << 40)), tz=UTC),
            size_bytes=size,
            needed_bytes=max([offset + length, *(start + extent for _, start, extent in parts)]),
            definition=_text(stream, parts),
            signed=any(kind == _SIGNATURE for kind, _, _ in parts),
        )


def _descriptors(stream: BinaryIO, offset: int, count: int, *, limit: int) -> list[tuple[int, int, int]]:
    """Type, offset and length of each part that is in use."""
    found = []
    if 0 < offset < limit:
        stream.seek(offset)
        for _ in range(count):
            raw = stream.read(_DESCRIPTOR.size)
            if len(raw) < _DESCRIPTOR.size:
                break
            kind, used, _, _, _, start, extent, *_ = _DESCRIPTOR.unpack(raw)
            if used:
                found.append((kind, start, extent))
    return found


def _text(stream: BinaryIO, parts: list[tuple[int, int, int]]) -> str:
    for kind, start, extent in parts:
        if kind == _DEFINITION and start > 0 and 0 < extent <= _MOST_TEXT:
            stream.seek(start)
            return stream.read(extent).rstrip(b"\0").decode("utf-8", "replace")
    return ""
