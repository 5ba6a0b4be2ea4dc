#!/usr/bin/env python3
"""How fast the embedded back-end publishes, as ratios in one run.

    .venv/bin/python benchmarks/publish.py [FOLDER] [--rounds N]

The folder (by default the Python packages of this virtual environment) is read and hashed once by plain Python,
which is the bound that no publisher can beat without knowing the files, and then published into a new repository:
for the first time, again with all times new, and again with one file changed. Where the demonstration has been
released, the share of publishing in that release is shown too.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import shutil
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from publisher.cvmfs.create import create_repository
from publisher.cvmfs.keys import create_keys
from publisher.cvmfs.publish import publish
from publisher.cvmfs.settings import Settings
from publisher.names import Fqrn, RepoPath
from publisher.project.settings import CatalogBounds
from publisher.staging.catalogs import split_tree
from publisher.staging.normalize import Policy, normalize
from publisher.tree import FolderTree, Graft

FQRN = Fqrn("bench.afpub.example")


def timed(action: Callable[[], object]) -> tuple[float, float, object]:
    """Wall seconds, processor seconds, and what the action gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def read_and_hash(folder: Path) -> tuple[int, int]:
    """Files and bytes of a folder, each read and hashed once."""
    files = size = 0
    for top, _, names in os.walk(folder):
        for name in names:
            path = Path(top, name)
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                hashlib.sha1(data).digest()
                files, size = files + 1, size + len(data)
    return files, size


def publish_folder(repository: Path, keys: Path, folder: Path) -> object:
    """One publish of a folder."""
    entries = normalize(FolderTree(folder=folder), where="bench", policy=Policy()).entries
    catalogs = split_tree(entries, CatalogBounds()).catalogs
    graft = Graft(at=RepoPath("/bench/tree"), tree=entries, catalogs=catalogs)
    return publish(repository, keys_folder=keys, now=dt.datetime.now(tz=dt.UTC), grafts=(graft,))


def one_round(source: Path, work: Path) -> dict[str, tuple[float, float, object]]:
    """All measurements, each after the other."""
    folder, repository, keys = work / "tree", work / "repository", work / "keys"
    shutil.copytree(source, folder, symlinks=True)
    now = dt.datetime.now(tz=dt.UTC)
    create_keys(FQRN, keys, now=now)
    create_repository(repository, FQRN, keys_folder=keys, settings=Settings(), now=now)
    rows = {"read and hash": timed(lambda: read_and_hash(folder))}
    rows["first publish"] = timed(lambda: publish_folder(repository, keys, folder))
    for top, _, names in os.walk(folder):
        for name in names:
            os.utime(Path(top, name), follow_symlinks=False)
    rows["all times new"] = timed(lambda: publish_folder(repository, keys, folder))
    (folder / "changed").write_bytes(b"one more file\n")
    rows["one file more"] = timed(lambda: publish_folder(repository, keys, folder))
    shutil.rmtree(work)
    return rows


def show(rounds: list[dict[str, tuple[float, float, object]]]) -> None:
    """Prints medians and their ratios to reading and hashing."""
    files, size = rounds[0]["read and hash"][2]  # type: ignore[misc] # what read_and_hash gives
    print(f"{files:,} files, {size / 1e6:,.0f} MB, {len(rounds)} rounds, medians\n")
    print(f"{'':<16}{'wall':>9}{'cpu':>9}{'files/s':>10}{'MB/s':>8}{'x bound':>9}")
    bound = statistics.median(row["read and hash"][0] for row in rounds)
    for name in rounds[0]:
        wall = statistics.median(row[name][0] for row in rounds)
        cpu = statistics.median(row[name][1] for row in rounds)
        print(
            f"{name:<16}{wall:>8.2f}s{cpu:>8.2f}s{files / wall:>10,.0f}{size / 1e6 / wall:>8,.0f}{wall / bound:>9.2f}"
        )


def show_share(outcome: Path) -> None:
    """Prints what publishing takes of a whole release."""
    if not outcome.exists():
        print(f"\nno release to look at: {outcome} is not there (make demo makes it)")
        return
    seconds = json.loads(outcome.read_text())["seconds"]
    total = sum(seconds.values())
    if not total:
        print(f"\n{outcome} is of a run that had nothing to do")
        return
    print(f"\nsteps of the last release, {total:.0f} s in all")
    for name, value in seconds.items():
        print(f"{name:<32}{value:>8.1f}s{100 * value / total:>6.1f} %")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_path("purelib")))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rounds = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(prefix="afpub-bench-") as work:
            rounds.append(one_round(given.folder, Path(work) / "round"))
    show(rounds)
    show_share(Path("build/demo/release.json"))


if __name__ == "__main__":
    main()
