"""A release, as a short list of steps; the only place that knows their order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from publisher.backends.base import Backend, Changeset, Published, Revision
from publisher.cvmfs.lock import exclusive
from publisher.errors import CheckFailedError
from publisher.kernels.probe import ProbeResult
from publisher.kernels.session import Depth
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
from publisher.release.stage import StagedImage, check_staged, lay_out, stage_images
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
    wait_s: float = 0.0
    """How long to wait for another release or publisher."""
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
    staged_probes: tuple[ProbeResult, ...] = ()
    """What the kernels did from the staged tree."""
    published_probes: tuple[ProbeResult, ...] = ()
    """What they did from what was published."""
    copy: Path | None = None
    """A verified plain copy of what was published, on this machine."""
    seconds: tuple[tuple[str, float], ...] = ()
    """How long each step took."""


def read_published(bench: Bench) -> PublishedState:
    """What the repository holds now."""
    settings = bench.project.settings
    return read_state(bench.backend.read, fqrn=settings.fqrn, prefix=settings.prefix)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """One release on its way."""

    bench: Bench
    channel: ChannelName
    base: Revision
    state: PublishedState
    plan: ReleasePlan
    journal: Journal
    clock: Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """A release that has passed every check and is not published yet."""

    changeset: Changeset
    record: ReleaseRecord
    staged: tuple[StagedImage, ...]
    probes: tuple[ProbeResult, ...]


def release(bench: Bench, manifest: ReleaseManifest, options: Options) -> Outcome:
    """Plans, builds, stages, validates, publishes and verifies a release.

    Does nothing when the release is published and verified. A run that was killed is taken up where it was:
    built images are kept, and what was published but not verified is verified.

    Raises:
        AfpubError: a step cannot go on; before the step that publishes, nothing has been published.
        BusyError: another release of this project is being made, or another publisher is at work.
        CheckFailedError: a check said no; its report has been handed to ``bench.on_report``.
    """
    work = bench.project.settings.work
    work.mkdir(parents=True, exist_ok=True)
    with exclusive(work / "release.lock", what=f"the work folder {work}", wait_s=bench.wait_s):
        run = _plan(bench, manifest, options)
        if run.plan.published:
            return _settle(run, options)
        prepared = _prepare(run)
        if options.dry_run:
            return _outcome(run, prepared)
        return _publish(run, prepared)


def _plan(bench: Bench, manifest: ReleaseManifest, options: Options) -> _Run:
    base = bench.backend.head()
    state = read_published(bench)
    plan = make_plan(bench.project, manifest, state.index)
    return _Run(
        bench=bench,
        channel=options.channel or manifest.channel,
        base=base,
        state=state,
        plan=plan,
        journal=Journal(bench.project.settings.work, plan),
        clock=Clock(bench.progress),
    )


def _settle(run: _Run, options: Options) -> Outcome:
    """Verifies a published release where that has not been done."""
    outcome = Outcome(plan=run.plan, channel=run.channel, revision=run.base)
    if options.dry_run or run.journal.verified():
        return outcome
    record = run.state.record(run.plan.manifest.version)
    after, copy = _verify(run, record, record.images)
    run.journal.note_verified(run.base)
    return replace(outcome, record=record, published_probes=after, copy=copy, seconds=run.clock.seconds())


def _prepare(run: _Run) -> _Prepared:
    """Builds, stages and validates; nothing is published."""
    bench, plan, clock, settings = run.bench, run.plan, run.clock, run.bench.project.settings
    clock.step(f"building {len(plan.images)} images")
    images = obtain_images(plan, settings, bench.backend, bench.progress)

    clock.step("staging: normalizing trees, splitting catalogs")
    staged = stage_images(plan, images, settings, run.state, bench.progress)
    stage = lay_out(plan, images, settings.work / "stage")
    record = make_record(plan, staged, run.state, channel=run.channel, now=bench.now)
    changeset = make_changeset(plan, staged, record, base=run.base, now=bench.now)
    run.journal.note_staged(record)

    clock.step("validating: starting every kernel from the staged tree")
    _insist(bench, check_staged(plan, staged, stage) + bench.backend.preflight(changeset), _NOTHING)
    folder = release_folder(stage, record.version)
    started = start_kernels(plan.kernels, folder, settings.work, bench.progress, depth=Depth.FEATURES)
    _insist(bench, started.report, _NOTHING)
    return _Prepared(changeset=changeset, record=record, staged=staged, probes=started.results)


def _publish(run: _Run, prepared: _Prepared) -> Outcome:
    """Makes the revision and verifies it."""
    run.clock.step("publishing one revision")
    published = run.bench.backend.publish(
        prepared.changeset, progress=lambda done, total: run.bench.progress.advance(done, total, "bytes")
    )
    run.journal.note_published(published)
    after, copy = _verify(run, prepared.record, tuple(image.record for image in prepared.staged))
    run.journal.note_verified(published.revision)
    return replace(
        _outcome(run, prepared),
        revision=published.revision,
        published=published,
        published_probes=after,
        copy=copy,
    )


def _outcome(run: _Run, prepared: _Prepared) -> Outcome:
    return Outcome(
        plan=run.plan,
        channel=run.channel,
        revision=run.base,
        record=prepared.record,
        staged_probes=prepared.probes,
        seconds=run.clock.seconds(),
    )


def _verify(run: _Run, record: ReleaseRecord, images: tuple[ImageRecord, ...]) -> tuple[tuple[ProbeResult, ...], Path]:
    """Reads back what a client would read, and starts every kernel from it."""
    bench, plan, work = run.bench, run.plan, run.bench.project.settings.work
    published = f"{record.version} is published, but"
    run.clock.step("verifying: reading everything back, starting every kernel from what was published")
    copy = bench.backend.export(record.prefix, work / "published", bench.progress)
    report = verify_record(folder_view(copy, record.prefix), record, images=images)
    _insist(bench, report, f"{published} not as it was built")
    # every byte has been read back: what needs no more than the bytes need not be tried a second time
    folder = release_folder(copy, record.version)
    after = start_kernels(plan.kernels, folder, work, bench.progress, depth=Depth.LIFE)
    _insist(bench, after.report, f"{published} a kernel does not work; 'afpub rollback' moves the channel back")
    return after.results, copy


def _insist(bench: Bench, report: Report, consequence: str) -> None:
    bench.on_report(report)
    if not report.ok:
        count = len(report.errors)
        checks = "check" if count == 1 else "checks"
        raise CheckFailedError(f"{count} {checks} said no (shown above): {consequence}", report=report)
