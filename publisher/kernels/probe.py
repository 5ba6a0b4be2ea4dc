"""Starts kernels as a Jupyter server does and says what they did."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from publisher.errors import KernelError
from publisher.kernels.cells import CellResult, judge, run_cell, wait_for_cell, wait_for_text
from publisher.kernels.processes import left_over
from publisher.project.kernel import SmokeCell
from publisher.report import Finding, Report, Severity, error, note, warning

_TAIL_LINES = 15
_LEFT_OVER_WAIT_S = 5.0
_INTERRUPT_WAIT_S = 30.0
_SETTLE_S = 1.0
"""The container runtime hands a signal on to the kernel, which had it from the process group already. The second one
does nothing to a kernel that is idle; a message that is being handled meanwhile would be lost."""
_ASLEEP = "asleep"
_SLEEPERS = {
    "python": "import sys, time; sys.stdout.write('asleep\\n'); sys.stdout.flush(); time.sleep(300)",
    "c++": 'std::cout << "asleep" << std::endl; gSystem->Sleep(2000);',
}
"""Cells that print a word and sleep; cling cannot be stopped, so the C++ one ends by itself."""
_INTERRUPTIBLE = frozenset({"python"})
_UNINTERRUPTED = {
    "dead": "the interrupt ended the kernel",
    "timeout": f"the cell went on for {_INTERRUPT_WAIT_S:.0f} s after the interrupt",
    "ok": "the cell ended as if it had not been interrupted",
    "aborted": "the cell was not run",
}
_NOISE = "Kernel is running over TCP without encryption"
"""ipykernel says it at every start over TCP."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A kernel to be probed."""

    kernel_dir: Path
    """Folder with kernel.json; its name is the kernel's name."""
    smoke: tuple[SmokeCell, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """What a probed kernel did."""

    kernel: str
    report: Report
    start_s: float = 0.0
    """Seconds from the start of the process to the answer to the first request."""
    interrupt_s: float = 0.0
    """Seconds from the interrupt of a sleeping cell to the kernel's next answer."""
    cells: tuple[CellResult, ...] = ()
    stderr: str = ""
    """The last lines that the launcher and the kernel wrote on their own stderr."""


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


def probe(
    targets: Sequence[Target],
    options: ProbeOptions,
    *,
    on_done: Callable[[ProbeResult], None] | None = None,
) -> tuple[ProbeResult, ...]:
    """What each kernel did (start, kernel_info, smoke cells, interrupt, shutdown), in the targets' order.

    A kernel that fails is told in its result's report.

    Args:
        targets: kernels, each in a folder of its name.
        options: how.
        on_done: called as each kernel is through.

    Raises:
        KernelError: a target is no kernelspec that a Jupyter server would list.
    """
    return asyncio.run(_probe_all(targets, options, on_done))


async def _probe_all(
    targets: Sequence[Target], options: ProbeOptions, on_done: Callable[[ProbeResult], None] | None
) -> tuple[ProbeResult, ...]:
    gate = asyncio.Semaphore(options.workers)

    async def one(target: Target) -> ProbeResult:
        async with gate:
            result = await _probe_one(target, options)
        if on_done:
            on_done(result)
        return result

    return tuple(await asyncio.gather(*(one(target) for target in targets)))


async def _probe_one(target: Target, options: ProbeOptions) -> ProbeResult:
    scratch = options.scratch / target.kernel_dir.name
    home = scratch / "home"
    runtime = options.runtime_dir or home / ".local/share/jupyter/runtime"
    for folder in (home, runtime):
        folder.mkdir(parents=True, exist_ok=True)
    log = scratch / "stderr.log"
    marker = f"AFPUB_PROBE={uuid.uuid4().hex}"
    session = _Session(target=target, options=options)
    with log.open("wb") as sink:
        await session.run(
            connection_file=runtime / f"kernel-{uuid.uuid4().hex}.json",
            sink=sink,
            env={
                **(os.environ if options.env is None else options.env),
                "HOME": str(home),
                **_variable(marker),
            },
            cwd=home,
        )
    await session.check_left_over(marker)
    return session.result(log)


class _Session:
    """One kernel from start to shutdown; findings and times are collected on the way."""

    def __init__(self, *, target: Target, options: ProbeOptions) -> None:
        self._target = target
        self._options = options
        self._spec = _spec(target.kernel_dir)
        self._findings: list[Finding] = []
        self._cells: list[CellResult] = []
        self._start_s = 0.0
        self._interrupt_s = 0.0
        self._pid = 0

    async def run(self, *, connection_file: Path, sink: IO[bytes], env: Mapping[str, str], cwd: Path) -> None:
        """Starts the kernel, does everything with it that goes on, and shuts it down."""
        manager = AsyncKernelManager(
            kernel_name=self._target.kernel_dir.name,
            kernel_spec_manager=_specs(self._target.kernel_dir),
            connection_file=str(connection_file),
        )
        begun = time.monotonic()
        try:
            await manager.start_kernel(env=env, cwd=str(cwd), stdout=sink, stderr=sink)
        except OSError as exc:
            self._fail("kernel-start", f"{exc.filename or self._spec.argv[0]} cannot be run: {exc.strerror}")
            return
        self._pid = int(manager.provisioner.pid)  # type: ignore[union-attr] # started, so there is one
        client = manager.client()
        client.start_channels()
        try:
            if await self._wait_until_ready(client, begun):
                await self._check_info(client)
                if await self._run_smoke_cells(client):
                    await self._check_interrupt(manager, client)
        finally:
            client.stop_channels()
            await self._shut_down(manager)

    async def _wait_until_ready(self, client: AsyncKernelClient, begun: float) -> bool:
        try:
            await client.wait_for_ready(timeout=self._options.start_timeout_s)
        except RuntimeError:
            waited = time.monotonic() - begun
            ended = "did not answer" if waited >= self._options.start_timeout_s else "ended"
            self._fail("kernel-start", f"the kernel did not start: it {ended} after {waited:.1f} s")
            return False
        self._start_s = time.monotonic() - begun
        self._findings.append(note("kernel-start", self._name, f"ready in {self._start_s:.1f} s"))
        return True

    async def _check_info(self, client: AsyncKernelClient) -> None:
        reply = await client.kernel_info(reply=True, timeout=self._options.cell_timeout_s)
        told = str(reply["content"].get("language_info", {}).get("name", ""))
        if told.lower() != self._spec.language.lower():
            self._fail("kernel-info", f"the kernel speaks {told!r}, kernel.json says {self._spec.language!r}")

    async def _run_smoke_cells(self, client: AsyncKernelClient) -> bool:
        """False when the kernel is of no use any more."""
        for number, cell in enumerate(self._target.smoke, 1):
            result = await run_cell(client, cell.code, timeout_s=self._options.cell_timeout_s)
            self._cells.append(result)
            if fault := judge(cell, result, number=number):
                self._fail("smoke-cell", fault)
            if result.status in {"dead", "timeout"}:
                return False
        return True

    async def _check_interrupt(self, manager: AsyncKernelManager, client: AsyncKernelClient) -> None:
        """A sleeping cell ends early where the language allows it, and the kernel answers afterwards."""
        code = _SLEEPERS.get(self._spec.language.lower(), "")
        begun = time.monotonic()
        message = client.execute(code, allow_stdin=False)
        if code and not await wait_for_text(client, message, _ASLEEP, timeout_s=_INTERRUPT_WAIT_S):
            self._fail("interrupt", "the cell to be interrupted did not run")
            return
        asleep = time.monotonic()
        await manager.interrupt_kernel()
        if self._spec.language.lower() in _INTERRUPTIBLE:
            result = await wait_for_cell(client, message, code=code, deadline=asleep + _INTERRUPT_WAIT_S, begun=begun)
            if result.status != "error":
                self._fail("interrupt", _UNINTERRUPTED[result.status])
                return
        self._interrupt_s = time.monotonic() - asleep
        await asyncio.sleep(_SETTLE_S)
        await self._check_alive(client)

    async def _check_alive(self, client: AsyncKernelClient) -> None:
        """The answer comes after the interrupted cell's own, which cling's kernel does not always send."""
        try:
            await client.kernel_info(reply=True, timeout=_INTERRUPT_WAIT_S)
        except TimeoutError:
            self._fail("interrupt", "the kernel does not answer after the interrupt")

    async def _shut_down(self, manager: AsyncKernelManager) -> None:
        begun = time.monotonic()
        alive = await manager.is_alive()
        await manager.shutdown_kernel()
        if alive and time.monotonic() - begun > manager.shutdown_wait_time:
            message = f"it was killed: it did not end within {manager.shutdown_wait_time:.0f} s of the request"
            self._findings.append(warning("shutdown", self._name, message))

    async def check_left_over(self, marker: str) -> None:
        """Finds processes that outlive the kernel."""
        if not self._pid:
            return
        found = await asyncio.to_thread(left_over, self._pid, marker=marker, wait_s=_LEFT_OVER_WAIT_S)
        for process in found:
            self._fail("shutdown", f"the process {process.pid} is left behind: {process.command[:200]}")

    def result(self, log: Path) -> ProbeResult:
        """What was found; messages of failures get the last lines of the kernel's own stderr."""
        tail = _tail(log)
        shown = tail.replace("\n", "\n    ") or "(nothing)"
        findings = tuple(
            dataclasses.replace(finding, message=f"{finding.message}\n  last lines of the kernel's stderr: {shown}")
            if finding.severity is Severity.ERROR
            else finding
            for finding in self._findings
        )
        return ProbeResult(
            kernel=self._name,
            report=Report(findings=findings),
            start_s=self._start_s,
            interrupt_s=self._interrupt_s,
            cells=tuple(self._cells),
            stderr=tail,
        )

    @property
    def _name(self) -> str:
        return self._target.kernel_dir.name

    def _fail(self, check: str, message: str) -> None:
        self._findings.append(error(check, self._name, message))


def _specs(kernel_dir: Path) -> KernelSpecManager:
    return KernelSpecManager(kernel_dirs=[str(kernel_dir.parent)], ensure_native_kernel=False)


def _spec(kernel_dir: Path) -> KernelSpec:
    """The kernelspec as a Jupyter server reads it."""
    try:
        return _specs(kernel_dir).get_kernel_spec(kernel_dir.name)
    except (NoSuchKernel, ValueError) as exc:
        raise KernelError(f"{kernel_dir} is no kernelspec that a Jupyter server lists", detail=str(exc)) from exc


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if _NOISE not in line]
    return "\n".join(lines[-_TAIL_LINES:])


def _variable(assignment: str) -> dict[str, str]:
    name, _, value = assignment.partition("=")
    return {name: value}
