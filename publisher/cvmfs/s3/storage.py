"""A repository in a bucket of an S3-compatible object store.

Objects go there first and the manifest last, as in a folder. Two machines that publish at once are kept apart by
conditional requests: the manifest is replaced only if it is the one that was read. What needs a local file is in a
spool folder, and can be lost at any time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from publisher.cvmfs.bucket import Bucket
from publisher.cvmfs.disk import failing_as, make_folder
from publisher.cvmfs.s3.conditions import PROBES, check_conditions
from publisher.cvmfs.s3.connection import STATE_AGE_S, Connection, attributes
from publisher.cvmfs.s3.inventory import Inventory
from publisher.cvmfs.s3.uploads import Uploads
from publisher.errors import NotFoundError, StaleBaseError, TransactionOpenError
from publisher.progress import Progress, Silent

_LISTED_AHEAD = 4
"""Folders: of a bucket with ten million objects each has 40,000, and takes 8 MB of memory."""
_REMOVE_BATCH = 1000
_SWEEP = ".afpub/sweep"
"""Is there while garbage is collected; says who does it."""
_STALE_SWEEP = timedelta(days=1)
_PROVEN = "conditions"
"""File in the spool folder that names the server that was found to keep publishers apart."""
_CHANGED = (AlreadyExistsError, PreconditionError)


class _Stream(io.RawIOBase):
    """The bytes of an object as they come."""

    def __init__(self, blocks: Iterable[bytes], failing: Callable[[Exception], Exception]) -> None:
        super().__init__()
        self._blocks = iter(blocks)
        self._left = memoryview(b"")
        self._failing = failing

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # whatever is given can be written to
        while not self._left:
            try:
                self._left = memoryview(bytes(next(self._blocks)))
            except StopIteration:
                return 0
            except BaseError as exc:
                raise self._failing(exc) from exc
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


class S3Storage:
    """A repository in a bucket; see :class:`publisher.cvmfs.storage.Storage`."""

    shared = True
    local = ""
    batch = (4_096, 1 << 40)

    def __init__(self, bucket: Bucket, *, spool: Path, progress: Progress | None = None) -> None:
        self.bucket = bucket
        self.spool = spool
        self.scratch = spool / "txn"
        self._server = Connection(bucket)
        self._inventory = Inventory(self._server)
        self._uploads = Uploads(self._server, self._inventory, progress or Silent())
        self._tokens: dict[str, str] = {}
        """What the state that was read is known by; empty text for what was not there."""
        self._alone = False
        """Nobody else publishes, so that conditions are not needed."""

    @property
    def where(self) -> str:
        """The bucket and the prefix."""
        return self.bucket.where

    def open(self, name: str) -> BinaryIO:
        """See :class:`publisher.cvmfs.source.Source`."""
        try:
            blocks = obstore.get(self._server.store, name).stream(min_chunk_size=1 << 18)
        except FileNotFoundError:
            raise NotFoundError(f"there is no {name} in {self.where}") from None
        except (BaseError, OSError) as exc:
            raise self._server.failing(exc, f"read {name} of") from exc
        stream = _Stream(cast("Iterable[bytes]", blocks), lambda exc: self._server.failing(exc, f"read {name} of"))
        return io.BufferedReader(stream, 1 << 18)

    def prepare(self) -> None:
        """Makes the spool folder, and forgets what was there before."""
        make_folder(self.spool, 0o700)
        make_folder(self.scratch, 0o700)
        self._inventory.clear()

    def tidy(self, *names: str) -> None:
        """Nothing is left in a bucket: what was not uploaded whole is not there."""

    def check_apart(self, *, one_publisher: bool) -> None:
        """Tries once for each server and spool folder whether two publishers are kept apart."""
        self._alone = one_publisher
        if one_publisher:
            return
        proven = self.spool / _PROVEN
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if proven.read_text(encoding="utf-8") == self._server.server:
                return
        check_conditions(self._server)
        with failing_as("write", proven):
            proven.write_text(self._server.server, encoding="utf-8")

    def look(self, names: Iterable[str]) -> None:
        """Asks for many sizes at a time."""
        self._inventory.look(names)

    def size_of(self, name: str) -> int | None:
        """The size of an object; asked for once, or many at a time."""
        return self._inventory.size(name)

    def send(self, name: str, temporary: str) -> None:
        """Begins to upload, 16 at a time; waits while 256 MiB are waiting already."""
        self._uploads.begin(name, temporary)

    def put_objects(self, waiting: Mapping[str, str], *, replace: bool = False) -> list[tuple[str, int]]:
        """What is there already is not sent again, so that an upload can be resumed."""
        for name, temporary in waiting.items():
            self._uploads.begin(name, temporary, replace=replace)
        return self._uploads.finish(waiting)

    def stop(self) -> None:
        """Waits for the uploads that have begun; what was not sent is forgotten."""
        self._uploads.stop()

    def folders(self) -> Iterator[list[tuple[str, int]]]:
        """See :class:`publisher.cvmfs.storage.Storage`; the next folders are listed meanwhile."""
        with ThreadPoolExecutor(_LISTED_AHEAD, thread_name_prefix="s3") as pool:
            waiting: deque[Future[list[tuple[str, int]]]] = deque()
            try:
                for number in range(256 + _LISTED_AHEAD):
                    if number < 256:
                        waiting.append(pool.submit(self._folder, number))
                    if number >= _LISTED_AHEAD:
                        yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _folder(self, number: int) -> list[tuple[str, int]]:
        return sorted(self._server.listing(f"data/{number:02x}"))

    def remove_objects(self, names: Collection[str]) -> None:
        """Removes many at a time."""
        ordered = sorted(names)
        for start in range(0, len(ordered), _REMOVE_BATCH):
            with self._server.asking("remove objects of"):
                obstore.delete(self._server.store, ordered[start : start + _REMOVE_BATCH])
        self._inventory.clear()

    def read_state(self, name: str) -> bytes | None:
        """See :class:`publisher.cvmfs.storage.Storage`."""
        try:
            found = obstore.get(self._server.store, name)
            data = bytes(found.bytes())
        except FileNotFoundError:
            self._tokens[name] = ""
            return None
        except (BaseError, OSError) as exc:
            raise self._server.failing(exc, f"read {name} of") from exc
        self._tokens[name] = found.meta["e_tag"] or ""
        return data

    def put_state(self, name: str, data: bytes) -> None:
        """Replaces what was read and nothing else, if something was read."""
        token = None if self._alone else self._tokens.get(name)
        put: Callable[..., obstore.PutResult] = obstore.put
        try:
            done = put(self._server.store, name, data, attributes=attributes(STATE_AGE_S), **_condition(token))
        except _CHANGED as exc:
            raise StaleBaseError(
                f"somebody else changed {name} of {self.where} meanwhile",
                hint="run it again: it starts from the newest revision",
            ) from exc
        except (BaseError, OSError) as exc:
            raise self._server.failing(exc, f"write {name} to") from exc
        if token is not None:
            self._tokens[name] = done["e_tag"] or ""

    def guard(self) -> None:
        """Refuses to publish while garbage is collected."""
        data = self.read_state(_SWEEP)
        if data is not None:
            raise TransactionOpenError(
                f"garbage is being collected in {self.where}{_who(data)}",
                hint="wait until it is done; if that process is gone: afpub repo gc, there, or here a day later",
            )

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """Says in the bucket that objects are being removed."""
        data = self.read_state(_SWEEP)
        if data is not None and not _is_over(data, self.spool):
            raise TransactionOpenError(
                f"garbage is being collected in {self.where} already{_who(data)}",
                hint="wait until it is done; if that process is gone: afpub repo gc, there, or here a day later",
            )
        own = {"host": socket.gethostname(), "spool": f"{self.spool}", "pid": os.getpid()}
        self.put_state(_SWEEP, json.dumps(own | {"since": datetime.now(UTC).isoformat(timespec="seconds")}).encode())
        try:
            yield
            self._remove_probes()
        finally:
            self.remove_objects([_SWEEP])

    def _remove_probes(self) -> None:
        """Removes what publishers left that were killed while they tried the server out."""
        folder, _, start = PROBES.rpartition("/")
        left = [name for name, _ in self._server.listing(folder) if name.startswith(f"{folder}/{start}")]
        if left:
            self.remove_objects(left)


def _condition(token: str | None) -> dict[str, object]:
    if token is None:
        return {}
    return {"mode": {"e_tag": token} if token else "create", "use_multipart": False}


def _who(data: bytes) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        holder = json.loads(data)
        return f": process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return ""


def _is_over(data: bytes, spool: Path) -> bool:
    """True for a collection of this machine, whose lock we hold now, and for one of yesterday."""
    try:
        holder = json.loads(data)
        if (holder["host"], holder["spool"]) == (socket.gethostname(), f"{spool}"):
            return True
        return datetime.now(UTC) - datetime.fromisoformat(holder["since"]) > _STALE_SWEEP
    except (ValueError, KeyError, TypeError):
        return False
