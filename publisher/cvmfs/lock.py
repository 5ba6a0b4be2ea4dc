"""One publisher at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from publisher.cvmfs.disk import failing_as
from publisher.errors import TransactionOpenError

_POLL_S = 0.2


@contextlib.contextmanager
def exclusive(path: Path, *, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Holds a lock file; the system lets it go when the process ends in any way.

    Args:
        path: the lock file; stays there afterwards.
        what: what is held, for the message.
        wait_s: how long to wait for another holder, in seconds.

    Raises:
        TransactionOpenError: somebody else holds it; the message names process, host and time.
        DiskError: the file cannot be opened.
    """
    with failing_as("open the lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(descriptor, what, wait_s)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        }
        with failing_as("write the lock", path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, what: str, wait_s: float) -> None:
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TransactionOpenError(
                    f"{what} is held by another publisher{_holder(descriptor)}",
                    hint="wait until it is done, or give a time to wait",
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _holder(descriptor: int) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f": process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return ""
