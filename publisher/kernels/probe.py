"""Starts kernels as a Jupyter server does and says what they did."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.kernels.cells import CellResult
from publisher.kernels.session import Depth, Limits, Place, Session, last_lines
from publisher.kernels.targets import Target
from publisher.kernels.writes import changed, published_trees
from publisher.report import Report, collect, error


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """What a probed kernel did."""

    kernel: str
    report: Report
    seconds: Mapping[str, float]
    """What each check took; those that were not reached are missing."""
    cells: tuple[CellResult, ...] = ()
    stderr: str = ""
    """The last lines that the launcher and the kernel wrote on their own stderr."""

    @property
    def start_s(self) -> float:
        """Seconds from the start of the process to the answer to the first request; 0 if none came."""
        return self.seconds.get("start", 0.0)

    @property
    def interrupt_s(self) -> float:
        """Seconds from the interrupt of a sleeping cell to the kernel's next answer; 0 if none came."""
        return self.seconds.get("interrupt", 0.0)

    def to_json(self) -> dict[str, object]:
        """The result as plain JSON values; the report's findings stand elsewhere."""
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        return {"name": self.kernel, "ok": self.report.ok, "seconds": seconds}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeOptions:
    """How kernels are probed."""

    scratch: Path
    """Folder for home folders, connection files and logs; it should be empty."""
    env: Mapping[str, str] | None = None
    """Environment of the server that starts the kernel; None is this process's own. HOME is replaced."""
    runtime_dir: Path | None = None
    """Where connection files go; None is a folder below the kernel's private home, as Jupyter does it."""
    start_timeout_s: float = 180.0
    """Long enough for the first start from a cold CVMFS cache."""
    cell_timeout_s: float = 180.0
    workers: int = 2
    """Kernels that run at a time."""
    depth: Depth = Depth.FEATURES


def probe(
    targets: Sequence[Target],
    options: ProbeOptions,
    *,
    on_done: Callable[[ProbeResult], None] | None = None,
) -> tuple[ProbeResult, ...]:
    """What each kernel did from start to shutdown, in the targets' order; ``docs/kernels.md`` lists the checks.

    A kernel that fails is told in its result's report.

    Args:
        targets: kernels, each in a folder of its name.
        options: how.
        on_done: called as each kernel is through; what it wrote into its release is known later.

    Raises:
        KernelError: a target is no kernelspec that a Jupyter server would list.
    """
    since_s = time.time()
    results = asyncio.run(_probe_all(targets, options, on_done))
    written = {
        tree: changed(tree, since_s=since_s, until_s=time.time())
        for tree in sorted({tree for target in targets for tree in published_trees(target.kernel_dir)})
    }
    return tuple(
        _with_writes(result, {tree: written[tree] for tree in published_trees(target.kernel_dir)})
        for target, result in zip(targets, results, strict=True)
    )


async def _probe_all(
    targets: Sequence[Target], options: ProbeOptions, on_done: Callable[[ProbeResult], None] | None
) -> Iterable[ProbeResult]:
    gate = asyncio.Semaphore(options.workers)

    async def one(target: Target) -> ProbeResult:
        async with gate:
            result = await _probe_one(target, options)
        if on_done:
            on_done(result)
        return result

    return await asyncio.gather(*(one(target) for target in targets))


async def _probe_one(target: Target, options: ProbeOptions) -> ProbeResult:
    scratch = options.scratch / target.name
    home = scratch / "home"
    runtime = options.runtime_dir or home / ".local/share/jupyter/runtime"
    for folder in (home, runtime):
        folder.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    server = os.environ if options.env is None else options.env
    place = Place(
        connection_file=runtime / f"kernel-{uuid.uuid4().hex}.json",
        log=scratch / "stderr.log",
        # a failed start must fail, and not become a kernel that tells why
        env={**server, "HOME": str(home), "AFPUB_PROBE": token, "AFPUB_ON_ERROR": "exit"},
        cwd=home,
        marker=f"AFPUB_PROBE={token}",
    )
    limits = Limits(start_s=options.start_timeout_s, cell_s=options.cell_timeout_s, depth=options.depth)
    session = Session(target, limits)
    await session.live(place)
    stderr = last_lines(place.log)
    return ProbeResult(
        kernel=target.name,
        report=session.report(stderr),
        seconds=session.seconds,
        cells=tuple(session.cells),
        stderr=stderr,
    )


def _with_writes(result: ProbeResult, written: Mapping[Path, tuple[str, ...]]) -> ProbeResult:
    findings = [
        error(
            "writes",
            result.kernel,
            f"{tree / path} was written while the kernel, or another of the same release, ran: it must not change",
            hint="have the program write below HOME or TMPDIR: on CVMFS it would fail",
        )
        for tree, paths in written.items()
        for path in paths
    ]
    return dataclasses.replace(result, report=result.report + collect(findings))
