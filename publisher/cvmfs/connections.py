"""The connections of a server: how many there may be, and how long each may take."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What clients may take of a server."""

    connections: int = 256
    """At once; each has a thread."""
    idle_s: float = 60.0
    """How long a connection may wait for its next request, and a request for its last header."""
    send_s: float = 30.0
    """How long an answer may take at least..."""
    least_bytes_s: float = 2048.0
    """...and the bytes a second that a client must take of a long one."""


class Connection:
    """One connection: what it does, and until when."""

    def __init__(self, own: socket.socket, limits: Limits) -> None:
        self.socket = own
        self._limits = limits
        self.idle = True
        self.deadline = time.monotonic() + limits.idle_s

    def wait(self) -> None:
        """The next request may come."""
        self.deadline = time.monotonic() + self._limits.idle_s
        self.idle = True

    def send(self, size_bytes: int) -> None:
        """A request is being answered."""
        self.idle = False
        self.deadline = time.monotonic() + self._limits.send_s + size_bytes / self._limits.least_bytes_s

    def end(self) -> None:
        """Ends it from another thread: whoever reads or writes is woken up."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """All connections of a server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: set[Connection] = set()
        self._changed = threading.Condition()

    @property
    def crowded(self) -> bool:
        """True when connections should end after an answer, so that others get their turn."""
        return len(self._open) > self._limits.connections // 2

    def take(self, own: socket.socket) -> Connection | None:
        """A new connection, in the place of the one that waited longest if need be; None where all are at work."""
        with self._changed:
            if len(self._open) >= self._limits.connections:
                idle = [each for each in self._open if each.idle]
                if not idle:
                    return None
                min(idle, key=lambda each: each.deadline).end()
                self._changed.wait(timeout=1.0)
                if len(self._open) >= self._limits.connections:
                    return None
            connection = Connection(own, self._limits)
            self._open.add(connection)
            return connection

    def give_back(self, connection: Connection) -> None:
        """A connection has ended."""
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def end_overdue(self) -> None:
        """Ends all whose time is up."""
        now = time.monotonic()
        with self._changed:
            for each in self._open:
                if each.deadline < now:
                    each.end()

    def drain(self, grace_s: float) -> None:
        """Ends idle connections at once, the others when they are done or the seconds have passed."""
        end = time.monotonic() + grace_s
        with self._changed:
            while self._open:
                left = end - time.monotonic()
                for each in self._open:
                    if each.idle or left <= 0:
                        each.end()
                if left <= -1.0:  # a thread that hangs elsewhere does not stop us
                    return
                self._changed.wait(timeout=max(0.05, min(left, 0.5)))
