"""The blob that holds the extended attributes of a catalog row."""

from __future__ import annotations

import os

from publisher.errors import FormatError, RepositoryError

_VERSION = 1
_MAX = 255
"""Most attributes, and most bytes of a name or a value. A value of 256 is let through by the CVMFS tools and
then reads back empty, so it is refused here. Source: cvmfs/xattr.cc (2.12)."""

Attributes = tuple[tuple[str, bytes], ...]
"""Names and values, sorted by the bytes of the name."""


def encode(attributes: Attributes, *, where: str) -> bytes | None:
    """The blob of the attributes; None for none.

    Raises:
        RepositoryError: the format cannot hold them.
    """
    if not attributes:
        return None
    if len(attributes) > _MAX:
        raise RepositoryError(f"{where} has {len(attributes)} extended attributes; CVMFS holds {_MAX}")
    blob = bytearray((_VERSION, len(attributes)))
    for name, value in sorted((os.fsencode(name), value) for name, value in attributes):
        if not 1 <= len(name) <= _MAX or b"\0" in name:
            raise RepositoryError(f"{where}: an extended attribute's name of {len(name)} bytes does not fit CVMFS")
        if len(value) > _MAX:
            raise RepositoryError(
                f"{where}: the extended attribute {os.fsdecode(name)!r} has {len(value)} bytes; CVMFS holds {_MAX}",
                hint="remove the attribute, or publish without extended attributes",
            )
        blob += bytes((len(name), len(value))) + name + value
    return bytes(blob)


def decode(blob: bytes | None) -> Attributes:
    """The attributes in a blob.

    Raises:
        FormatError: it is not well formed.
    """
    if blob is None:
        return ()
    if len(blob) < 2 or blob[0] != _VERSION or not blob[1]:
        raise FormatError("the extended attributes are no blob of version 1")
    found: dict[bytes, bytes] = {}
    at = 2
    for _ in range(blob[1]):
        end = at + 2 + sum(blob[at : at + 2])
        if at + 2 > len(blob) or end > len(blob):
            raise FormatError("the extended attributes are cut off")
        name = blob[at + 2 : at + 2 + blob[at]]
        if not name or b"\0" in name or name in found:
            raise FormatError("the extended attributes have an empty, broken or repeated name")
        found[name] = blob[at + 2 + blob[at] : end]
        at = end
    if at != len(blob):
        raise FormatError("the extended attributes have bytes left over")
    return tuple((os.fsdecode(name), found[name]) for name in sorted(found))
