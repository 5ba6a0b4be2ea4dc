"""Which processes a kernel left behind, as /proc tells it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process that runs."""

    pid: int
    command: str


def now_s() -> float:
    """Seconds since this machine was booted, as the start of processes is counted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def left_over(session: int, *, marker: str, wait_s: float, since_s: float = 0.0) -> tuple[Process, ...]:
    """The processes of a session, or with a marker in their environment, that run after ``wait_s`` seconds.

    Helpers of the container runtime leave the kernel's session (a FUSE mount for an image file does), so
    their environment is looked at too.

    Args:
        session: id of the session.
        marker: ``NAME=value``.
        wait_s: how long they may take to end.
        since_s: the environment of processes that were started before this moment (of :func:`now_s`) is not read:
            the kernel lets a reader wait for a process that hangs in a dead network file system.
    """
    deadline = time.monotonic() + wait_s
    while True:
        found = _running(session, marker.encode(), since_s)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(_POLL_S)


def _running(session: int, marker: bytes, since_s: float) -> tuple[Process, ...]:
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            state, member, started_s = _state_session_start(folder)
            young = started_s > since_s - 1  # one is counted in ticks, the other is not
            if state != "Z" and (member == session or (young and marker in _environment(folder))):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(Process(pid=int(folder.name), command=command.strip()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return tuple(found)


def _state_session_start(folder: Path) -> tuple[str, int, float]:
    """Source: proc(5), stat: the command in brackets may hold spaces and brackets itself."""
    fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[3]), int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _environment(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except PermissionError:
        return b""  # another user's
