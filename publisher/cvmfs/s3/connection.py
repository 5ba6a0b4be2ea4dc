"""A connection to a bucket, and what its failures are called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from publisher.cvmfs.bucket import Bucket, credentials, endpoint_of
from publisher.errors import RepositoryError

THREADS = 16
"""Requests at the same time."""
OBJECT_AGE_S: Final = 259_200
STATE_AGE_S: Final = 61
"""How long caches keep objects, and the state; as ``cvmfs_server`` uploads them (cvmfs/network/s3fanout.cc, 2.12)."""
_KEY_SOURCES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""From one of these the library takes keys, if it is set."""
_RETRIES = 6
"""Waiting twice as long each time, some six seconds in all."""
_STATUS = re.compile(r"status code: (\d{3}[A-Za-z ]*)")
_REFUSED = (PermissionDeniedError, UnauthenticatedError)
_PAGE = 1000


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


class Connection:
    """A bucket, and the questions that more than one part of the storage asks; safe to be used by several threads."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.store = _connect(bucket)

    @property
    def where(self) -> str:
        """The bucket and the prefix."""
        return self.bucket.where

    @property
    def server(self) -> str:
        """The address of the server, for messages."""
        return endpoint_of(self.bucket) or "the server"

    def failing(self, exc: Exception, what: str = "read") -> RepositoryError:
        """The error to raise for what the library raised."""
        status = _STATUS.search(f"{exc}")
        reason = f"{self.server} answered {status[1]}" if status else f"{self.server}: {_reason(exc)}"
        hint = "check the endpoint, the region and the network"
        if isinstance(exc, _REFUSED):
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read and write the bucket"
        return RepositoryError(f"cannot {what} {self.where}: {reason}", hint=hint)

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Turns what the library raises into our error."""
        try:
            yield
        except (BaseError, OSError) as exc:
            raise self.failing(exc, what) from exc

    def size_of(self, name: str) -> int | None:
        """The size of an object; None where there is none.

        Raises:
            RepositoryError: the server does not say.
        """
        with self.asking("read"):
            try:
                return int(obstore.head(self.store, name)["size"])
            except FileNotFoundError:
                return None

    def listing(self, folder: str) -> Iterator[tuple[str, int]]:
        """Names and sizes of what is in a folder, page by page as the server gives them.

        Raises:
            RepositoryError: the server does not say.
        """
        with self.asking("list"):
            for page in obstore.list(self.store, f"{folder}/", chunk_size=_PAGE):
                for item in page:
                    yield str(item["path"]), int(item["size"])


def attributes(age_s: int) -> obstore.Attributes:
    """What is said of a file with its bytes."""
    return {"Content-Type": "application/octet-stream", "Cache-Control": f"max-age={age_s}"}


def status_of(exc: Exception) -> str:
    """The status with which the server answered, as a number; empty where it did not."""
    found = _STATUS.search(f"{exc}")
    return found[1][:3] if found else ""


def _reason(exc: Exception) -> str:
    """What the library says, in one line: its texts hold requests, times and whole answers."""
    line = f"{exc}".split("\n", 1)[0]
    return line.rpartition(" - ")[2].removeprefix("Generic S3 error: ").rstrip(": ")
