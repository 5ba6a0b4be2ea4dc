"""One kernel from start to shutdown, as a Jupyter server leads it; what it does is judged on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from publisher.kernels.cells import CellResult, judge, run_cell, send_cell, wait_for_cell, wait_for_text
from publisher.kernels.features import FEATURES, SAMPLES, debugger
from publisher.kernels.processes import left_over, now_s
from publisher.kernels.targets import Target, read_spec, specs
from publisher.report import Finding, Report, Severity, error, note, warning

_TAIL_LINES = 15
_LEFT_OVER_WAIT_S = 5.0
_INTERRUPT_WAIT_S = 30.0
_SETTLE_S = 1.0
"""The container runtime hands a signal on to the kernel, which had it from the process group already. The second one
does nothing to a kernel that is idle; a message that is being handled meanwhile would be lost."""
_ASLEEP = "asleep"
SLEEPERS = {
    "python": """import sys, time
sys.stdout.write('asleep\\n')
sys.stdout.flush()
for _ in range(3000):
    time.sleep(0.1)
""",
    "c++": 'std::cout << "asleep" << std::endl; gSystem->Sleep(2000);',
}
"""Cells that print a word and sleep; cling cannot be stopped, so the C++ one ends by itself. Python sleeps for moments
only: a signal that comes just before it falls asleep does not wake it, which happens on a busy machine."""
_INTERRUPTIBLE = frozenset({"python"})
_UNINTERRUPTED = {
    "dead": "the interrupt ended the kernel",
    "timeout": f"the cell went on for {_INTERRUPT_WAIT_S:.0f} s after the interrupt",
    "ok": "the cell ended as if it had not been interrupted",
    "aborted": "the cell was not run",
}
_STATE = {"python": ("afpub_state = 1", "afpub_state")}
"""A cell that leaves something behind, and one that must fail once the kernel has been restarted."""
_NOISE = "Kernel is running over TCP without encryption"
"""ipykernel says it at every start over TCP."""
_PACKAGES = "the kernel's packages in the image may not fit together: 'python -m pip check' there tells"
_MENDS = {
    "kernel-start": "mend what the kernel wrote on stderr; with AFPUB_SHOW=1 its launch prints the whole command",
    "kernel-info": "set 'language' in kernel.toml to what the kernel says: notebooks fall back by it",
    "smoke-cell": "run the cell in a notebook; mend the image, or what the cell expects in kernel.toml",
    "output": _PACKAGES,
    "stdin": _PACKAGES,
    "completion": _PACKAGES,
    "inspection": _PACKAGES,
    "debugger": "install debugpy in the image, or set debugger = false in kernel.toml",
    "interrupt": "set interrupt_mode in kernel.toml to the other of signal and message",
    "restart": "start the kernel in a terminal twice: something of the first run may be in the way of the second",
    "shutdown": "end it with kill; a program that a set-up file starts must end with the kernel",
}


class Depth(IntEnum):
    """How much a kernel is asked; each includes what stands before it."""

    LIFE = 1
    """Start, kernel_info, smoke cells, interrupt, shutdown."""
    FEATURES = 2
    """Kinds of output, questions, completion, help: a second or two for Python."""
    ALL = 3
    """Debugger and restart: another start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long a kernel may take, in seconds, and how much it is asked."""

    start_s: float
    cell_s: float
    depth: Depth


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a kernel is started."""

    connection_file: Path
    log: Path
    """Gets the kernel's own stdout and stderr."""
    env: Mapping[str, str]
    cwd: Path
    marker: str
    """A variable of ``env`` and its value, by which processes are recognized that left the kernel's session."""


class Session:
    """One kernel's life; findings and times are collected on the way."""

    def __init__(self, target: Target, limits: Limits) -> None:
        self._target = target
        self._limits = limits
        self._spec = read_spec(target.kernel_dir)
        self._language = self._spec.language.lower()
        self._findings: list[Finding] = []
        self._pids: list[int] = []
        self._begun_s = now_s()
        self.cells: list[CellResult] = []
        self.seconds: dict[str, float] = {}
        """What each check took; ``start``: to the answer to the first request, ``interrupt``: from the interrupt of a
        sleeping cell to the next answer."""

    async def live(self, place: Place) -> None:
        """Starts the kernel, does everything with it that goes on, shuts it down, looks for what it left."""
        with place.log.open("wb") as sink:
            await self._run(place, sink)
        for pid in self._pids:
            await self._check_left_over(pid, place.marker)

    async def _run(self, place: Place, sink: IO[bytes]) -> None:
        manager = AsyncKernelManager(
            kernel_name=self._target.name,
            kernel_spec_manager=specs(self._target.kernel_dir),
            connection_file=str(place.connection_file),
        )
        begun = time.monotonic()
        try:
            await manager.start_kernel(env=place.env, cwd=str(place.cwd), stdout=sink, stderr=sink)
        except OSError as exc:
            self._fail("kernel-start", f"{exc.filename or self._spec.argv[0]} cannot be run: {exc.strerror}")
            return
        self._note_pid(manager)
        client = manager.client()
        client.start_channels()
        try:
            if await self._wait_until_ready(client, begun):
                await self._use(manager, client)
        finally:
            client.stop_channels()
            await self._shut_down(manager)

    async def _use(self, manager: AsyncKernelManager, client: AsyncKernelClient) -> None:
        """Everything between start and shutdown; ends early when the kernel is of no use any more."""
        await self._check_info(client)
        if not await self._run_smoke_cells(client):
            return
        if self._limits.depth >= Depth.FEATURES:
            await self._check_features(client)
        if not await self._check_interrupt(manager, client):
            return
        if self._limits.depth >= Depth.ALL:
            await self._check_restart(manager, client)

    async def _wait_until_ready(self, client: AsyncKernelClient, begun: float) -> bool:
        try:
            await client.wait_for_ready(timeout=self._limits.start_s)
        except RuntimeError:
            waited = time.monotonic() - begun
            ended = "did not answer" if waited >= self._limits.start_s else "ended"
            self._fail("kernel-start", f"the kernel did not start: it {ended} after {waited:.1f} s")
            return False
        self._took("start", begun)
        self._findings.append(note("kernel-start", self._target.name, f"ready in {self.seconds['start']:.1f} s"))
        return True

    async def _check_info(self, client: AsyncKernelClient) -> None:
        reply = await client.kernel_info(reply=True, timeout=self._limits.cell_s)
        told = str(reply["content"].get("language_info", {}).get("name", ""))
        if told.lower() != self._language:
            self._fail("kernel-info", f"the kernel speaks {told!r}, kernel.json says {self._spec.language!r}")

    async def _run_smoke_cells(self, client: AsyncKernelClient) -> bool:
        """False when the kernel is of no use any more."""
        begun = time.monotonic()
        for number, cell in enumerate(self._target.smoke, 1):
            result = await run_cell(client, cell.code, timeout_s=self._limits.cell_s)
            self.cells.append(result)
            if fault := judge(cell, result, number=number):
                self._fail("smoke-cell", fault)
            if result.status in {"dead", "timeout"}:
                return False
        self._took("smoke", begun)
        return True

    async def _check_features(self, client: AsyncKernelClient) -> None:
        samples = SAMPLES.get(self._language)
        if samples is None:
            message = f"output, completion and help are not tried: nothing is known about {self._spec.language!r}"
            self._findings.append(note("output", self._target.name, message))
            return
        for check, fault_of in FEATURES.items():
            begun = time.monotonic()
            if fault := await fault_of(client, samples):
                self._fail(check, fault)
            self._took(check, begun)
        if self._limits.depth >= Depth.ALL and self._spec.metadata.get("debugger"):
            begun = time.monotonic()
            if fault := await debugger(client):
                self._fail("debugger", fault)
            self._took("debugger", begun)

    async def _check_interrupt(self, manager: AsyncKernelManager, client: AsyncKernelClient) -> bool:
        """A sleeping cell ends early where the language allows it, and the kernel answers afterwards."""
        code = SLEEPERS.get(self._language, "")
        begun = time.monotonic()
        message = send_cell(client, code)
        if code and not await wait_for_text(client, message, _ASLEEP, timeout_s=_INTERRUPT_WAIT_S):
            self._fail("interrupt", "the cell to be interrupted did not run")
            return False
        asleep = time.monotonic()
        await manager.interrupt_kernel()
        if self._language in _INTERRUPTIBLE:
            result = await wait_for_cell(client, message, code=code, deadline=asleep + _INTERRUPT_WAIT_S, begun=begun)
            if result.status != "error":
                self._fail("interrupt", _UNINTERRUPTED[result.status])
                return False
        self._took("interrupt", asleep)
        await asyncio.sleep(_SETTLE_S)
        return await self._answers(client)

    async def _answers(self, client: AsyncKernelClient) -> bool:
        """The answer comes after the interrupted cell's own, which cling's kernel does not always send."""
        try:
            await client.kernel_info(reply=True, timeout=_INTERRUPT_WAIT_S)
        except TimeoutError:
            self._fail("interrupt", "the kernel does not answer after the interrupt")
            return False
        return True

    async def _check_restart(self, manager: AsyncKernelManager, client: AsyncKernelClient) -> None:
        """The kernel comes back under the same connection file, without what it knew before."""
        leave, ask = _STATE.get(self._language, ("", ""))
        await run_cell(client, leave, timeout_s=self._limits.cell_s)
        begun = time.monotonic()
        await manager.restart_kernel()
        self._note_pid(manager)
        try:
            await client.wait_for_ready(timeout=self._limits.start_s)
        except RuntimeError:
            self._fail("restart", f"the kernel did not come back in {time.monotonic() - begun:.1f} s")
            return
        self._took("restart", begun)
        if ask and (await run_cell(client, ask, timeout_s=self._limits.cell_s)).status != "error":
            self._fail("restart", "the kernel still knows what it knew before")

    async def _shut_down(self, manager: AsyncKernelManager) -> None:
        begun = time.monotonic()
        alive = await manager.is_alive()
        await manager.shutdown_kernel()
        self._took("shutdown", begun)
        hint = "look for a program or thread of the kernel that does not end"
        waited_s = manager.shutdown_wait_time
        if alive and self.seconds["shutdown"] > waited_s:
            message = f"it was killed: it did not end within {waited_s:.0f} s of the request"
            self._findings.append(warning("shutdown", self._target.name, message, hint=hint))
        elif alive and self.seconds["shutdown"] > waited_s / 2:  # jupyter_client sends SIGTERM half way
            message = f"it ended by a signal: it did not end within {waited_s / 2:.1f} s of the request"
            self._findings.append(note("shutdown", self._target.name, message, hint=hint))

    async def _check_left_over(self, pid: int, marker: str) -> None:
        """Finds processes that outlive the kernel."""
        found = await asyncio.to_thread(left_over, pid, marker=marker, wait_s=_LEFT_OVER_WAIT_S, since_s=self._begun_s)
        for process in found:
            self._fail("shutdown", f"the process {process.pid} is left behind: {process.command[:200]}")

    def report(self, stderr: str) -> Report:
        """What was found; messages of failures get the last lines of the kernel's own stderr."""
        shown = stderr.replace("\n", "\n    ") or "(nothing)"
        return Report(
            findings=tuple(
                dataclasses.replace(finding, message=f"{finding.message}\n  last lines of the kernel's stderr: {shown}")
                if finding.severity is Severity.ERROR
                else finding
                for finding in self._findings
            )
        )

    def _note_pid(self, manager: AsyncKernelManager) -> None:
        self._pids.append(int(manager.provisioner.pid))  # type: ignore[union-attr] # started, so there is one

    def _took(self, what: str, begun: float) -> None:
        self.seconds[what] = time.monotonic() - begun

    def _fail(self, check: str, message: str) -> None:
        self._findings.append(error(check, self._target.name, message, hint=_MENDS[check]))


def last_lines(log: Path) -> str:
    """The end of what a kernel wrote on its own stdout and stderr, without what every kernel writes."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if _NOISE not in line]
    return "\n".join(lines[-_TAIL_LINES:])
