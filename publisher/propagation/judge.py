"""Who has what was published, who is behind, and whether that is enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from publisher.errors import UsageError
from publisher.propagation.observe import Observation
from publisher.propagation.places import COUNTED, PlaceKind
from publisher.report import Finding, Report, collect, error, warning

_WHITELIST_S = 7 * 86400
"""How long before its end a whitelist is worth a word; it is valid for 30 days."""
_ALL, _MAJORITY = "all", "majority"


@dataclass(frozen=True, kw_only=True, slots=True)
class Quorum:
    """How many of the places must have it: a number, ``majority`` or ``all``."""

    text: str

    def __post_init__(self) -> None:
        if self.text not in {_ALL, _MAJORITY} and not (self.text.isdigit() and int(self.text) > 0):
            raise UsageError(f"{self.text!r} is no quorum", hint="give a number above 0, 'majority' or 'all'")

    def needed(self, places: int) -> int:
        """How many of so many places."""
        if self.text == _ALL:
            return places
        return places // 2 + 1 if self.text == _MAJORITY else min(int(self.text), places)


@dataclass(frozen=True, kw_only=True, slots=True)
class Propagation:
    """What all places have, seen against what was published."""

    release: str
    """The release that is looked for; empty: the newest revision of the stratum 0."""
    observations: tuple[Observation, ...]
    quorum: Quorum

    @property
    def newest(self) -> int:
        """The revision that the stratum 0 has, or the newest that was seen where it was not asked."""
        own = [row.revision for row in self.observations if row.place.kind is PlaceKind.STRATUM0]
        return max(own or [row.revision for row in self.observations], default=0)

    def has(self, row: Observation) -> bool:
        """True when what is looked for is at that place."""
        if row.trouble:
            return False
        return self.release in row.releases if self.release else row.revision >= self.newest > 0

    @property
    def counted(self) -> tuple[Observation, ...]:
        """The places that the quorum is about."""
        return tuple(row for row in self.observations if row.place.kind in COUNTED)

    @property
    def missing(self) -> tuple[Observation, ...]:
        """Those of them that do not have it."""
        return tuple(row for row in self.counted if not self.has(row))

    @property
    def reached(self) -> bool:
        """True when enough of them have it."""
        return len(self.counted) - len(self.missing) >= self.quorum.needed(len(self.counted))

    @property
    def what(self) -> str:
        """What is looked for, in words."""
        return f"release {self.release}" if self.release else f"revision {self.newest}"

    def report(self, now: datetime, *, final: bool = False) -> Report:
        """What is not as it should be.

        Args:
            now: the present.
            final: the quorum is an error, not a warning, when it is not reached.
        """
        return collect(self._findings(now, final=final))

    def _findings(self, now: datetime, *, final: bool) -> Iterator[Finding]:
        for row in self.observations:
            if row.trouble:
                yield warning("unreachable", row.place.name, row.trouble)
            else:
                yield from _whitelist(row, now)
                yield from self._strange(row)
        if not self.reached:
            names = ", ".join(row.place.name for row in self.missing)
            needed = self.quorum.needed(len(self.counted))
            have = len(self.counted) - len(self.missing)
            told = error if final else warning
            yield told(
                "quorum",
                self.what,
                f"{have} of {len(self.counted)} places have it, {needed} are needed; missing: {names}",
                hint="stratum 1s fetch by themselves, every few minutes: wait, or ask their operators",
            )

    def _strange(self, row: Observation) -> Iterator[Finding]:
        """A copy can be behind; what it can never be is different."""
        base = next((item for item in self.observations if item.place.kind is PlaceKind.STRATUM0), None)
        if base is None or base.trouble or row is base:
            return
        if row.revision > base.revision:
            yield error(
                "ahead",
                row.place.name,
                f"it has revision {row.revision}, the stratum 0 only {base.revision}",
                hint="the stratum 0 was put back to an earlier state, or this is a copy of another one",
            )
        elif row.revision == base.revision and row.root_hash != base.root_hash:
            yield error(
                "different",
                row.place.name,
                f"its revision {row.revision} has the root catalog {row.root_hash}, the stratum 0's {base.root_hash}",
                hint="two publishers have signed the same revision: publish once more and find the second one",
            )


def _whitelist(row: Observation, now: datetime) -> Iterator[Finding]:
    left_s = row.whitelist_expires_s - now.timestamp()
    if not row.whitelist_expires_s or left_s > _WHITELIST_S:
        return
    day = datetime.fromtimestamp(row.whitelist_expires_s, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    if left_s <= 0:
        yield error("whitelist", row.place.name, f"its whitelist expired on {day}", hint="afpub keys resign")
    else:
        yield warning("whitelist", row.place.name, f"its whitelist expires on {day}", hint="afpub keys resign")


def judge(observations: Sequence[Observation], *, release: str, quorum: Quorum) -> Propagation:
    """The observations against a release, or against the newest revision when none is named."""
    return Propagation(release=release, observations=tuple(observations), quorum=quorum)
