"""The access log of the server, in the combined format that log analyzers know."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

from publisher.cvmfs.disk import failing_as
from publisher.cvmfs.serve import Request


def combined(request: Request, now: datetime) -> str:
    """A line of the log; what a client sent cannot break out of its quotes or of the line."""
    size = f"{request.sent_bytes}" if request.sent_bytes else "-"
    time = f"{now.astimezone(UTC):%d/%b/%Y:%H:%M:%S +0000}"
    words = (_quoted(request.line), f"{request.status}", size, _quoted(request.referer), _quoted(request.agent))
    return f"{request.client} - - [{time}] {' '.join(words)}"


def _quoted(text: str) -> str:
    safe = "".join(
        f"\\{char}" if char in '"\\' else char if " " <= char <= "~" else f"\\x{ord(char):02x}" for char in text
    )
    return f'"{safe or "-"}"'


@contextmanager
def access_log(place: str) -> Iterator[Callable[[Request], None]]:
    """Writes requests to a file, ``-`` being stderr; a file that was rotated away is opened anew.

    Raises:
        DiskError: the file cannot be written.
    """
    with failing_as("write", place):
        handler = logging.StreamHandler(sys.stderr) if place == "-" else WatchedFileHandler(Path(place))

    def write(request: Request) -> None:
        line = combined(request, datetime.now(tz=UTC))
        handler.handle(logging.LogRecord("afpub", logging.INFO, "", 0, line, None, None))

    try:
        yield write
    finally:
        handler.close()
