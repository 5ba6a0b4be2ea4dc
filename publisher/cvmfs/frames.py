"""What a publisher and its workers say to each other: frames, the length of a pickle and then the pickle."""

from __future__ import annotations

import os
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

_LENGTH = struct.Struct("<Q")
_LONG = 32 << 10
"""Half of what a pipe holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """The answer to a job that failed."""

    message: str
    hint: str = ""
    detail: str = ""
    """A traceback, for a failure that nobody expected."""


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Where the pickle is."""

    path: str


def frame(what: object) -> tuple[bytes, int]:
    """What is written to say something, and a descriptor to be closed when the answer has come, or -1.

    What is long goes through memory without a name, which nobody else can open: a pipe holds little, so that the one
    would have to wait until the other reads.
    """
    data = pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
    if len(data) <= _LONG:
        return _framed(data), -1
    memory = os.memfd_create("afpub")
    _write(memory, data)
    return _framed(pickle.dumps(_Elsewhere(f"/proc/{os.getpid()}/fd/{memory}"), pickle.HIGHEST_PROTOCOL)), memory


def _framed(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def send(descriptor: int, what: object) -> None:
    """Writes a frame, however long the other end takes to read it.

    Raises:
        OSError: the other end is gone.
    """
    _write(descriptor, _framed(pickle.dumps(what, pickle.HIGHEST_PROTOCOL)))


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> object:
    """Reads a frame.

    Raises:
        EOFError: the other end is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(descriptor, _LENGTH.size))
    found: object = pickle.loads(_exactly(descriptor, length))  # noqa: S301 - both ends are this program
    return pickle.loads(Path(found.path).read_bytes()) if isinstance(found, _Elsewhere) else found  # noqa: S301 - as above


def _exactly(descriptor: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = os.read(descriptor, count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
