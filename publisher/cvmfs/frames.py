"""What a publisher and its workers say to each other: frames, the length of a pickle and then the pickle."""

from __future__ import annotations

import os
import pickle
import struct
from dataclasses import dataclass

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """The answer to a job that failed."""

    message: str
    hint: str = ""
    detail: str = ""
    """A traceback, for a failure that nobody expected."""


def frame(what: object) -> bytes:
    """What is written to say something."""
    data = pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


def send(descriptor: int, what: object) -> None:
    """Writes a frame, however long the other end takes to read it.

    Raises:
        OSError: the other end is gone.
    """
    view = memoryview(frame(what))
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> object:
    """Reads a frame.

    Raises:
        EOFError: the other end is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(descriptor, _LENGTH.size))
    return pickle.loads(_exactly(descriptor, length))  # noqa: S301 - both ends are this program


def _exactly(descriptor: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = os.read(descriptor, count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
