#!/usr/bin/env python3
"""What the launcher adds to bare ``apptainer exec``, and kernels beside those of the package envkernel, in one run.

    .venv/bin/python benchmarks/launcher.py [JUPYTER_PATH] [--kernel NAME] [--rounds N] [--envkernel FILE] [--json FILE]

JUPYTER_PATH is that of a published tree in a folder (``make demo`` leaves one); the kernel must be a Python one. The
cases take turns, a round each; medians are given, since other programs disturb single rounds. envkernel is left out
unless its file is named (``pip download envkernel`` brings it): it is no part of this project's environment.
Run inside another container, by an ordinary user, it measures nested starts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from publisher import tools
from publisher.kernels.writes import published_trees

DEMO = Path("build/afpub/published/channels/stable/share/jupyter")
PYTHON = "python3"


def main() -> None:
    """Runs every case in turns and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("jupyter_path", nargs="?", type=Path, default=DEMO)
    parser.add_argument("--kernel", default="pyroot3")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--envkernel", type=Path)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    kernel_dir = chosen.jupyter_path.resolve() / "kernels" / chosen.kernel
    image = published_trees(kernel_dir)[-1]
    with tempfile.TemporaryDirectory(prefix="afpub-bench-") as folder:
        home = Path(folder)
        env = {**os.environ, "HOME": str(home)}
        if os.geteuid() == 0:
            env["APPTAINER_NO_PRIVS"] = "1"  # root may lack capabilities; the launcher asks for none either
        starts = turns(chosen.rounds, overhead(kernel_dir, image, env))
        ready = turns(max(chosen.rounds // 2, 3), kernels(kernel_dir, image, home, env, chosen.envkernel))
    show("start of a program", starts, cpu=True)
    show("kernel ready", ready, cpu=False)
    if chosen.json:
        figures = {"start": starts, "ready": ready}
        rows = {title: {name: asdict(taken) for name, taken in cases.items()} for title, cases in figures.items()}
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n")


def overhead(kernel_dir: Path, image: Path, env: Mapping[str, str]) -> dict[str, Callable[[], object]]:
    """How long it takes until a program has run and ended."""
    bare = ["apptainer", "--silent", "exec", image, "true"]
    clean = ["apptainer", "--silent", "exec", "--cleanenv", image, "true"]
    ours: list[str | Path] = [kernel_dir / "launch", "--run", "true"]
    cases = {"bare apptainer exec": bare, "the same with a clean environment": clean, "launcher": ours}
    shown = {**env, "AFPUB_SHOW": "1"}
    return {
        **{name: lambda words=words: tools.run(words, env=env) for name, words in cases.items()},
        "launcher, up to the start": lambda: tools.run(ours, env=shown),
    }


def kernels(
    kernel_dir: Path, image: Path, home: Path, env: Mapping[str, str], envkernel: Path | None
) -> dict[str, Callable[[], object]]:
    """How long it takes until a kernel answers to the first request."""
    places = {"launcher": (kernel_dir.parent, kernel_dir.name)}
    bare = ["apptainer", "--silent", "exec", str(image), PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": bare, "display_name": "bare", "language": "python"}
    folder = home / "specs/share/jupyter/kernels"
    (folder / "bare").mkdir(parents=True)
    (folder / "bare/kernel.json").write_text(json.dumps(spec))
    places["bare apptainer exec"] = (folder, "bare")
    if envkernel:
        words = [sys.executable, envkernel, "singularity", "--name=envkernel", f"--python={PYTHON}"]
        tools.run([*words, "--display-name=envkernel", "--prefix", home / "specs", image], env=env)
        file = folder / "envkernel/kernel.json"
        text = json.loads(file.read_text())
        if not os.access(text["argv"][0], os.X_OK):  # it names its own file, which pip would have made a program
            text["argv"].insert(0, sys.executable)
            file.write_text(json.dumps(text))
        places["envkernel"] = (folder, "envkernel")
    return {name: lambda place=place: start(*place, env) for name, place in places.items()}


def start(folder: Path, name: str, env: Mapping[str, str]) -> None:
    """Starts a kernel, waits for its answer; the shutdown is not waited for in the figures of others."""
    specs = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    manager = KernelManager(kernel_name=name, kernel_spec_manager=specs)
    with Path(os.devnull).open("wb") as sink:
        manager.start_kernel(env=dict(env), stdout=sink, stderr=sink)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
    finally:
        client.stop_channels()
        _stopping.append(manager)


_stopping: list[KernelManager] = []


@dataclass(slots=True)
class Taken:
    """What a case took in each round, in seconds."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    """Of all processes that had ended by then."""


def turns(rounds: int, cases: Mapping[str, Callable[[], object]]) -> dict[str, Taken]:
    """What every case took in every round; a first round, which fills caches, is not counted."""
    taken = {name: Taken() for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            begun, cpu = time.monotonic(), _cpu_s()
            case()
            if number:
                taken[name].wall_s.append(time.monotonic() - begun)
                taken[name].cpu_s.append(_cpu_s() - cpu)
            while _stopping:
                _stopping.pop().shutdown_kernel(now=True)
    return taken


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(title: str, rows: Mapping[str, Taken], *, cpu: bool) -> None:
    """A table of medians, beside the bare runtime."""
    base = rows["bare apptainer exec"]
    print(f"{title}, {len(base.wall_s)} rounds")
    for name, taken in rows.items():
        print(f"  {name:36}wall {_beside(taken.wall_s, base.wall_s)}")
        if cpu:
            print(f"  {'':36}CPU  {_beside(taken.cpu_s, base.cpu_s)}")


def _beside(seconds: Sequence[float], base: Sequence[float]) -> str:
    median, other = statistics.median(seconds), statistics.median(base)
    spread = f"({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})"
    return f"{1000 * median:6.0f} ms {1000 * (median - other):+5.0f} ms  x {median / other:.2f}  {spread}"


if __name__ == "__main__":
    main()
