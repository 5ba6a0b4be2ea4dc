"""Starting the kernels of a release from some copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.kernels.probe import ProbeOptions, ProbeResult, probe
from publisher.kernels.session import Depth
from publisher.kernels.targets import Target
from publisher.progress import Progress
from publisher.project.kernel import KernelDefinition
from publisher.release.layout import JUPYTER
from publisher.report import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """What the kernels did."""

    results: tuple[ProbeResult, ...]

    @property
    def report(self) -> Report:
        """All that was found."""
        total = Report()
        for result in self.results:
            total += result.report
        return total


def start_kernels(
    kernels: Sequence[KernelDefinition], release: Path, work: Path, progress: Progress, *, depth: Depth
) -> Started:
    """Starts every kernel, runs its smoke cells, interrupts it, shuts it down, and what else ``depth`` says.

    Args:
        kernels: their definitions.
        release: the folder of the release, staged or exported.
        work: for home folders, connection files and logs.
        progress: hears about each kernel.
        depth: how much each kernel is asked.
    """
    scratch = work / "probe"
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True)
    folder = release / JUPYTER / "kernels"
    targets = [Target(kernel_dir=folder / kernel.name, smoke=kernel.smoke) for kernel in kernels]
    done = 0

    def tell(result: ProbeResult) -> None:
        nonlocal done
        done += 1
        verdict = "works" if result.report.ok else "FAILS"
        progress.line(f"{result.kernel} {verdict}, ready in {result.start_s:.1f} s")
        progress.advance(done, len(targets), "kernels")

    return Started(results=probe(targets, ProbeOptions(scratch=scratch, depth=depth), on_done=tell))
