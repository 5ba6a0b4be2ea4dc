"""Does the server keep two publishers apart: tried out, since many servers take conditions and ignore them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from publisher.cvmfs.s3.connection import STATE_AGE_S, Connection, attributes, status_of
from publisher.errors import RepositoryError

PROBES = ".afpub/probe-"
"""What the names of objects begin with that are made and removed here."""
HINT = (
    "use a server with conditional writes; or, if only one machine ever publishes into this bucket, say so: "
    "afpub repo settings one_publisher=true, or afpub repo create --set one_publisher=true"
)
_NOT_IMPLEMENTED = "501"
_NO = (AlreadyExistsError, PreconditionError)


def check_conditions(server: Connection) -> None:
    """Writes an object and asks for what must be refused; removes it again.

    Raises:
        RepositoryError: the server does what must be refused, or cannot be written to.
    """
    name = f"{PROBES}{secrets.token_hex(8)}"

    def put(data: bytes, mode: object) -> str:
        write: Callable[..., obstore.PutResult] = obstore.put
        done = write(server.store, name, data, mode=mode, use_multipart=False, attributes=attributes(STATE_AGE_S))
        return done["e_tag"] or ""

    try:
        fault = _try_all(put)
    except (BaseError, OSError) as exc:
        if status_of(exc) != _NOT_IMPLEMENTED:
            raise server.failing(exc, f"write {name} to") from exc
        fault = "does not know conditional writes"
    finally:
        with suppress(BaseError, OSError):
            obstore.delete(server.store, name)
    if fault:
        raise RepositoryError(
            f"{server.where}: two publishers at once could undo what the other one did, since {server.server} {fault}",
            hint=HINT,
        )


def _try_all(put: Callable[[bytes, object], str]) -> str:
    """What is wrong; empty for nothing."""
    mark = put(b"1", "create")
    with suppress(*_NO):
        put(b"2", "create")
        return "replaced an object that was to be written only if there was none (If-None-Match)"
    try:
        newer = put(b"3", {"e_tag": mark})
    except _NO:
        return "refused to replace an object that nobody had changed (If-Match)"
    if newer == mark:
        return "gives two different objects of the same name the same ETag"
    with suppress(*_NO):
        put(b"4", {"e_tag": mark})
        return "replaced an object that had changed meanwhile (If-Match)"
    return ""
