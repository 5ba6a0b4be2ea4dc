"""The images of a release on this machine: built, taken from the cache of builds, or read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publisher.backends.base import Backend
from publisher.images.builder import build
from publisher.images.built import BuiltImage
from publisher.names import ImageName
from publisher.progress import Progress
from publisher.project.settings import Settings
from publisher.release.layout import image_path
from publisher.release.plan import Action, BuildStep, ImagePlan, ReleasePlan
from publisher.release.preview import cached_build


@dataclass(frozen=True, kw_only=True, slots=True)
class Obtained:
    """An image whose files are on this machine."""

    rootfs: Path
    built: BuiltImage | None = None
    """None for a published image that was read back."""


def obtain_images(
    plan: ReleasePlan, settings: Settings, backend: Backend, progress: Progress
) -> Mapping[ImageName, Obtained]:
    """All images of a release: kernels must be able to start in each of them.

    Raises:
        BuildError: an image cannot be built.
        ToolError: there is no container runtime.
    """
    done: dict[str, BuiltImage] = {}
    return {image.selection.name: _obtain(image, settings, backend, progress, done) for image in plan.images}


def _obtain(
    image: ImagePlan, settings: Settings, backend: Backend, progress: Progress, done: dict[str, BuiltImage]
) -> Obtained:
    built = done.get(image.inputs_digest) or cached_build(image, settings)
    if built is None and image.action is Action.REUSE:
        path = image_path(settings.prefix, image.selection.name, image.selection.version)
        folder = settings.work / "reused" / image.selection.name / image.selection.version
        progress.line(f"{image.selection.name} {image.selection.version} is published: reading it back")
        return Obtained(rootfs=backend.export(path, folder, progress))
    if built is None:
        built = build_steps(image.chain, settings, progress, done)
    return Obtained(rootfs=built.rootfs, built=built)


def build_steps(
    chain: tuple[BuildStep, ...], settings: Settings, progress: Progress, done: dict[str, BuiltImage]
) -> BuiltImage:
    """The last image of a chain; each is built once, ``done`` remembers them by their inputs digest."""
    below: BuiltImage | None = None
    for step in chain:
        built = done.get(step.inputs_digest)
        if built is None:
            built = build(
                step.definition,
                variant=step.variant,
                base=below,
                work=settings.work,
                apt_mirror=settings.apt_mirror,
                progress=progress,
            )
            done[step.inputs_digest] = built
        below = built
    assert below is not None, "a chain holds the image itself"
    return below
