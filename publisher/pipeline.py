"""A release, as a short list of steps; the only place that knows their order."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from publisher.backends.base import Backend, Published, Revision
from publisher.errors import CheckFailedError
from publisher.kernels.probe import ProbeResult
from publisher.names import ChannelName
from publisher.progress import Progress
from publisher.project.load import Project
from publisher.project.manifest import ReleaseManifest
from publisher.records.release import ReleaseRecord
from publisher.release.build import obtain_images
from publisher.release.layout import release_folder
from publisher.release.plan import ReleasePlan, make_plan
from publisher.release.publish import make_changeset, make_record
from publisher.release.stage import check_staged, lay_out, stage_images
from publisher.release.start import start_kernels
from publisher.release.state import PublishedState, read_state
from publisher.release.verify import folder_view, verify_record
from publisher.report import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the release manager may choose."""

    dry_run: bool = False
    """Stop before publishing."""
    channel: ChannelName | None = None
    """Instead of the manifest's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What a release works with: the project, where it publishes, and who listens."""

    project: Project
    backend: Backend
    progress: Progress
    now: dt.datetime
    on_report: Callable[[Report], None]
    """Shown at once: a report that stops the release comes before the error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a release did."""

    plan: ReleasePlan
    channel: ChannelName
    revision: Revision
    published: Published | None = None
    """None when nothing was to be done, or in a dry run."""
    record: ReleaseRecord | None = None
    probes: tuple[ProbeResult, ...] = ()
    """What the kernels did, first from the staged tree, then from what was published."""
    copy: Path | None = None
    """A verified plain copy of what was published, on this machine."""
    seconds: tuple[tuple[str, float], ...] = ()
    """How long each step took."""


def read_published(bench: Bench) -> PublishedState:
    """What the repository holds now."""
    settings = bench.project.settings
    return read_state(bench.backend.read, fqrn=settings.fqrn, prefix=settings.prefix)


def release(bench: Bench, manifest: ReleaseManifest, options: Options) -> Outcome:
    """Plans, builds, stages, validates, publishes and verifies a release; nothing when it is published.

    Raises:
        AfpubError: a step cannot go on; before the step that publishes, nothing has been published.
        CheckFailedError: a check said no; its report has been handed to ``bench.on_report``.
    """
    clock = _Clock(bench.progress)
    channel = options.channel or manifest.channel
    base = bench.backend.head()
    state = read_published(bench)
    plan = make_plan(bench.project, manifest, state.index)
    if plan.published:
        return Outcome(plan=plan, channel=channel, revision=base)

    clock.step(f"building {len(plan.images)} images")
    images = obtain_images(plan, bench.project.settings, bench.backend, bench.progress)

    clock.step("staging: normalizing trees, splitting catalogs")
    staged = stage_images(plan, images, bench.project.settings, bench.progress)
    stage = lay_out(plan, images, bench.project.settings.work / "stage")
    record = make_record(plan, staged, state, channel=channel, now=bench.now)
    changeset = make_changeset(plan, staged, record, base=base, now=bench.now)

    clock.step("validating: starting every kernel from the staged tree")
    report = check_staged(plan, staged, stage) + bench.backend.preflight(changeset)
    _insist(bench, report, "nothing was published")
    before = start_kernels(
        plan.kernels, release_folder(stage, manifest.version), bench.project.settings.work, bench.progress
    )
    _insist(bench, before.report, "nothing was published")
    if options.dry_run:
        return Outcome(
            plan=plan,
            channel=channel,
            revision=base,
            record=record,
            probes=before.results,
            seconds=clock.seconds(),
        )

    clock.step("publishing one revision")
    published = bench.backend.publish(
        changeset, progress=lambda done, total: bench.progress.advance(done, total, "bytes")
    )

    clock.step("verifying: reading everything back, starting every kernel from what was published")
    copy = bench.backend.export(record.prefix, bench.project.settings.work / "published", bench.progress)
    new = tuple(image.record for image in staged)
    read_back = verify_record(folder_view(copy, record.prefix), record, images=new)
    _insist(bench, read_back, f"revision {published.revision.number} is published but not as it should be")
    after = start_kernels(
        plan.kernels, release_folder(copy, manifest.version), bench.project.settings.work, bench.progress
    )
    _insist(bench, after.report, f"revision {published.revision.number} is published, but a kernel fails")
    return Outcome(
        plan=plan,
        channel=channel,
        revision=published.revision,
        published=published,
        record=record,
        probes=(*before.results, *after.results),
        copy=copy,
        seconds=clock.seconds(),
    )


def _insist(bench: Bench, report: Report, consequence: str) -> None:
    bench.on_report(report)
    if not report.ok:
        count = len(report.errors)
        raise CheckFailedError(
            f"{count} {'check' if count == 1 else 'checks'} said no (shown above): {consequence}"
        )


class _Clock:
    """Announces steps and measures them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: list[tuple[str, float]] = []

    def step(self, text: str) -> None:
        self._steps.append((text.partition(":")[0], time.monotonic()))
        self._progress.step(text)

    def seconds(self) -> tuple[tuple[str, float], ...]:
        ends = [begun for _, begun in self._steps[1:]] + [time.monotonic()]
        return tuple((name, end - begun) for (name, begun), end in zip(self._steps, ends, strict=True))
