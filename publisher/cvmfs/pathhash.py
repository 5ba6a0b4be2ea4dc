"""How catalogs address paths."""

from __future__ import annotations

import hashlib
import os
import struct

PathHash = tuple[int, int]
"""The two halves of a path's MD5, as the catalogs have them."""
NO_PARENT: PathHash = (0, 0)
"""The parent hash of the repository's root."""
_HALVES = struct.Struct("<qq")


def path_hash(path: str) -> PathHash:
    """The hash of a path such as ``/a/b``; the root is the empty text.

    Source: cvmfs/crypto/hash.cc Md5::ToIntPair (2.12): two little-endian signed 64-bit integers.
    """
    first, second = _HALVES.unpack(hashlib.md5(os.fsencode(path), usedforsecurity=False).digest())
    return first, second


def parent_hash(path: str) -> PathHash:
    """The hash of the directory that holds the path; zeros for the root."""
    return path_hash(path.rpartition("/")[0]) if path else NO_PARENT
