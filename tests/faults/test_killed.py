"""Whatever is killed wherever: the repository is the old one or the new one, and the next publish repairs nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import file, graft, later

from publisher import tools
from publisher.names import TagName

HERE = Path(__file__).parent
BETWEEN = ["the digest of the reflog is not that in the manifest"]
"""What dies between reflog and manifest leaves a reflog that knows more, or less; a warning says so."""
KEYS = [f"{repository.FQRN}.{suffix}" for suffix in ("crt", "key", "masterkey", "pub")]


@pytest.fixture
def killed(tmp_path):
    """A function that kills an operation at every step, one copy of a repository after the other."""

    def run(operation: str) -> list[dict]:
        made = repository.make(tmp_path / "repo")
        for number in range(3):
            made.publish(
                graft("/sw/one", file("f", b"one %d" % number), catalogs=("",)),
                graft("/sw/two", file("f", b"two %d" % number), file("n/f", b"n"), catalogs=("", "n")),
                tag=TagName("good") if number == 1 else None,
                at=later(-60 + number),
            )
        shutil.copytree(made.keys, tmp_path / "keys")
        path = os.pathsep.join((str(HERE.parent), str(HERE.parent.parent)))
        argv = [sys.executable, HERE / "killer.py", operation, tmp_path]
        lines = tools.run(argv, env={**os.environ, "PYTHONPATH": path}, timeout_s=900).stdout.splitlines()
        results = [json.loads(line) for line in lines]
        assert [result["killed"] for result in results] == [True] * (len(results) - 1) + [False]
        return results

    return run


@pytest.mark.parametrize(
    ("operation", "least", "both"),
    [
        ("publish", 60, True),
        ("workers", 6, True),
        ("tag", 20, True),
        ("untag", 20, True),
        ("republish", 25, True),
        ("collect", 20, False),
        ("resign", 5, False),
        ("rotate", 30, False),
        ("finish", 20, False),
        ("create", 40, True),
    ],
)
def test_killed_at_every_step(killed, operation, least, both):
    results = killed(operation)
    assert len(results) > least
    old, new = results[0]["after"], results[-1]["after"]
    states = [state(old)] + [state(new)] * (state(new) != state(old))
    assert len(states) == 1 + both
    for result in results:
        after, end, steps = result["after"], result["end"], result["steps"]
        assert state(after) in states, steps
        assert after["errors"] == [], steps
        assert after["warnings"] in ([], BETWEEN), steps
        assert state(end) == state(results[-1]["end"]), steps
        assert (end["errors"], end["warnings"], result["left"]) == ([], [], []), steps
        assert result["keys"] == results[-1]["keys"], steps
    assert {json.dumps(state(result["after"])) for result in results} == {json.dumps(each) for each in states}
    if operation == "collect":
        assert {tuple(result["objects"]) for result in results} == {tuple(results[-1]["objects"])}
    if operation != "rotate":
        assert results[-1]["keys"] == KEYS


def state(seen: dict) -> list:
    """What clients see; root digests hold the time of a publish."""
    return [seen["tree"], seen.get("tags", [])]


def test_a_repair_that_is_killed_is_finished_by_the_next_one(killed):
    results = killed("repair")
    assert len(results) > 30
    for result in results:
        assert (result["end"]["errors"], result["end"]["warnings"], result["left"]) == ([], [], []), result["steps"]
        assert state(result["end"]) == state(results[-1]["after"]), result["steps"]
    assert results[-1]["after"]["errors"] == []
