"""Asking the places what they have, all at once: one that hangs costs no more than the time that it is given."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from publisher.cvmfs.location import source_of
from publisher.cvmfs.reader import Reader, open_repository
from publisher.cvmfs.source import Source, read_file
from publisher.cvmfs.trust import read_whitelist
from publisher.errors import AfpubError, FormatError, NotFoundError, RepositoryError
from publisher.names import Fqrn, RepoPath
from publisher.propagation.places import Place, PlaceKind
from publisher.records.index import INDEX_FILE, Index, parse_index

_SNAPSHOT = ".cvmfs_last_snapshot"
_DATE = "%a %b %d %H:%M:%S %Z %Y"
_INDEX_LIMIT = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What one place has; where nothing is known, why."""

    place: Place
    trouble: str = ""
    """Why the place cannot be counted on; empty when all is well."""
    revision: int = 0
    root_hash: str = ""
    published_s: int = 0
    """When that revision was published, seconds since 1970; 0 where the place cannot tell."""
    snapshot_s: int = 0
    """When a stratum 1 last fetched, seconds since 1970; 0 where it does not tell."""
    whitelist_expires_s: int = 0
    ttl_s: int = 0
    """How long clients may go on with what they know."""
    releases: tuple[str, ...] = ()
    channels: tuple[tuple[str, str], ...] = ()
    """Pairs of channel and release."""

    def to_json(self) -> dict[str, object]:
        """The observation as JSON values; :func:`told_by_site` reads them again."""
        return {
            "kind": self.place.kind.value,
            "name": self.place.name,
            "location": self.place.location,
            "trouble": self.trouble,
            "revision": self.revision,
            "root_hash": self.root_hash,
            "published_s": self.published_s,
            "snapshot_s": self.snapshot_s,
            "whitelist_expires_s": self.whitelist_expires_s,
            "ttl_s": self.ttl_s,
            "releases": list(self.releases),
            "channels": dict(self.channels),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked of every place."""

    fqrn: Fqrn
    prefix: RepoPath
    public_key: bytes | None = None
    """PEM of the public master key; without it signatures are not checked."""
    timeout_s: float = 20.0
    """Longest time for all the answers."""


def ask(question: Question, places: Sequence[Place]) -> tuple[Observation, ...]:
    """What the places have, in their order.

    Threads that are still waiting when the time is up are left behind: a mount whose server is gone can hold its
    caller for minutes, and nothing but the kernel can end that.
    """
    answers: queue.SimpleQueue[tuple[int, Observation]] = queue.SimpleQueue()

    def work(number: int, place: Place) -> None:
        answers.put((number, observe(question, place)))

    for number, place in enumerate(places):
        threading.Thread(target=work, args=(number, place), daemon=True).start()
    silent = f"no answer within {question.timeout_s:g} s"
    found = [Observation(place=place, trouble=silent) for place in places]
    end = time.monotonic() + question.timeout_s
    for _ in places:
        try:
            number, observation = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        found[number] = observation
    return tuple(found)


def observe(question: Question, place: Place) -> Observation:
    """What one place has; what goes wrong is told in the observation."""
    looks: dict[PlaceKind, Callable[[Question, Place], Observation]] = {
        PlaceKind.STRATUM0: _server,
        PlaceKind.STRATUM1: _server,
        PlaceKind.MOUNT: _mount,
        PlaceKind.SITE: _site,
    }
    try:
        return looks[place.kind](question, place)
    except AfpubError as exc:
        return Observation(place=place, trouble=exc.message)
    except OSError as exc:
        return Observation(place=place, trouble=f"cannot read {exc.filename or place.location}: {exc.strerror or exc}")


def _server(question: Question, place: Place) -> Observation:
    with open_repository(place.location, fqrn=question.fqrn, public_key=question.public_key) as reader:
        manifest = reader.manifest
        whitelist, _ = read_whitelist(reader.source)
        return _with_index(
            Observation(
                place=place,
                revision=manifest.revision,
                root_hash=f"{manifest.root}",
                published_s=manifest.published_s,
                snapshot_s=_snapshot_s(reader.source),
                whitelist_expires_s=int(whitelist.expires.timestamp()),
                ttl_s=manifest.ttl_s,
            ),
            _index_bytes(reader, question.prefix),
        )


def _index_bytes(reader: Reader, prefix: RepoPath) -> bytes | None:
    path = f"{prefix}/{INDEX_FILE}"
    return None if reader.lookup(path) is None else b"".join(reader.read(path))


def _with_index(observation: Observation, data: bytes | None) -> Observation:
    if data is None:
        return observation
    index: Index = parse_index(data)
    return replace(
        observation,
        releases=tuple(row.version for row in index.releases),
        channels=tuple((row.name, row.release) for row in index.channels),
    )


def _snapshot_s(source: Source) -> int:
    """The time that ``cvmfs_server snapshot`` leaves behind: the output of ``date --utc``."""
    try:
        text = read_file(source, _SNAPSHOT, limit=1000).decode("ascii", "replace").strip()
        return int(datetime.strptime(text, _DATE).replace(tzinfo=UTC).timestamp())
    except (NotFoundError, RepositoryError, ValueError):
        return 0


def _mount(question: Question, place: Place) -> Observation:
    folder = Path(place.location)
    try:
        next(folder.iterdir(), None)  # what autofs holds back is mounted now
        facts = {name: os.getxattr(folder, f"user.{name}").decode() for name in ("fqrn", "revision", "root_hash")}
    except FileNotFoundError:
        raise NotFoundError(f"{folder} is not there: this machine does not mount {question.fqrn}") from None
    except OSError as exc:
        raise RepositoryError(f"{folder} is no mount of a CVMFS client: {exc.strerror}") from None
    if facts["fqrn"] != question.fqrn or not facts["revision"].isdigit():
        raise RepositoryError(f"{folder} is a mount of {facts['fqrn']}, not of {question.fqrn}")
    index = folder / f"{question.prefix}/{INDEX_FILE}"[1:]
    return _with_index(
        Observation(place=place, revision=int(facts["revision"]), root_hash=facts["root_hash"]),
        index.read_bytes() if index.exists() else None,
    )


def _site(question: Question, place: Place) -> Observation:
    source = source_of(place.location.rpartition("/")[0])
    data = read_file(source, place.location.rpartition("/")[2], limit=_INDEX_LIMIT)
    return told_by_site(data, place, fqrn=question.fqrn)


def told_by_site(data: bytes, place: Place, *, fqrn: Fqrn) -> Observation:
    """What a site tells: the output of ``afpub status --here --json`` on one of its machines.

    Raises:
        FormatError: it is something else, or about another repository.
    """
    try:
        document = json.loads(data)
        if document["fqrn"] != fqrn:
            raise FormatError(f"{place.location} is about {document['fqrn']!r}, not about {fqrn}")
        row = next(item for item in document["places"] if item["kind"] == PlaceKind.MOUNT)
        return Observation(
            place=place,
            trouble=str(row["trouble"]),
            revision=int(row["revision"]),
            root_hash=str(row["root_hash"]),
            releases=tuple(str(item) for item in row["releases"]),
            channels=tuple((str(name), str(release)) for name, release in row["channels"].items()),
        )
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as exc:
        raise FormatError(f"{place.location} is not what 'afpub status --here --json' writes") from exc
