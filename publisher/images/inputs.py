"""The identity of an image before it is built: one digest over everything that it is made from."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from publisher.errors import DiskError
from publisher.images.recipe import load_recipe, sources
from publisher.project.image import ImageDefinition

POLICY_VERSION: Final = 1
"""Raised when the builder itself begins to make other images from the same inputs."""


def inputs_digest(image: ImageDefinition, *, variant: str, base_digest: str) -> str:
    """``sha256:<hex>`` over recipe, build arguments, input files, base and builder policy.

    Where packages are fetched from (mirror, index) and the times of files are no part of it.

    Args:
        image: the image.
        variant: one of its variants, ``""`` for a recipe without variants.
        base_digest: the digest of the image that it is based on, ``""`` for none.

    Raises:
        ProjectError: there is no such variant, the recipe is wrong, or an input file is missing.
        DiskError: an input file cannot be read.
    """
    recipe = load_recipe(image, variant)
    total = hashlib.sha256()
    for name, content in (
        ("policy", b"%d" % POLICY_VERSION),
        ("base", base_digest.encode()),
        ("recipe", recipe.definition.text.encode()),
        *((f"argument {key}", value.encode()) for key, value in recipe.arguments),
        *((f"bind point {point}", b"") for point in sorted(image.bind_points)),
        *(("file " + name, digest) for name, digest in _inputs(image, variant)),
    ):
        total.update(b"%d %s %d\n" % (len(name), os.fsencode(name), len(content)) + content + b"\n")
    return f"sha256:{total.hexdigest()}"


def _inputs(image: ImageDefinition, variant: str) -> Iterator[tuple[str, bytes]]:
    """Input files by name, each with the digest of mode and content."""
    found: dict[str, Path] = {}
    others = {path for item in image.variants if item.name != variant for path in _copied(image, item.name)}
    for path in _copied(image, variant):
        for file in sorted(path.rglob("*")) if path.is_dir() and not path.is_symlink() else (path,):
            found[os.path.relpath(file, image.folder)] = file
    for lock in image.locks:
        # a lock that only another variant copies is none of this one's business
        if lock not in others:
            found[os.path.relpath(lock, image.folder)] = lock
    for name in sorted(found):
        yield name, _fingerprint(found[name])


def _copied(image: ImageDefinition, variant: str) -> tuple[Path, ...]:
    recipe = load_recipe(image, variant)
    return (*recipe.archives, *(path for copy in recipe.copies for path in sources(image, copy)))


def _fingerprint(path: Path) -> bytes:
    """Kind, whether it is executable, content; other mode bits are the umask of whoever checked out."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return b"directory"
        executable = b"x" if mode & stat.S_IXUSR else b"-"
        return executable + hashlib.sha256(path.read_bytes()).digest()
    except OSError as exc:
        raise DiskError(f"the input file {path} cannot be read: {exc.strerror}") from exc
