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
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from publisher.cvmfs.bucket import Bucket, credentials, endpoint_of
from publisher.cvmfs.disk import failing_as, make_folder
from publisher.errors import NotFoundError, RepositoryError, StaleBaseError, TransactionOpenError
from publisher.progress import Progress, Silent

_THREADS = 16
_HEADS = 32
"""After so many questions for single objects it is cheaper to list a folder of them at once."""
_REMOVE_BATCH = 1000
_KEY_SOURCES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""From one of these the library takes keys, if it is set."""
_RETRIES = 6
"""Waiting twice as long each time, some six seconds in all."""
_SWEEP = ".afpub/sweep"
"""Is there while garbage is collected; says who does it."""
_STALE_SWEEP = timedelta(days=1)
_STATUS = re.compile(r"status code: (\d{3}[A-Za-z ]*)")
_OBJECT_AGE_S = 259_200
_STATE_AGE_S = 61
"""Both as ``cvmfs_server`` uploads them (cvmfs/network/s3fanout.cc, 2.12)."""
_REFUSED = (PermissionDeniedError, UnauthenticatedError)
_CHANGED = (AlreadyExistsError, PreconditionError)


def _connect(bucket: Bucket) -> S3Store:
    endpoint, keys = endpoint_of(bucket), credentials()
    region = bucket.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    config: Any = {
        "conditional_put": "etag",
        "region": region,
        "virtual_hosted_style_request": not bucket.path_style,
        **keys,
    }
    if endpoint:
        config["endpoint"] = endpoint
        if not keys and not any(os.environ.get(name) for name in _KEY_SOURCES):
            config["skip_signature"] = True  # instead of asking a metadata service that only Amazon's machines have
    return S3Store(
        bucket.name,
        prefix=bucket.prefix or None,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=10),
            "timeout": timedelta(seconds=120),
        },
        retry_config={
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=60),
            "backoff": {"base": 2, "init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5)},
        },
    )


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
    batch = (1_024, 64 << 20)

    def __init__(self, bucket: Bucket, *, spool: Path, progress: Progress | None = None) -> None:
        self.bucket = bucket
        self.spool = spool
        self.scratch = spool / "txn"
        self._progress = progress or Silent()
        self._store = _connect(bucket)
        self._tokens: dict[str, str] = {}
        """What the state that was read is known by; empty text for what was not there."""
        self._lock = threading.Lock()
        self._listed: dict[str, dict[str, int]] = {}
        """Objects and their sizes, by the folders that were listed."""
        self._asked: dict[str, int | None] = {}

    @property
    def where(self) -> str:
        """The bucket and the prefix."""
        return self.bucket.where

    def _failing(self, exc: Exception, what: str = "read") -> RepositoryError:
        status = _STATUS.search(f"{exc}")
        server = endpoint_of(self.bucket) or "the server"
        reason = f"{server} answered {status[1]}" if status else f"{server}: {_reason(exc)}"
        hint = "check the endpoint, the region and the network"
        if isinstance(exc, _REFUSED):
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read and write the bucket"
        return RepositoryError(f"cannot {what} {self.where}: {reason}", hint=hint)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as exc:
            raise self._failing(exc, what) from exc

    def open(self, name: str) -> BinaryIO:
        """See :class:`publisher.cvmfs.source.Source`."""
        try:
            blocks = obstore.get(self._store, name).stream(min_chunk_size=1 << 18)
        except FileNotFoundError:
            raise NotFoundError(f"there is no {name} in {self.where}") from None
        except (BaseError, OSError) as exc:
            raise self._failing(exc, f"read {name} of") from exc
        stream = _Stream(cast("Iterable[bytes]", blocks), lambda exc: self._failing(exc, f"read {name} of"))
        return io.BufferedReader(stream, 1 << 18)

    def prepare(self) -> None:
        """Makes the spool folder, and forgets what was there before."""
        make_folder(self.spool, 0o700)
        make_folder(self.scratch, 0o700)
        with self._lock:
            self._listed.clear()
            self._asked.clear()

    def tidy(self, *names: str) -> None:
        """Nothing is left in a bucket: what was not uploaded whole is not there."""

    def size_of(self, name: str) -> int | None:
        """The size of an object; asked for once, or many at a time."""
        folder = name.rpartition("/")[0]
        with self._lock:
            if folder in self._listed:
                return self._listed[folder].get(name)
            if name in self._asked:
                return self._asked[name]
            many = len(self._asked) >= _HEADS
        if many:
            self._list_all()
            return self._listed[folder].get(name)
        try:
            with self._asking("read"):
                size = int(obstore.head(self._store, name)["size"])
        except RepositoryError as exc:
            if not isinstance(exc.__cause__, FileNotFoundError):
                raise
            size = None
        with self._lock:
            self._asked[name] = size
        return size

    def _list_all(self) -> None:
        folders = [f"data/{number:02x}" for number in range(256)]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3") as pool:
            found = list(pool.map(lambda folder: dict(self._listing(folder)), folders))
        with self._lock:
            self._listed = dict(zip(folders, found, strict=True))

    def _listing(self, folder: str) -> Iterator[tuple[str, int]]:
        with self._asking("list"):
            for page in obstore.list(self._store, f"{folder}/", chunk_size=1000):
                for item in page:
                    yield str(item["path"]), int(item["size"])

    def put_objects(self, waiting: Mapping[str, str], *, replace: bool = False) -> None:
        """Uploads several at a time; what is there already is not sent again, so that an upload can be resumed."""
        total, done = len(waiting), 0

        def send(item: tuple[str, str]) -> None:
            name, temporary = item
            size = os.stat(temporary).st_size  # noqa: PTH116 - a path as text
            if replace or self._size_now(name) != size:
                with self._asking(f"write {name} to"):
                    obstore.put(self._store, name, Path(temporary), attributes=_attributes(_OBJECT_AGE_S))
            with self._lock:
                if (folder := name.rpartition("/")[0]) in self._listed:
                    self._listed[folder][name] = size
                self._asked[name] = size

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3") as pool:
            for _ in pool.map(send, waiting.items()):
                done += 1
                self._progress.advance(done, total, "objects uploaded")
        for temporary in waiting.values():
            with failing_as("remove", temporary):
                Path(temporary).unlink(missing_ok=True)

    def _size_now(self, name: str) -> int | None:
        """As :meth:`size_of`, but asking for this object alone where it is not known."""
        with self._lock:
            folder = name.rpartition("/")[0]
            if folder in self._listed:
                return self._listed[folder].get(name)
            if name in self._asked:
                return self._asked[name]
        with contextlib.suppress(FileNotFoundError, BaseError):
            return int(obstore.head(self._store, name)["size"])
        return None

    def objects(self, number: int) -> Iterator[tuple[str, int]]:
        """See :class:`publisher.cvmfs.storage.Storage`."""
        yield from sorted(self._listing(f"data/{number:02x}"))

    def remove_objects(self, names: Collection[str]) -> None:
        """Removes many at a time."""
        ordered = sorted(names)
        for start in range(0, len(ordered), _REMOVE_BATCH):
            with self._asking("remove objects of"):
                obstore.delete(self._store, ordered[start : start + _REMOVE_BATCH])
        with self._lock:
            self._listed.clear()
            self._asked.clear()

    def read_state(self, name: str) -> bytes | None:
        """See :class:`publisher.cvmfs.storage.Storage`."""
        try:
            found = obstore.get(self._store, name)
            data = bytes(found.bytes())
        except FileNotFoundError:
            self._tokens[name] = ""
            return None
        except (BaseError, OSError) as exc:
            raise self._failing(exc, f"read {name} of") from exc
        self._tokens[name] = found.meta["e_tag"] or ""
        return data

    def put_state(self, name: str, data: bytes) -> None:
        """Replaces what was read and nothing else, if something was read."""
        token = self._tokens.get(name)
        put: Callable[..., obstore.PutResult] = obstore.put
        try:
            done = put(self._store, name, data, attributes=_attributes(_STATE_AGE_S), **_condition(token))
        except NotSupportedError:  # a store without conditional requests
            with self._asking(f"write {name} to"):
                done = put(self._store, name, data, attributes=_attributes(_STATE_AGE_S))
        except _CHANGED as exc:
            raise StaleBaseError(
                f"somebody else changed {name} of {self.where} meanwhile",
                hint="run it again: it starts from the newest revision",
            ) from exc
        except (BaseError, OSError) as exc:
            raise self._failing(exc, f"write {name} to") from exc
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
        finally:
            self.remove_objects([_SWEEP])


def _reason(exc: Exception) -> str:
    """What the library says, in one line: its texts hold requests, times and whole answers."""
    line = f"{exc}".split("\n", 1)[0]
    return line.rpartition(" - ")[2].removeprefix("Generic S3 error: ").rstrip(": ")


def _condition(token: str | None) -> dict[str, object]:
    if token is None:
        return {}
    return {"mode": {"e_tag": token} if token else "create", "use_multipart": False}


def _attributes(age_s: int) -> obstore.Attributes:
    return {"Content-Type": "application/octet-stream", "Cache-Control": f"max-age={age_s}"}


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
