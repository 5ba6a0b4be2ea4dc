"""What is known about the images of a plan before anything is built: sizes, catalogs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from publisher.images.builder import find_built
from publisher.images.built import BuiltImage
from publisher.project.settings import Settings
from publisher.records.release import CatalogPart
from publisher.release.plan import Action, ImagePlan, ReleasePlan
from publisher.release.state import PublishedState
from publisher.report import Report
from publisher.staging.catalogs import State, check_split, parts, split_tree, states
from publisher.staging.normalize import Policy, normalize


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePreview:
    """An image of a plan; sizes are 0 where it has to be built first."""

    plan: ImagePlan
    built: bool
    """It lies in the cache of builds."""
    entries: int = 0
    size_bytes: int = 0
    os: str = ""
    """The system in it, as its os-release names it."""
    catalogs: tuple[CatalogPart, ...] = ()
    """The nested catalogs that it has or would get."""
    states: Mapping[str, State] = field(default_factory=dict)
    """What became of each since the image was published before, by the directory that begins it."""
    report: Report = field(default_factory=Report)
    """What is to say about them."""


def cached_build(image: ImagePlan, settings: Settings) -> BuiltImage | None:
    """The image from an earlier build with the same inputs, or None."""
    below = image.chain[-2].inputs_digest if len(image.chain) > 1 else ""
    step = image.chain[-1]
    return find_built(step.definition, variant=step.variant, base_digest=below, work=settings.work)


def catalogs_before(state: PublishedState, image: ImagePlan) -> tuple[CatalogPart, ...]:
    """The nested catalogs of the image as it was published last, under whatever version; none when it never was.

    Raises:
        FormatError: a record in the repository is missing or wrong.
    """
    for release in reversed(state.index.releases):
        if any(name == image.selection.name for name, _ in release.images):
            return state.record(release.version).image(image.selection.name).catalogs
    return ()


def preview(plan: ReleasePlan, settings: Settings, state: PublishedState) -> tuple[ImagePreview, ...]:
    """Sizes and catalogs of the images of a plan, as far as they can be known without building."""
    return tuple(_preview(image, plan, settings, state) for image in plan.images)


def _preview(image: ImagePlan, plan: ReleasePlan, settings: Settings, state: PublishedState) -> ImagePreview:
    if image.action is Action.REUSE:
        row = plan.index.image(image.selection.name, image.selection.version)
        assert row is not None, "a published image is in the index"
        key = (image.selection.name, image.selection.version)
        release = next(item for item in state.index.releases if key in item.images)
        record = state.record(release.version).image(image.selection.name)
        return ImagePreview(
            plan=image,
            built=True,
            entries=row.entries,
            size_bytes=row.size_bytes,
            os=record.os,
            catalogs=record.catalogs,
            states=states(record.catalogs, record.catalogs),
        )
    built = cached_build(image, settings)
    if built is None:
        return ImagePreview(plan=image, built=False)
    policy = Policy(unreadable=settings.unreadable)
    entries = normalize(built.tree, where=image.selection.name, policy=policy).entries
    before = catalogs_before(state, image)
    found = split_tree(entries, settings.catalogs, previous=[part.path for part in before])
    catalogs = parts(entries, found.catalogs)
    return ImagePreview(
        plan=image,
        built=True,
        entries=len(entries),
        size_bytes=built.size_bytes,
        os=built.inventory.os,
        catalogs=catalogs if found.catalogs else (),
        states=states(catalogs, before),
        report=check_split(found, where=image.selection.name, bounds=settings.catalogs),
    )
