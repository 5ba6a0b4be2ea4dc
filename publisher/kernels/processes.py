"""Which processes a kernel left behind, as /proc tells it."""

from __future__ import annotations

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


def left_over(session: int, *, marker: str, wait_s: float) -> tuple[Process, ...]:
    """The processes of a session, or with a marker in their environment, that run after ``wait_s`` seconds.

    Helpers of the container runtime leave the kernel's session (a FUSE mount for an image file does), so
    their environment is looked at too.
    """
    deadline = time.monotonic() + wait_s
    while True:
        found = _running(session, marker.encode())
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(_POLL_S)


def _running(session: int, marker: bytes) -> tuple[Process, ...]:
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            state, member = _state_and_session(folder)
            if state != "Z" and (member == session or marker in _environment(folder)):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(Process(pid=int(folder.name), command=command.strip()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return tuple(found)


def _state_and_session(folder: Path) -> tuple[str, int]:
    """Source: proc(5), stat: the command in brackets may hold spaces and brackets itself."""
    fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[3])


def _environment(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except PermissionError:
        return b""  # another user's
