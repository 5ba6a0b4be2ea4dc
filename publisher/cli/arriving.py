"""Has it arrived? The command ``status``, and the waiting of ``release``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from publisher.cli.common import Session, command
from publisher.cli.places import find_place, now, published_at
from publisher.errors import UsageError
from publisher.names import Fqrn, RepoPath
from publisher.progress import Progress
from publisher.project.settings import PropagationSettings, Settings, find_project, load_settings
from publisher.propagation.client_config import server_urls
from publisher.propagation.judge import Propagation, Quorum, judge
from publisher.propagation.metrics import exposition
from publisher.propagation.observe import Observation, Question, ask
from publisher.propagation.places import Place, PlaceKind, fill, stratum1
from publisher.propagation.wait import Patience, wait_for

_NO_PLACES = "no stratum 1 and no site is known, so there is nothing to wait for"
_NO_PLACES_HINT = "name them: --stratum1 URL, or stratum1 = [...] in the table [propagation] of afpub.toml"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    _status(app)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inquiry:
    """What is asked, of whom, and what is enough."""

    question: Question
    places: tuple[Place, ...]
    release: str
    quorum: Quorum

    def look(self) -> Propagation:
        """One look at all places."""
        return judge(ask(self.question, self.places), release=self.release, quorum=self.quorum)

    @property
    def counts(self) -> bool:
        """True when there is a place that a quorum can be made of."""
        return any(place.kind in {PlaceKind.STRATUM1, PlaceKind.SITE} for place in self.places)


def _status(app: typer.Typer) -> None:
    @command(app)
    def status(
        session: Session,
        release: Annotated[str, typer.Option(help="Release to look for; default: the newest revision.")] = "",
        wait: Annotated[float, typer.Option("--wait", help="Seconds to wait until the quorum has it.")] = 0.0,
        quorum: Annotated[str, typer.Option(help="Number, majority or all; default: the project's.")] = "",
        stratum0: Annotated[str, typer.Option(help="Folder or address of what is published.")] = "",
        stratum1_: Annotated[
            list[str] | None, typer.Option("--stratum1", help="Address, @fqrn@ allowed; may be repeated.")
        ] = None,
        here: Annotated[bool, typer.Option("--here", help="Only the mount of this machine.")] = False,
        fqrn: Annotated[str, typer.Option(help="Repository; default: the project's.")] = "",
        prefix: Annotated[str, typer.Option(help="Folder of the repository below which afpub publishes.")] = "",
        key: Annotated[Path | None, typer.Option("--key", help="Public key of the repository (FQRN.pub).")] = None,
        metrics: Annotated[bool, typer.Option("--metrics", help="Print what Prometheus reads.")] = False,
    ) -> None:
        """Show which revision stratum 0, the stratum 1s, the sites and this machine have, and wait for it."""
        settings = _settings(session)
        name = _fqrn(fqrn, settings)
        own = settings is not None and settings.fqrn == name
        used = settings.propagation if settings is not None and own else PropagationSettings()
        inquiry = Inquiry(
            question=Question(
                fqrn=name,
                prefix=settings.prefix if settings is not None and own and not prefix else RepoPath(prefix),
                public_key=_public_key(key, settings if own else None),
            ),
            places=_here(name, used)
            if here
            else _places(
                name, used, stratum0=stratum0 or _published(session, settings if own else None), more=stratum1_
            ),
            release=release,
            quorum=Quorum(text=quorum or used.quorum),
        )
        if wait and not inquiry.counts:
            raise UsageError(_NO_PLACES, hint=_NO_PLACES_HINT)
        with session.screen.progress() as progress:
            seen = _look_or_wait(inquiry, wait, progress)
        _tell(session, inquiry, seen, waited=wait > 0, metrics=metrics)


def _look_or_wait(inquiry: Inquiry, seconds: float, progress: Progress) -> Propagation:
    progress.step(f"asking {len(inquiry.places)} places about {inquiry.question.fqrn}")

    def on_round(seen: Propagation, left: float) -> None:
        names = ", ".join(row.place.name for row in seen.missing)
        progress.step(f"{seen.what} is not at {names} yet; {left:.0f} s left")

    return wait_for(inquiry.look, Patience(seconds=seconds), on_round=on_round)


def wait_until_there(settings: Settings, release: str, seconds: float, progress: Progress) -> Propagation | None:
    """Waits until the quorum of a project has a release; None where the project names no place to wait for."""
    used = settings.propagation
    inquiry = Inquiry(
        question=Question(fqrn=settings.fqrn, prefix=settings.prefix, public_key=_public_key(None, settings)),
        places=_places(settings.fqrn, used, stratum0=published_at(settings)[0], more=None),
        release=release,
        quorum=Quorum(text=used.quorum),
    )
    return _look_or_wait(inquiry, seconds, progress) if inquiry.counts else None


def _settings(session: Session) -> Settings | None:
    root = find_project(session.folder)
    return load_settings(root) if root else None


def _fqrn(named: str, settings: Settings | None) -> Fqrn:
    if named:
        return Fqrn(named)
    if settings is None:
        raise UsageError("which repository?", hint="name it: --fqrn NAME")
    return settings.fqrn


def _published(session: Session, settings: Settings | None) -> str:
    return find_place(session, "").location if settings is not None else ""


def _public_key(named: Path | None, settings: Settings | None) -> bytes | None:
    if named is not None:
        if not named.is_file():
            raise UsageError(f"there is no public key {named}")
        return named.read_bytes()
    own = published_at(settings)[1] if settings is not None else None
    return own.read_bytes() if own is not None and own.exists() else None


def _here(fqrn: Fqrn, used: PropagationSettings) -> tuple[Place, ...]:
    return (Place(kind=PlaceKind.MOUNT, name="this machine", location=f"{used.mount}/{fqrn}"),)


def _places(fqrn: Fqrn, used: PropagationSettings, *, stratum0: str, more: list[str] | None) -> tuple[Place, ...]:
    published = used.stratum0 or stratum0
    urls = tuple(more or ()) or used.stratum1 or server_urls(fqrn)
    first = (Place(kind=PlaceKind.STRATUM0, name="stratum 0", location=fill(published, fqrn)),) if published else ()
    return (
        *first,
        *(stratum1(url, fqrn) for url in urls),
        *(Place(kind=PlaceKind.SITE, name=name, location=fill(url, fqrn)) for name, url in used.sites),
        *_here(fqrn, used),
    )


def _tell(session: Session, inquiry: Inquiry, seen: Propagation, *, waited: bool, metrics: bool) -> None:
    present = now()
    fqrn = inquiry.question.fqrn
    if metrics:
        text = exposition(seen, fqrn=fqrn)
        session.screen.result({"metrics": text}, lines=text.splitlines())
        return
    report = seen.report(present, final=waited)
    session.screen.table(
        f"{fqrn}, looking for {seen.what}",
        ("place", "", "has it", "revision", "published", "fetched", "newest release"),
        [_row(seen, row, present) for row in seen.observations],
    )
    session.screen.report(report)
    session.conclude(report, f"{fqrn} is not everywhere as it should be")
    session.screen.result(
        {
            "fqrn": fqrn,
            "release": inquiry.release,
            "newest_revision": seen.newest,
            "quorum": inquiry.quorum.text,
            "reached": seen.reached,
            "places": [row.to_json() | {"has_it": seen.has(row)} for row in seen.observations],
            **report.to_json(),
        },
        lines=_lines(seen),
    )


def _lines(seen: Propagation) -> tuple[str, ...]:
    ttl_s = max((row.ttl_s for row in seen.observations), default=0)
    if not seen.counted or not seen.reached:
        return ()
    later = f"; clients see it within {ttl_s} s of that" if ttl_s else ""
    return (f"{seen.what} is at {len(seen.counted) - len(seen.missing)} of {len(seen.counted)} places{later}",)


def _row(seen: Propagation, row: Observation, present: datetime) -> tuple[str, ...]:
    if row.trouble:
        return (row.place.name, row.place.kind.value, "?", "", "", "", "")
    return (
        row.place.name,
        row.place.kind.value,
        "yes" if seen.has(row) else "no",
        f"{row.revision}",
        _ago(row.published_s, present),
        _ago(row.snapshot_s, present),
        row.releases[-1] if row.releases else "",
    )


def _ago(then_s: int, present: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    if not then_s:
        return ""
    seconds = max(0.0, (present - datetime.fromtimestamp(then_s, tz=UTC)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
