"""Opens files that others cannot read, so that publishing and every user can; all of them are listed.

Run as a program (``python -m publisher.images.permissions FOLDER``) it prints the list as JSON: the builder
runs it inside a user namespace where the files belong to ids that an ordinary user cannot act for.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from publisher.errors import DiskError
from publisher.images.userns import inside

_READ: Final = 0o444
_ENTER: Final = 0o555


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """One path that was opened."""

    path: str
    """Path below the root of the image, without a leading slash."""
    mode: int
    """Its permission bits before."""


def repair_permissions(rootfs: Path) -> tuple[Repair, ...]:
    """Opens every file for reading and every directory for entering; returns what was closed before, sorted.

    Set-id and write bits stay as they are.

    Raises:
        DiskError: a mode cannot be read or changed.
        BuildError: the files belong to ids that this user cannot act for.
    """
    if os.geteuid() == 0:
        return tuple(sorted(_repair(rootfs), key=lambda repair: repair.path))
    done = inside((sys.executable, "-m", "publisher.images.permissions", rootfs))
    rows = json.loads(done.stdout)
    return tuple(Repair(path=os.fsdecode(bytes.fromhex(row[0])), mode=int(row[1])) for row in rows)


def _repair(rootfs: Path) -> Iterator[Repair]:
    pending = [rootfs]
    try:
        while pending:
            folder = pending.pop()
            yield from _open(rootfs, folder, folder.lstat().st_mode, _ENTER)
            with os.scandir(folder) as scan:
                for item in scan:
                    if item.is_dir(follow_symlinks=False):
                        pending.append(Path(item.path))
                    elif item.is_file(follow_symlinks=False):
                        yield from _open(
                            rootfs, Path(item.path), item.stat(follow_symlinks=False).st_mode, _READ
                        )
    except OSError as exc:
        raise DiskError(f"the permissions of {exc.filename} cannot be repaired: {exc.strerror}") from exc


def _open(rootfs: Path, path: Path, st_mode: int, wanted: int) -> Iterator[Repair]:
    mode = stat.S_IMODE(st_mode)
    # what may be executed by its owner was meant to be run
    wanted |= 0o111 if wanted == _READ and mode & 0o100 else 0
    if mode & wanted != wanted:
        path.chmod(mode | wanted)
        yield Repair(path=os.path.relpath(path, rootfs), mode=mode)


def main() -> None:
    """Repairs the folder that is named on the command line."""
    found = sorted(_repair(Path(sys.argv[1])), key=lambda repair: repair.path)
    print(json.dumps([[os.fsencode(repair.path).hex(), repair.mode] for repair in found]))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
