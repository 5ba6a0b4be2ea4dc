"""A release, as a short list of steps; the only place that knows their order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from publisher.backends.base import Backend, Published, Revision
from publisher.errors import CheckFailedError
from publisher.kernels.probe import ProbeResult
from publisher.names import ChannelName
from publisher.progress import Progress
from publisher.project.load import Project
from publisher.project.manifest import ReleaseManifest
from publisher.records.release import ImageRecord, ReleaseRecord
from publisher.release.build import obtain_images
from publisher.release.journal import Clock, Journal
from publisher.release.layout import release_folder
from publisher.release.plan import ReleasePlan, make_plan
from publisher.release.publish import make_changeset, make_record
from publisher.release.stage import check_staged, lay_out, stage_images
from publisher.release.start import start_kernels
from publisher.release.state import PublishedState, read_state
from publisher.release.verify import folder_view, verify_record
from publisher.report import Report

_NOTHING = "nothing was published"


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
    """Plans, builds, stages, validates, publishes and verifies a release.

    Does nothing when the release is published and verified. A run that was killed is taken up where it was:
    built images are kept, and what was published but not verified is verified.

    Raises:
        AfpubError: a step cannot go on; before the step that publishes, nothing has been published.
        CheckFailedError: a check said no; its report has been handed to ``bench.on_report``.
    """
    clock = Clock(bench.progress)
    settings = bench.project.settings
    channel = options.channel or manifest.channel
    base = bench.backend.head()
    state = read_published(bench)
    plan = make_plan(bench.project, manifest, state.index)
    journal = Journal(settings.work, plan)
    if plan.published:
        outcome = Outcome(plan=plan, channel=channel, revision=base)
        if options.dry_run or journal.verified():
            return outcome
        record = state.record(manifest.version)
        after, copy = _verify(bench, plan, record, record.images, clock)
        journal.note_verified(base)
        return replace(outcome, record=record, probes=after, copy=copy, seconds=clock.seconds())

    clock.step(f"building {len(plan.images)} images")
    images = obtain_images(plan, settings, bench.backend, bench.progress)

    clock.step("staging: normalizing trees, splitting catalogs")
    staged = stage_images(plan, images, settings, bench.progress)
    stage = lay_out(plan, images, settings.work / "stage")
    record = make_record(plan, staged, state, channel=channel, now=bench.now)
    changeset = make_changeset(plan, staged, record, base=base, now=bench.now)
    journal.note_staged(record)

    clock.step("validating: starting every kernel from the staged tree")
    _insist(bench, check_staged(plan, staged, stage) + bench.backend.preflight(changeset), _NOTHING)
    before = start_kernels(plan.kernels, release_folder(stage, record.version), settings.work, bench.progress)
    _insist(bench, before.report, _NOTHING)
    outcome = Outcome(
        plan=plan,
        channel=channel,
        revision=base,
        record=record,
        probes=before.results,
        seconds=clock.seconds(),
    )
    if options.dry_run:
        return outcome

    clock.step("publishing one revision")
    published = bench.backend.publish(
        changeset, progress=lambda done, total: bench.progress.advance(done, total, "bytes")
    )
    journal.note_published(published)

    new = tuple(image.record for image in staged)
    after, copy = _verify(bench, plan, record, new, clock)
    journal.note_verified(published.revision)
    return replace(
        outcome,
        revision=published.revision,
        published=published,
        probes=(*before.results, *after),
        copy=copy,
        seconds=clock.seconds(),
    )


def _verify(
    bench: Bench, plan: ReleasePlan, record: ReleaseRecord, images: tuple[ImageRecord, ...], clock: Clock
) -> tuple[tuple[ProbeResult, ...], Path]:
    """Reads back what a client would read, and starts every kernel from it."""
    work = bench.project.settings.work
    published = f"{record.version} is published, but"
    clock.step("verifying: reading everything back, starting every kernel from what was published")
    copy = bench.backend.export(record.prefix, work / "published", bench.progress)
    report = verify_record(folder_view(copy, record.prefix), record, images=images)
    _insist(bench, report, f"{published} not as it was built")
    after = start_kernels(plan.kernels, release_folder(copy, record.version), work, bench.progress)
    _insist(bench, after.report, f"{published} a kernel does not work; 'afpub rollback' moves the channel back")
    return after.results, copy


def _insist(bench: Bench, report: Report, consequence: str) -> None:
    bench.on_report(report)
    if not report.ok:
        count = len(report.errors)
        checks = "check" if count == 1 else "checks"
        raise CheckFailedError(f"{count} {checks} said no (shown above): {consequence}", report=report)
