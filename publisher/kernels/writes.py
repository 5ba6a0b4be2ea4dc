"""Did a kernel write into what is published? On a read-only mount it cannot; in a folder the times tell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

_MOST = 20
"""More changed files than these are not looked for."""


def published_trees(kernel_dir: Path) -> tuple[Path, ...]:
    """The folders that belong to a kernel and must not change: those of its release and of its image.

    Only the kernel's own folder where the kernel was not published by afpub.
    """
    folder = kernel_dir.resolve()
    try:
        about = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))["metadata"]["afpub"]
        release = folder.parents[3]
        image = release.parents[1] / "images" / str(about["image"]) / str(about["image_version"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return (folder,)
    return tuple(tree.resolve() for tree in (release, image) if tree.is_dir())


def changed(tree: Path, *, since_s: float, until_s: float) -> tuple[str, ...]:
    """Some paths below a tree that were written between two moments (seconds since 1970), relative to it.

    A file that was made or removed shows by the time of its folder. The time of the status is not looked at:
    a hard link that somebody makes elsewhere changes it.
    """
    if os.statvfs(tree).f_flag & os.ST_RDONLY:
        return ()
    found = []
    for path in _all(str(tree)):
        if since_s < _mtime_s(path) <= until_s:
            found.append(os.path.relpath(path, tree))
            if len(found) == _MOST:
                break
    return tuple(found)


def _all(folder: str) -> Iterator[str]:
    yield folder
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _all(entry.path)
                else:
                    yield entry.path
    except PermissionError:
        return  # another user's: a kernel of this user cannot write there either


def _mtime_s(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0  # it is gone; its folder tells
