"""Commands that keep a repository in order: settings, gc, republish."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Annotated

import typer

from publisher.cli.common import Session, command
from publisher.cli.options import Keys, Repo, Wait
from publisher.cli.places import find_place, now, revision_of
from publisher.cvmfs.adjust import change_settings
from publisher.cvmfs.digest import ObjectKind
from publisher.cvmfs.gc import GRACE, Collection, Revision, collect_garbage, preview_garbage
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.republish import republish as republish_revision
from publisher.cvmfs.settings import read_settings
from publisher.errors import UsageError
from publisher.names import TagName

_KINDS = {
    ObjectKind.FILE: "files",
    ObjectKind.CHUNK: "chunks",
    ObjectKind.CATALOG: "catalogs",
    ObjectKind.HISTORY: "tag databases",
    ObjectKind.CERTIFICATE: "certificates",
    ObjectKind.METAINFO: "metainfos",
}
_DAYS = GRACE.days


def register(repo: typer.Typer) -> None:
    """Adds the commands."""
    _settings(repo)
    _gc(repo)
    _republish(repo)


def _settings(app: typer.Typer) -> None:
    @command(app)
    def settings(
        session: Session,
        values: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE, any number of them.")] = None,
        repo: Repo = "",
    ) -> None:
        """Show how a repository is written, or change it for everything that is published from now on."""
        place = find_place(session, repo)
        storage = place.storage()
        with open_repository(storage) as reader:
            algorithm = reader.manifest.algorithm
        if values:
            change_settings(storage, values, algorithm=algorithm)
        current = dataclasses.asdict(read_settings(storage, algorithm=algorithm))
        session.screen.table("", ("setting", "value"), [(name, _shown(value)) for name, value in current.items()])
        session.screen.result({"repository": storage.where, "settings": current})


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return f"{value}".lower()
    return ",".join(value) if isinstance(value, tuple) else f"{value}"


def _gc(app: typer.Typer) -> None:
    @command(app)
    def gc(
        session: Session,
        repo: Repo = "",
        keys: Keys = None,
        grace: Annotated[
            float, typer.Option(min=0, max=36500, help="Days that a replaced revision without a tag stays.")
        ] = _DAYS,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; change nothing.")] = False,
        enable: Annotated[bool, typer.Option("--enable", help="Declare the repository garbage collectable.")] = False,
        wait: Wait = 0.0,
    ) -> None:
        """Remove revisions without a tag that were replaced long ago, and all objects that nothing needs."""
        if dry_run and enable:
            raise UsageError("a dry run changes nothing", hint="leave --dry-run or --enable out")
        place = find_place(session, repo, keys=keys)
        moment, period = now(), dt.timedelta(days=grace)
        with session.screen.progress() as progress:
            progress.step(f"collecting garbage in {place.location}")

            def tell(phase: str, done: int) -> None:
                progress.advance(done, 256 if phase == "sweeping" else 0, f"{phase}")

            if dry_run:
                done = preview_garbage(place.storage(), now=moment, grace=period, tell=tell)
            else:
                done = collect_garbage(
                    place.storage(),
                    keys_folder=place.key_folder(),
                    now=moment,
                    grace=period,
                    enable=enable,
                    wait_s=wait,
                    tell=tell,
                )
        rows = [(_number(row), _day(row), ", ".join(row.why)) for row in _by_number(done.kept)]
        rows += [(_number(row), _day(row), "goes") for row in _by_number(done.dropped)]
        session.screen.table("", ("revision", "published", "kept for"), rows)
        session.screen.result(_collection_json(done), lines=_collection_lines(done))


def _by_number(rows: tuple[Revision, ...]) -> list[Revision]:
    return sorted(rows, key=lambda row: (row.number or 0, row.added_s))


def _number(row: Revision) -> str:
    return "?" if row.number is None else f"{row.number}"


def _day(row: Revision) -> str:
    return f"{dt.datetime.fromtimestamp(row.added_s, tz=dt.UTC):%Y-%m-%d %H:%M}" if row.added_s else "?"


def _collection_lines(done: Collection) -> list[str]:
    would = "would be " if done.dry_run else ""
    parts = [f"{done.removed[kind]:,} {name}" for kind, name in _KINDS.items() if done.removed.get(kind)]
    detail = f" ({', '.join(parts)})" if parts else ""
    size = f"{done.removed_bytes / 1e6:,.1f} MB"
    return [
        f"{len(done.dropped)} revisions {would}dropped, {len(done.kept)} kept",
        f"{done.objects_removed:,} objects{detail}, {size}, {would}removed; {done.objects_kept:,} kept",
        *([f"{done.temporaries} stale temporary files {would}removed"] if done.temporaries else []),
    ]


def _collection_json(done: Collection) -> dict[str, object]:
    return {
        "dry_run": done.dry_run,
        "kept": [_revision_json(row) for row in _by_number(done.kept)],
        "dropped": [_revision_json(row) for row in _by_number(done.dropped)],
        "objects_kept": done.objects_kept,
        "objects_removed": done.objects_removed,
        "removed_by_kind": {name: done.removed.get(kind, 0) for kind, name in _KINDS.items()},
        "removed_bytes": done.removed_bytes,
        "temporaries": done.temporaries,
        "seconds": done.seconds,
    }


def _revision_json(row: Revision) -> dict[str, object]:
    return {"revision": row.number, "root_hash": f"{row.root}", "published_s": row.added_s, "why": list(row.why)}


def _republish(app: typer.Typer) -> None:
    @command(app)
    def republish(
        session: Session,
        revision: Annotated[str, typer.Argument(help="A tag, revision number or root digest.")],
        repo: Repo = "",
        keys: Keys = None,
        tag: Annotated[str, typer.Option(help="Name of the new revision.")] = "",
        wait: Wait = 0.0,
    ) -> None:
        """Make the tree of an earlier revision the newest one again, all of it, as a new revision."""
        place = find_place(session, repo, keys=keys)
        done = republish_revision(
            place.storage(),
            revision_of(revision),
            keys_folder=place.key_folder(),
            now=now(),
            tag=TagName(tag) if tag else None,
            description=f"republish_{revision}",
            wait_s=wait,
        )
        text = f"the tree of {revision} is revision {done.revision}"
        session.screen.result(
            {"revision": done.revision, "root_hash": f"{done.root.digest}", "new": done.changed},
            lines=(text if done.changed else f"{text} already: nothing to do",),
        )
