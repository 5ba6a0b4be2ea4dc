"""One publisher at a time.

The system's own lock decides: it ends with its process, however that ends. What the holder wrote into the file is for
messages, and for file systems that several hosts share without sharing locks: there it is all that can be seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from publisher.cvmfs.disk import failing_as
from publisher.cvmfs.storage import Storage
from publisher.errors import DiskError, TransactionOpenError

_POLL_S = 0.2
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a lock, as the file says."""

    pid: int
    started: int
    """When the process started, in the kernel's ticks: another process may have its number by now. 0: unknown."""
    boot: str
    """The running system, which containers share with their host; empty where it does not say."""
    host: str
    user: str
    since: str

    @classmethod
    def own(cls) -> Self:
        """This process."""
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"user {os.getuid()}"
        return cls(
            pid=os.getpid(),
            started=_started(os.getpid()),
            boot=_boot(),
            host=socket.gethostname(),
            user=user,
            since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        )

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Who wrote a lock file; None where it says nothing."""
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            said = json.loads(data)
            return cls(
                pid=int(said.get("pid", 0)),
                started=int(said.get("started", 0)),
                **{name: str(said.get(name, "")) for name in ("boot", "host", "user", "since")},
            )
        return None

    def __str__(self) -> str:
        user = f" of {self.user}" if self.user else ""
        return f"process {self.pid}{user} on {self.host}, since {self.since}"

    @property
    def is_here(self) -> bool:
        """True when this system, or the one that ran on this host before it started anew, wrote it."""
        return self.host == socket.gethostname() or (self.boot != "" and self.boot == _boot())

    @property
    def runs(self) -> bool:
        """True when it is a process of this system that has not ended."""
        return self.boot == _boot() and self.started > 0 and _started(self.pid) == self.started


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> int:
    """Field 22 of ``/proc/PID/stat``; 0 where there is no such process. Source: proc_pid_stat(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def hold(storage: Storage, *, wait_s: float = 0.0) -> contextlib.AbstractContextManager[None]:
    """Holds a repository, on this machine; raises as :func:`exclusive`."""
    storage.prepare()
    return exclusive(storage.spool / "lock", what=f"the repository {storage.where}", wait_s=wait_s)


@contextlib.contextmanager
def exclusive(path: Path, *, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Holds a lock file; the system lets it go when the process ends in any way.

    Args:
        path: the lock file; stays there afterwards.
        what: what is held, for the message.
        wait_s: how long to wait for another holder, in seconds.

    Raises:
        TransactionOpenError: somebody else holds it; the message names process, user, host and time.
        DiskError: the file cannot be opened, or its file system knows no locks.
    """
    with failing_as("open the lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(descriptor, path, what, wait_s)
        _check_former(descriptor, path, what)
        with failing_as("write the lock", path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(Holder.own())).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def claim(folder: Path) -> int | None:
    """A descriptor that says, while it is open, that its process works in a folder; None when another one does."""
    with failing_as("open", folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _acquire(descriptor: int, path: Path, what: str, wait_s: float) -> None:
    end = time.monotonic() + wait_s
    while True:
        try:
            with failing_as("lock", path):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except DiskError as exc:
            if not isinstance(exc.__cause__, BlockingIOError):
                raise
        else:
            return
        if time.monotonic() >= end:
            raise _held(what, _read(descriptor))
        time.sleep(_POLL_S)


def _held(what: str, holder: Holder | None) -> TransactionOpenError:
    said = f": {holder}" if holder else ""
    if holder and holder.boot == _boot() and holder.started and not holder.runs:
        said += "; it has ended, but a process that it started still runs"
    return TransactionOpenError(
        f"{what} is held by another publisher{said}", hint="wait until it is done, or say how long: --wait SECONDS"
    )


def _check_former(descriptor: int, path: Path, what: str) -> None:
    """Whoever ended in the middle of its work left its name; one that may still be at work is respected.

    Raises:
        TransactionOpenError: it was on another host, or runs although the lock was given.
    """
    former = _read(descriptor)
    if former is None or (former.is_here and not former.runs):
        return
    if former.runs:
        if former.pid == os.getpid():
            return
        raise TransactionOpenError(
            f"{what} is held by another publisher: {former}; the file system does not keep its lock",
            hint="wait until it is done",
        )
    raise TransactionOpenError(
        f"{what} was left locked by {former}: whether that process still works cannot be seen from here",
        hint=f"look on {former.host}; when it does not run there any more, remove {path}",
    )


def _read(descriptor: int) -> Holder | None:
    return Holder.parse(os.pread(descriptor, _MOST_BYTES, 0))
