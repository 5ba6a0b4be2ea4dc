"""Commands that look at what is published: list, show, verify, export, site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher.cli import sessions
from publisher.cli.common import Session, command
from publisher.cli.places import find_place
from publisher.cvmfs.export import export as export_tree
from publisher.cvmfs.reader import Reader
from publisher.errors import UsageError
from publisher.names import ChannelName, Fqrn, RepoPath
from publisher.project.settings import find_project, load_settings
from publisher.records.compare import compare
from publisher.records.release import ReleaseRecord
from publisher.release.layout import JUPYTER
from publisher.release.state import PublishedState, find_prefix, read_state
from publisher.release.verify import reader_view, verify_record
from publisher.sites.jupyter import jupyter_site

From = Annotated[str, typer.Option("--from", help="Folder or address of a repository; default: the project's.")]
Key = Annotated[Path | None, typer.Option("--key", help="Public key of the repository (FQRN.pub).")]
Prefix = Annotated[str, typer.Option(help="Folder of the repository below which afpub publishes.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for register_one in (_list, _show, _diff, _verify, _export, _site):
        register_one(app)


def read_bytes(reader: Reader, path: RepoPath) -> bytes | None:
    """A small published file, or None."""
    return None if reader.lookup(path) is None else b"".join(reader.read(path))


def _state(session: Session, reader: Reader, prefix: str) -> PublishedState:
    def read(path: RepoPath) -> bytes | None:
        return read_bytes(reader, path)

    def listing(path: RepoPath) -> tuple[str, ...]:
        return tuple(stored.entry.name for stored in reader.listdir(path))

    root = find_project(session.folder)
    settings = load_settings(root) if root else None
    if prefix:
        chosen = RepoPath(prefix)
    elif settings is not None and settings.fqrn == reader.fqrn:
        chosen = settings.prefix
    else:
        chosen = find_prefix(listing, read)
    return read_state(read, fqrn=Fqrn(reader.fqrn), prefix=chosen)


def _list(app: typer.Typer) -> None:
    @command(app, "list")
    def list_(session: Session, source: From = "", key: Key = None, prefix: Prefix = "") -> None:
        """List what is published: releases, channels, images."""
        with find_place(session, source, public_key=key).open(session) as reader:
            index = _state(session, reader, prefix).index
        at = {row.release: row.name for row in index.channels}
        session.screen.table(
            f"{index.fqrn}{index.prefix}",
            ("release", "channel", "published", "kernels", "images"),
            [
                (
                    f"{row.version} (retired)" if row.retired else row.version,
                    ", ".join(item.name for item in index.channels if item.release == row.version),
                    row.created,
                    ", ".join(row.kernels),
                    ", ".join(f"{name} {version}" for name, version in row.images),
                )
                for row in sorted(index.releases, key=lambda row: row.version.order, reverse=True)
            ],
        )
        if not at:
            session.screen.say("nothing is published yet: afpub release MANIFEST")
        session.screen.result(index.to_json())


def _show(app: typer.Typer) -> None:
    @command(app)
    def show(
        session: Session,
        release: Annotated[str, typer.Argument(help="A release, or a channel.")],
        source: From = "",
        key: Key = None,
        prefix: Prefix = "",
    ) -> None:
        """Show a release: its kernels, its images, where they came from, and what they hold."""
        with find_place(session, source, public_key=key).open(session) as reader:
            record = _record(_state(session, reader, prefix), release)
        session.screen.result(record.to_json(), lines=_record_lines(record))
        session.screen.table(
            "",
            ("kernel", "name on the card", "image"),
            [
                (row.name, row.display_name, f"{row.image} {row.image_version}" if row.image else "(none)")
                for row in record.kernels
            ],
        )
        session.screen.table(
            "",
            ("image", "version", "entries", "size", "packages", "digest of the tree"),
            [
                (
                    row.name,
                    row.version,
                    f"{row.entries:,}",
                    f"{row.size_bytes / 1e6:,.0f} MB",
                    f"{len(row.packages)}",
                    row.tree_digest,
                )
                for row in record.images
            ],
        )


def _diff(app: typer.Typer) -> None:
    @command(app)
    def diff(
        session: Session,
        first: Annotated[str, typer.Argument(help="A release, or a channel.")],
        second: Annotated[str, typer.Argument(help="Another one.")],
        source: From = "",
        key: Key = None,
        prefix: Prefix = "",
    ) -> None:
        """Show what is different between two releases: kernels, images, packages."""
        with find_place(session, source, public_key=key).open(session) as reader:
            state = _state(session, reader, prefix)
            before, after = _record(state, first), _record(state, second)
        found = compare(before, after)
        session.screen.table(
            "",
            ("what", "in", "name", before.version, after.version),
            [(row.kind, row.where, row.name, row.before or "-", row.after or "-") for row in found],
        )
        session.screen.result(
            {"first": before.version, "second": after.version, "differences": [row.to_json() for row in found]},
            lines=() if found else (f"{before.version} and {after.version} hold the same",),
        )


def _record_lines(record: ReleaseRecord) -> tuple[str, ...]:
    tools = ", ".join(f"{name} {version}" for name, version in record.tools)
    return (
        f"release {record.version} of {record.fqrn}{record.prefix}, first in channel {record.channel}",
        f"  published {record.created}, made with {tools}",
        f"  {record.notes}" if record.notes else "  no notes",
        "",
    )


def _record(state: PublishedState, release: str) -> ReleaseRecord:
    channel = state.index.channel(release)
    version = channel.release if channel else state.index.require_release(release).version
    return state.record(version)


def _verify(app: typer.Typer) -> None:
    @command(app)
    def verify(
        session: Session,
        release: Annotated[str, typer.Argument(help="A release or channel; all releases by default.")] = "",
        source: From = "",
        key: Key = None,
        prefix: Prefix = "",
    ) -> None:
        """Read back every byte that a client would read, and prove that it is what was released."""
        place = find_place(session, source, public_key=key)
        with place.open(session) as reader, session.screen.progress() as progress:
            state = _state(session, reader, prefix)
            names = [release] if release else [row.version for row in state.index.releases if not row.retired]
            if not names:
                raise UsageError("nothing is published yet", hint="afpub release MANIFEST")
            seen: set[tuple[str, str]] = set()
            report = None
            row = state.index.release(release)
            if row is not None and row.retired:
                raise UsageError(f"the release {release} is retired: its images may be gone")
            for name in names:
                record = _record(state, name)
                new = [row for row in record.images if (row.name, row.version) not in seen]
                seen |= {(row.name, row.version) for row in new}
                progress.step(f"reading back release {record.version}")
                found = verify_record(reader_view(reader), record, images=new)
                report = found if report is None else report + found
            assert report is not None
            revision = reader.revision
        session.screen.report(report)
        session.conclude(report, "what is published is not what was released")
        session.screen.result(
            report.to_json() | {"fqrn": state.index.fqrn, "revision": revision, "releases": names},
            lines=(f"revision {revision} of {state.index.fqrn}: {', '.join(names)} verified",),
        )


def _export(app: typer.Typer) -> None:
    @command(app)
    def export(
        session: Session,
        channel: Annotated[str, typer.Argument(help="A channel.")],
        folder: Annotated[Path, typer.Argument(help="Becomes the copy; made if it is not there.")],
        source: From = "",
        key: Key = None,
        prefix: Prefix = "",
    ) -> None:
        """Make a verified plain copy of a channel, for machines without a CVMFS client."""
        with find_place(session, source, public_key=key).open(session) as reader:
            state = _state(session, reader, prefix)
            row = state.index.require_channel(channel)
            with session.screen.progress() as progress:
                progress.step(f"copying channel {channel}, release {row.release}")
                export_tree(reader, state.index.prefix, folder, progress=progress)
        jupyter = (folder / "channels" / channel / JUPYTER).absolute()
        session.screen.result(
            {"channel": channel, "release": row.release, "folder": f"{folder}", "jupyter_path": f"{jupyter}"},
            lines=(f"release {row.release} is in {folder}", f"  export JUPYTER_PATH={jupyter}"),
        )


def _site(app: typer.Typer) -> None:
    site = typer.Typer(help="What a site includes.", no_args_is_help=True)
    app.add_typer(site, name="site")
    sessions.register_site(site)

    @command(site)
    def jupyter(
        session: Session,
        channel: Annotated[str, typer.Argument(help="The channel that the site follows.")] = "stable",
        mount: Annotated[str, typer.Option(help="Where the site mounts CVMFS.")] = "/cvmfs",
    ) -> None:
        """Print the lines that make the kernels of a channel show in a site's launcher."""
        settings = session.project().settings
        made = jupyter_site(settings.fqrn, settings.prefix, ChannelName(channel), mount=mount)
        session.screen.result(made.to_json(), lines=made.lines())
