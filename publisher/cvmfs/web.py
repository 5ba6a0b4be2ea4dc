"""What a web server answers for a file of a repository: status, headers, and which bytes; no sockets here.

The rules are those of RFC 9110. Objects are named by their content and never change; all else is the repository's
present state and is cached for 61 seconds, as the Apache configuration of ``cvmfs_server`` has it (below 61 the usual
proxies do not cache at all).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus
from typing import Final

MUTABLE_AGE_S: Final = 61
OBJECT_AGE_S: Final = 31_536_000
"""A year, the longest that caches are asked to keep anything."""
_OBJECT = re.compile(r"data/[0-9a-f]{2}/([0-9a-f]{38}(-rmd160|-shake128)?[CHXMPL]?)")
_STATE = re.compile(
    r"\.cvmfspublished|\.cvmfswhitelist|\.cvmfsreflog|\.cvmfs_master_replica|\.cvmfs_last_snapshot|\.cvmfs_status\.json"
)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_TAGS = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    """What is to be known of a file that was opened."""

    name: str
    """Its path below the repository folder, see :func:`is_public`."""
    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def is_object(self) -> bool:
        """True for an object, which never changes."""
        return _OBJECT.fullmatch(self.name) is not None

    @property
    def etag(self) -> str:
        """A strong validator: the name of an object; time, place and size of anything else."""
        if self.is_object:
            return f'"{self.name.replace("/", "").removeprefix("data")}"'
        return f'"{self.mtime_ns:x}-{self.inode:x}-{self.size_bytes:x}"'

    @property
    def modified(self) -> datetime:
        """When it was written, in whole seconds."""
        return datetime.fromtimestamp(self.mtime_ns // 10**9, tz=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What to send."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    start: int = 0
    """The first byte of the body."""
    size_bytes: int = 0
    """Length of the body."""


def is_public(name: str) -> bool:
    """True for what a client may ask for; everything else, such as settings beside the repository, is not there."""
    return _OBJECT.fullmatch(name) is not None or _STATE.fullmatch(name) is not None


def answer(facts: FileFacts, request: Message) -> Answer:
    """The answer to a GET or HEAD request for a file."""
    if _is_current(facts, request):
        return Answer(status=HTTPStatus.NOT_MODIFIED, headers=_validators(facts))
    whole = (0, facts.size_bytes)
    span = _span(facts, request)
    if span is None:
        unsatisfied = ("Content-Range", f"bytes */{facts.size_bytes}"), ("Content-Length", "0")
        return Answer(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=unsatisfied)
    start, size = span
    headers = (
        ("Content-Type", "application/octet-stream" if facts.is_object else "application/x-cvmfs"),
        ("Content-Length", f"{size}"),
        ("Accept-Ranges", "bytes"),
        *_validators(facts),
    )
    if span == whole:
        return Answer(status=HTTPStatus.OK, headers=headers, size_bytes=size)
    part = ("Content-Range", f"bytes {start}-{start + size - 1}/{facts.size_bytes}")
    return Answer(status=HTTPStatus.PARTIAL_CONTENT, headers=(*headers, part), start=start, size_bytes=size)


def _validators(facts: FileFacts) -> tuple[tuple[str, str], ...]:
    age = f"public, max-age={OBJECT_AGE_S}, immutable" if facts.is_object else f"max-age={MUTABLE_AGE_S}"
    return (
        ("ETag", facts.etag),
        ("Last-Modified", format_datetime(facts.modified, usegmt=True)),
        ("Cache-Control", age),
    )


def _is_current(facts: FileFacts, request: Message) -> bool:
    """True when the client has these bytes already (RFC 9110, 13.2.2)."""
    tags = request.get("If-None-Match", "")
    if tags:
        return tags.strip() == "*" or facts.etag in _TAGS.findall(tags)
    since = _date(request.get("If-Modified-Since", ""))
    return since is not None and facts.modified <= since


def _span(facts: FileFacts, request: Message) -> tuple[int, int] | None:
    """First byte and length of what is asked for; all of it for what is no single range; None for an empty one."""
    size = facts.size_bytes
    match = _RANGE.fullmatch(request.get("Range", "").strip())
    if match is None or not (match[1] or match[2]) or not _still_holds(facts, request.get("If-Range", "")):
        return 0, size
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), int(match[2]) + 1 if match[2] else size
        if match[2] and end <= start:
            return 0, size  # no range at all: the last byte comes before the first one
    return (start, min(end, size) - start) if start < size else None


def _still_holds(facts: FileFacts, condition: str) -> bool:
    """True unless the part that a client has is of other bytes (RFC 9110, 13.1.5)."""
    if not condition:
        return True
    return condition == facts.etag or (not condition.startswith(('"', "W/")) and _date(condition) == facts.modified)


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC) if text else None
    except ValueError:
        return None
