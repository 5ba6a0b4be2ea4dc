"""Commands that make and move releases: plan, build, release, promote, rollback."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from publisher.backends.base import Published
from publisher.cli.arriving import wait_until_there
from publisher.cli.common import Session, command, from_newest
from publisher.cli.console import Branches
from publisher.cli.options import Recover
from publisher.cli.places import backend_of, now, published_at, ready_backend
from publisher.images.built import BuiltImage
from publisher.names import ChannelName, ImageName, ImageVersion
from publisher.pipeline import Bench, Options, Outcome
from publisher.pipeline import release as run_release
from publisher.progress import Relay
from publisher.project.load import Project
from publisher.project.manifest import ImageSelection, load_manifest
from publisher.records.release import CatalogPart
from publisher.release.build import build_steps
from publisher.release.channels import promote as move_to
from publisher.release.channels import rollback as move_back
from publisher.release.layout import JUPYTER
from publisher.release.plan import Action, ReleasePlan, build_chain, make_plan
from publisher.release.preview import ImagePreview, preview
from publisher.release.retire import retire as retire_release
from publisher.release.state import read_state
from publisher.staging.catalogs import State
from publisher.validation.systems import check_systems

_NO_VERSION = ImageVersion("0")
"""An image that is built for itself gets no version."""
Manifest = Annotated[Path, typer.Argument(help="A release manifest, such as manifests/demo.toml.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for another publisher.")]
WaitForAll = Annotated[
    float,
    typer.Option("--wait", help="Seconds to wait for another publisher, and then until the stratum 1s have it."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for register_one in (_plan, _build, _release, _promote, _rollback, _retire):
        register_one(app)


def _plan(app: typer.Typer) -> None:
    @command(app)
    def plan(session: Session, manifest: Manifest) -> None:
        """Show what a release would build, reuse and publish; nothing is changed."""
        project = session.project()
        settings = project.settings
        backend = backend_of(project)
        state = read_state(backend.read, fqrn=settings.fqrn, prefix=settings.prefix)
        made = make_plan(project, load_manifest(manifest), state.index)
        images = preview(made, settings, state)
        channel = f"channel {made.manifest.channel} of {settings.fqrn}"
        published = " (published already: nothing to do)" if made.published else ""
        session.screen.tree(
            f"release {made.manifest.version} -> {channel}{published}",
            {_image_title(image): catalog_tree(image) for image in images}
            | {
                "kernels": {
                    f"{kernel.name}: {kernel.display_name}, in {kernel.image or 'no image'}": {}
                    for kernel in made.kernels
                }
            },
        )
        systems = check_systems(made.kernels, {image.plan.selection.name: image.os for image in images})
        session.screen.report(functools.reduce(operator.add, (image.report for image in images), systems))
        session.screen.result(_plan_json(made, images))


def _image_title(image: ImagePreview) -> str:
    selection = image.plan.selection
    size = f", {image.entries:,} entries, {image.size_bytes / 1e6:,.0f} MB" if image.built else ""
    what = {
        (Action.REUSE, True): "published already",
        (Action.BUILD, True): "built, to be published",
        (Action.BUILD, False): "to be built and published",
    }[image.plan.action, image.built]
    return f"image {selection.name} {selection.version}: {what}{size}"


def catalog_tree(image: ImagePreview) -> Branches:
    """What is known of an image, its nested catalogs one in the other as clients load them."""
    chain = " <- ".join(step.definition.name for step in reversed(image.plan.chain))
    top: dict[str, Branches] = {f"made of {chain}, inputs {image.plan.inputs_digest[:19]}": {}}
    open_branches: list[tuple[str, dict[str, Branches]]] = []
    for part in image.catalogs:
        inner: dict[str, Branches] = {}
        while open_branches and not f"{part.path}/".startswith(f"{open_branches[-1][0]}/".lstrip("/")):
            open_branches.pop()
        above = open_branches[-1][1] if open_branches else top
        above[_catalog_title(part, image.states[part.path])] = inner
        open_branches.append((part.path, inner))
    return top


def _catalog_title(part: CatalogPart, state: State) -> str:
    return f"/{part.path}: {part.entries:,} entries, {part.size_bytes / 1e6:,.1f} MB, {state.value}"


def _plan_json(plan: ReleasePlan, images: Sequence[ImagePreview]) -> dict[str, object]:
    return {
        "release": plan.manifest.version,
        "channel": plan.manifest.channel,
        "digest": plan.digest,
        "published": plan.published,
        "images": [
            {
                "name": image.plan.selection.name,
                "version": image.plan.selection.version,
                "action": image.plan.action.value,
                "built": image.built,
                "inputs_digest": image.plan.inputs_digest,
                "chain": [step.definition.name for step in image.plan.chain],
                "entries": image.entries,
                "size_bytes": image.size_bytes,
                "catalogs": [
                    {
                        "path": f"/{part.path}",
                        "entries": part.entries,
                        "size_bytes": part.size_bytes,
                        "state": image.states[part.path].value,
                    }
                    for part in image.catalogs
                ],
                **image.report.to_json(),
            }
            for image in images
        ],
        "kernels": [kernel.name for kernel in plan.kernels],
    }


def _build(app: typer.Typer) -> None:
    @command(app)
    def build(
        session: Session,
        images: Annotated[list[str] | None, typer.Argument(help="Images; all of them when none is named.")] = None,
        variant: Annotated[str, typer.Option(help="Variant of the recipe, such as cpu.")] = "",
    ) -> None:
        """Build images without publishing anything."""
        project = session.project()
        made: list[BuiltImage] = []
        with session.screen.progress() as progress:
            for name in images or project.image_names():
                for chosen in _variants(project, ImageName(name), variant):
                    progress.step(f"building {name} {chosen}".rstrip())
                    selection = ImageSelection(name=ImageName(name), version=_NO_VERSION, variant=chosen)
                    chain = build_chain(project, selection, asked_by="the command line")
                    made.append(build_steps(chain, project.settings, progress, {}))
        session.screen.table(
            "",
            ("image", "variant", "size", "built in", "root file system"),
            [
                (
                    row.image,
                    row.variant,
                    f"{row.size_bytes / 1e6:,.0f} MB",
                    "reused" if row.reused else f"{row.seconds:.0f} s",
                    f"{row.rootfs}",
                )
                for row in made
            ],
        )
        session.screen.result({"images": [_built_json(row) for row in made]})


def _built_json(row: BuiltImage) -> dict[str, object]:
    return {
        "image": row.image,
        "variant": row.variant,
        "rootfs": f"{row.rootfs}",
        "inputs_digest": row.inputs_digest,
        "tree_digest": row.tree_digest,
        "size_bytes": row.size_bytes,
        "entries": row.files,
        "seconds": row.seconds,
        "reused": row.reused,
    }


def _variants(project: Project, name: ImageName, variant: str) -> Sequence[str]:
    names = [item.name for item in project.image(name).variants]
    return [variant] if variant or not names else names


def _release(app: typer.Typer) -> None:
    @command(app)
    def release(
        session: Session,
        manifest: Manifest,
        channel: Annotated[str, typer.Option(help="Channel instead of the manifest's.")] = "",
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop before publishing.")] = False,
        wait: WaitForAll = 0.0,
        recover: Recover = False,
    ) -> None:
        """Build, validate, publish and read back a release, in one revision; all or nothing."""
        project = session.project()
        options = Options(dry_run=dry_run, channel=ChannelName(channel) if channel else None)
        relay = Relay()
        backend = ready_backend(session, project, wait_s=wait, recover=recover, progress=relay)
        with session.screen.progress() as progress:
            relay.listener = progress
            bench = Bench(
                project=project,
                backend=backend,
                progress=progress,
                now=now(),
                wait_s=wait,
                on_report=session.screen.report,
            )
            outcome = from_newest(wait, lambda: run_release(bench, load_manifest(manifest), options))
            version = outcome.plan.manifest.version
            arrived = wait_until_there(project.settings, version, wait, progress) if wait and not dry_run else None
        if outcome.plan.kernels:
            session.screen.table("", ("kernel", "ready in", "interrupted in"), _probe_rows(outcome))
        if arrived is not None:
            report = arrived.report(now(), final=True)
            session.screen.report(report)
            session.conclude(report, f"release {version} is published, but has not arrived everywhere")
        session.screen.result(
            _outcome_json(project, outcome, dry_run=dry_run)
            | {"arrived": [row.place.name for row in arrived.counted] if arrived else None},
            lines=_outcome_lines(project, outcome, dry_run=dry_run),
        )


def _probe_rows(outcome: Outcome) -> list[tuple[str, str, str]]:
    """One row for each time that a kernel was started."""
    return [
        (f"{row.kernel} ({where})", f"{row.start_s:.1f} s", f"{row.interrupt_s:.1f} s")
        for where, rows in (("staged", outcome.staged_probes), ("published", outcome.published_probes))
        for row in rows
    ]


def _outcome_json(project: Project, outcome: Outcome, *, dry_run: bool) -> dict[str, object]:
    settings, plan, published = project.settings, outcome.plan, outcome.published
    location, public_key = published_at(settings)
    return {
        "fqrn": settings.fqrn,
        "prefix": settings.prefix,
        "repository": location,
        "public_key": f"{public_key}",
        "release": plan.manifest.version,
        "digest": plan.digest,
        "channel": outcome.channel,
        "dry_run": dry_run,
        "new": published is not None and published.new,
        "revision": outcome.revision.number,
        "root_hash": outcome.revision.root_hash,
        "kernels": [kernel.name for kernel in plan.kernels],
        "jupyter_path": f"{settings.prefix}/channels/{outcome.channel}/{JUPYTER}",
        "copy": f"{outcome.copy}" if outcome.copy else None,
        "published": {
            "files": published.files,
            "objects": published.objects,
            "read_bytes": published.read_bytes,
            "stored_bytes": published.stored_bytes,
            "seconds": published.seconds,
            "open_seconds": published.open_seconds,
            "notes": list(published.notes),
        }
        if published
        else None,
        "probes": [
            {"kernel": row.kernel, "from": where, "start_s": row.start_s, "interrupt_s": row.interrupt_s}
            for where, rows in (("staged", outcome.staged_probes), ("published", outcome.published_probes))
            for row in rows
        ],
        "seconds": dict(outcome.seconds),
    }


def _outcome_lines(project: Project, outcome: Outcome, *, dry_run: bool) -> list[str]:
    settings, version = project.settings, outcome.plan.manifest.version
    if dry_run:
        return [f"{version} would be published into {settings.fqrn}; every check passed, nothing was changed."]
    if outcome.copy and outcome.published is None:
        return [f"{version} was published already; it has now been read back, and every kernel works."]
    if outcome.published is None:
        revision = outcome.revision.number
        return [f"{version} is published in {settings.fqrn} as it is: nothing to do (revision {revision})."]
    done = outcome.published
    return [
        f"Release {version} is revision {done.revision.number} of {settings.fqrn}.",
        f"  Channel {outcome.channel} is at it: {settings.prefix}/channels/{outcome.channel}",
        f"  {done.files:,} files, {done.read_bytes / 1e6:,.0f} MB, were read in {done.seconds:.1f} s.",
        f"  {done.objects:,} new objects, {done.stored_bytes / 1e6:,.0f} MB, were stored.",
        *([f"  The transaction was open for {done.open_seconds:.1f} s."] if done.open_seconds else []),
        *(f"  Note: {text}." for text in done.notes),
        "  Every kernel was started from the staged tree and from what was published.",
        "What to do next:",
        f"  {'afpub serve':<36} serve {settings.fqrn} to CVMFS clients",
        f"  {f'afpub site jupyter {outcome.channel}':<36} the line that a site adds",
        f"  {f'afpub rollback {outcome.channel}':<36} go back to the release before",
    ]


def _promote(app: typer.Typer) -> None:
    @command(app)
    def promote(
        session: Session,
        release: Annotated[str, typer.Argument(help="A published release.")],
        channel: Annotated[str, typer.Argument(help="The channel to move; made when it is new.")],
        wait: Wait = 0.0,
        recover: Recover = False,
    ) -> None:
        """Move a channel to a release that is published already."""
        project = session.project()
        backend = ready_backend(session, project, wait_s=wait, recover=recover)

        def move() -> Published:
            state = read_state(backend.read, fqrn=project.settings.fqrn, prefix=project.settings.prefix)
            return move_to(backend, state, release, ChannelName(channel), mtime_s=int(now().timestamp()))

        moved = from_newest(wait, move)
        _tell_move(session, channel, release, moved.revision.number, new=moved.new)


def _rollback(app: typer.Typer) -> None:
    @command(app)
    def rollback(
        session: Session,
        channel: Annotated[str, typer.Argument(help="The channel to move back.")],
        wait: Wait = 0.0,
        recover: Recover = False,
    ) -> None:
        """Move a channel back to the release before the current one."""
        project = session.project()
        backend = ready_backend(session, project, wait_s=wait, recover=recover)

        def move() -> tuple[Published, str]:
            state = read_state(backend.read, fqrn=project.settings.fqrn, prefix=project.settings.prefix)
            return move_back(backend, state, ChannelName(channel), mtime_s=int(now().timestamp()))

        moved, release = from_newest(wait, move)
        _tell_move(session, channel, release, moved.revision.number, new=moved.new)


def _retire(app: typer.Typer) -> None:
    @command(app)
    def retire(
        session: Session,
        release: Annotated[str, typer.Argument(help="A published release that no channel is at.")],
        successor: Annotated[str, typer.Option(help="The release that takes its place; users are told.")] = "",
        reason: Annotated[str, typer.Option(help="A sentence for users.")] = "",
        wait: Wait = 0.0,
        recover: Recover = False,
    ) -> None:
        """Take a release out of use: its kernels tell users so, images that only it used are removed."""
        project = session.project()
        backend = ready_backend(session, project, wait_s=wait, recover=recover)
        state = read_state(backend.read, fqrn=project.settings.fqrn, prefix=project.settings.prefix)
        done = retire_release(
            backend, state, release, successor=successor, reason=reason, mtime_s=int(now().timestamp())
        )
        text = f"release {release} is retired, revision {done.revision.number}"
        session.screen.result(
            {"release": release, "successor": successor, "revision": done.revision.number, "new": done.new},
            lines=(f"{text}; 'afpub repo gc' frees what nothing needs any more",)
            if done.new
            else (f"{text}: it was so already",),
        )


def _tell_move(session: Session, channel: str, release: str, revision: int, *, new: bool) -> None:
    text = f"channel {channel} is at release {release}, revision {revision}"
    session.screen.result(
        {"channel": channel, "release": release, "revision": revision, "new": new},
        lines=(text if new else f"{text}: it was there already",),
    )
