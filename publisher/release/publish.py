"""What a release changes in the repository, as one changeset."""

from __future__ import annotations

import datetime as dt
import platform
from collections.abc import Sequence

import publisher
from publisher.backends.base import Changeset, Revision
from publisher.names import ChannelName, RepoPath
from publisher.records.index import Index, IndexRelease
from publisher.records.release import ImageRecord, ReleaseRecord
from publisher.release.channels import channel_graft, index_graft
from publisher.release.layout import (
    JUPYTER,
    alias_target,
    channel_path,
    image_path,
    link_entry,
    release_path,
    release_tag,
)
from publisher.release.plan import Action, ImagePlan, ReleasePlan
from publisher.release.stage import StagedImage, kernel_records, release_entries, release_files
from publisher.release.state import PublishedState
from publisher.tree import Graft


def make_record(
    plan: ReleasePlan,
    staged: Sequence[StagedImage],
    state: PublishedState,
    *,
    channel: ChannelName,
    now: dt.datetime,
) -> ReleaseRecord:
    """The release record; images that were published before keep the record they had."""
    new = {image.name: image.record for image in staged}
    images = tuple(
        new[image.selection.name] if image.action is Action.BUILD else _earlier_record(image, state)
        for image in plan.images
    )
    builders = {image.builder for image in images if image.builder}
    return ReleaseRecord(
        version=plan.manifest.version,
        digest=plan.digest,
        created=now.astimezone(dt.UTC).isoformat(timespec="seconds"),
        fqrn=plan.index.fqrn,
        prefix=plan.index.prefix,
        channel=channel,
        notes=plan.manifest.notes,
        images=images,
        kernels=kernel_records(plan),
        files=release_files(plan),
        tools=(
            ("afpub", publisher.__version__),
            ("builder", ", ".join(sorted(builders))),
            ("python", platform.python_version()),
        ),
        aliases=_alias_links(plan, channel),
    )


def _alias_links(plan: ReleasePlan, channel: ChannelName) -> tuple[tuple[str, str], ...]:
    """Old paths and the targets of the links that they become."""
    prefix = plan.index.prefix
    links = []
    for alias in plan.manifest.aliases:
        if alias.kernel is not None:
            place = RepoPath(f"{channel_path(prefix, channel)}/{JUPYTER}/kernels/{alias.kernel}")
        else:
            assert alias.image is not None
            selection = plan.manifest.image(alias.image)
            assert selection is not None, "the manifest has been checked"
            place = image_path(prefix, selection.name, selection.version)
        links.append((f"{alias.path}", alias_target(alias.path, place)))
    return tuple(sorted(links))


def _earlier_record(image: ImagePlan, state: PublishedState) -> ImageRecord:
    key = (image.selection.name, image.selection.version)
    first = next(row for row in state.index.releases if key in row.images)
    return state.record(first.version).image(image.selection.name)


def make_changeset(
    plan: ReleasePlan,
    staged: Sequence[StagedImage],
    record: ReleaseRecord,
    *,
    base: Revision,
    now: dt.datetime,
) -> Changeset:
    """Images, release, index and channel in one: they move together, or nothing moves."""
    mtime_s = int(now.timestamp())
    prefix = plan.index.prefix
    index = _next_index(plan, staged, record)
    entries = release_entries(plan, record.to_bytes(), mtime_s=mtime_s)
    return Changeset(
        base=base,
        grafts=(
            *(image.graft(prefix) for image in staged),
            Graft(at=release_path(prefix, record.version), tree=entries),
            channel_graft(index, record.channel, mtime_s=mtime_s),
            index_graft(index, mtime_s=mtime_s),
            *(Graft(at=RepoPath(path), tree=(link_entry(target, mtime_s=mtime_s),)) for path, target in record.aliases),
        ),
        tag=release_tag(record.version),
        description=f"release_{record.version}",
    )


def _next_index(plan: ReleasePlan, staged: Sequence[StagedImage], record: ReleaseRecord) -> Index:
    row = IndexRelease(
        version=record.version,
        digest=record.digest,
        created=record.created,
        images=tuple((image.name, image.version) for image in record.images),
        kernels=tuple(kernel.name for kernel in record.kernels),
    )
    index = plan.index.with_release(row, tuple(image.index_row() for image in staged))
    return index.moved(record.channel, record.version)
