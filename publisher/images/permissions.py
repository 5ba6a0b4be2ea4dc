"""Opens files that others cannot read, so that publishing and every user can; all of them are listed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from publisher.errors import DiskError, ToolError
from publisher.images.userns import inside

_CLOSED: Final = (
    *("(", "-type", "d", "!", "-perm", "-555"),
    *("-o", "-type", "f", "!", "-perm", "-444"),
    # what its owner may run was meant to be run
    *("-o", "-type", "f", "-perm", "-100", "!", "-perm", "-111", ")"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """One path that was opened."""

    path: str
    """Path below the root of the image, without a leading slash."""
    mode: int
    """Its permission bits before."""


def repair_permissions(rootfs: Path) -> tuple[Repair, ...]:
    """Opens every file for reading and every directory for entering; returns what was closed before, sorted.

    Set-id and write bits stay as they are. Works as an ordinary user on the user's own builds.

    Raises:
        DiskError: a mode cannot be read or changed.
        BuildError: the files belong to ids that this user cannot act for.
    """
    # names of files are bytes, which would not survive in the output of a program
    listing = rootfs.parent / f".{rootfs.name}.closed"
    words = ("find", rootfs, *_CLOSED, "-fprintf", listing, r"%m %P\0", "-exec", "chmod", "a+rX", "{}", "+")
    try:
        inside(words)
        rows = listing.read_bytes().split(b"\0")[:-1]
    except (ToolError, OSError) as exc:
        detail = exc.detail if isinstance(exc, ToolError) else str(exc)
        raise DiskError(f"the permissions in {rootfs} cannot be repaired", detail=detail) from exc
    finally:
        listing.unlink(missing_ok=True)
    pairs = (row.split(b" ", 1) for row in rows)
    repairs = (Repair(path=os.fsdecode(path), mode=int(mode, 8)) for mode, path in pairs)
    return tuple(sorted(repairs, key=lambda repair: os.fsencode(repair.path)))
