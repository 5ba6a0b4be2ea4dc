"""What is known about the images of a plan before anything is built: sizes, catalogs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from publisher.images.builder import find_built
from publisher.images.built import BuiltImage
from publisher.project.settings import Settings
from publisher.release.plan import Action, ImagePlan, ReleasePlan
from publisher.staging.catalogs import catalog_sizes, split
from publisher.staging.normalize import Policy, normalize


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePreview:
    """An image of a plan; sizes are 0 where it has to be built first."""

    plan: ImagePlan
    built: bool
    """It lies in the cache of builds."""
    entries: int = 0
    size_bytes: int = 0
    catalogs: Mapping[str, int] = field(default_factory=dict)
    """Entries of each nested catalog that it would get, by the directory that begins it."""


def cached_build(image: ImagePlan, settings: Settings) -> BuiltImage | None:
    """The image from an earlier build with the same inputs, or None."""
    below = image.chain[-2].inputs_digest if len(image.chain) > 1 else ""
    step = image.chain[-1]
    return find_built(step.definition, variant=step.variant, base_digest=below, work=settings.work)


def preview(plan: ReleasePlan, settings: Settings) -> tuple[ImagePreview, ...]:
    """Sizes and catalogs of the images of a plan, as far as they can be known without building."""
    return tuple(_preview(image, plan, settings) for image in plan.images)


def _preview(image: ImagePlan, plan: ReleasePlan, settings: Settings) -> ImagePreview:
    if image.action is Action.REUSE:
        row = plan.index.image(image.selection.name, image.selection.version)
        assert row is not None, "a published image is in the index"
        return ImagePreview(plan=image, built=True, entries=row.entries, size_bytes=row.size_bytes)
    built = cached_build(image, settings)
    if built is None:
        return ImagePreview(plan=image, built=False)
    policy = Policy(unreadable=settings.unreadable)
    entries = normalize(built.tree, where=image.selection.name, policy=policy).entries
    bounds = settings.catalogs
    cuts = split(entries, min_entries=bounds.min_entries, max_entries=bounds.max_entries)
    return ImagePreview(
        plan=image,
        built=True,
        entries=len(entries),
        size_bytes=built.size_bytes,
        catalogs=catalog_sizes(entries, cuts) if cuts else {},
    )
