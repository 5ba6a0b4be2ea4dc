"""What a release has done so far, kept below the work folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from publisher.backends.base import Published, Revision
from publisher.progress import Progress
from publisher.records.release import ReleaseRecord
from publisher.release.plan import ReleasePlan


class Journal:
    """One file a step in ``<work>/releases/<version>/``; deleting them costs time, never correctness."""

    def __init__(self, work: Path, plan: ReleasePlan) -> None:
        self._folder = work / "releases" / plan.manifest.version
        self._release = {"fqrn": plan.index.fqrn, "prefix": plan.index.prefix, "digest": plan.digest}

    def verified(self) -> bool:
        """True when this very release was published from here and has been verified."""
        try:
            document = json.loads((self._folder / "verified.json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(document, dict) and document.get("release") == self._release

    def note_staged(self, record: ReleaseRecord) -> None:
        """The release record as it will be published."""
        self._write("staged.json", record.to_json())

    def note_published(self, published: Published) -> None:
        """The revision that was made."""
        self._write("published.json", _revision_json(published.revision))

    def note_verified(self, revision: Revision) -> None:
        """The revision that was read back and found right."""
        self._write("verified.json", _revision_json(revision))

    def _write(self, name: str, document: Mapping[str, object]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f".{name}.new"
        new.write_text(json.dumps({"release": self._release, **document}, indent=1) + "\n", encoding="utf-8")
        new.replace(self._folder / name)


def _revision_json(revision: Revision) -> dict[str, object]:
    return {"revision": revision.number, "root_hash": revision.root_hash}


class Clock:
    """Announces the steps of a release and measures them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: list[tuple[str, float]] = []

    def step(self, text: str) -> None:
        """Ends the step before and begins this one."""
        self._steps.append((text.partition(":")[0], time.monotonic()))
        self._progress.step(text)

    def seconds(self) -> tuple[tuple[str, float], ...]:
        """The steps so far and how long each took."""
        ends = [begun for _, begun in self._steps[1:]] + [time.monotonic()]
        return tuple((name, end - begun) for (name, begun), end in zip(self._steps, ends, strict=True))
