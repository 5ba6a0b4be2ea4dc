"""Buckets of S3-compatible object stores: their addresses, and how they are reached.

Keys are never part of an address or of a setting: they come from the environment, or from the file that other programs
for S3 use.
"""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from publisher.errors import UsageError

SCHEME: Final = "s3"
_OPTIONS = ("endpoint", "region", "path_style")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """Where a repository is, without credentials."""

    name: str
    prefix: str = ""
    endpoint: str = ""
    """Address of the server; empty: AWS_ENDPOINT_URL, or Amazon's."""
    region: str = ""
    path_style: bool = True
    """The bucket is part of the path, not of the host name."""

    @classmethod
    def parse(cls, location: str) -> Bucket:
        """The bucket that ``s3://bucket/prefix?endpoint=...&region=...&path_style=no`` names.

        Raises:
            UsageError: it is no such address.
        """
        parts = urlsplit(location)
        options = parse_qs(parts.query)
        if parts.scheme != SCHEME or not parts.hostname or parts.fragment:
            raise UsageError(f"{location!r} is no address of a bucket", hint="give s3://BUCKET/PREFIX")
        if "@" in parts.netloc:
            raise UsageError(
                "credentials do not belong into the address of a bucket",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        for name in options:
            if name not in _OPTIONS:
                raise UsageError(f"unknown option {name!r} of a bucket", hint=f"options: {', '.join(_OPTIONS)}")
        endpoint = options.get("endpoint", [""])[0].rstrip("/")
        if endpoint and urlsplit(endpoint).scheme not in {"http", "https"}:
            raise UsageError(f"the endpoint {endpoint!r} is no http or https address")
        return cls(
            name=parts.netloc,
            prefix=parts.path.strip("/"),
            endpoint=endpoint,
            region=options.get("region", [""])[0],
            path_style=options.get("path_style", ["yes"])[0] not in {"no", "false", "0"},
        )

    @property
    def where(self) -> str:
        """The bucket and the prefix."""
        return f"{SCHEME}://{self.name}/{self.prefix}".rstrip("/")

    @property
    def location(self) -> str:
        """The whole address, see :meth:`parse`."""
        options = {"endpoint": self.endpoint, "region": self.region, "path_style": "" if self.path_style else "no"}
        query = urlencode({name: value for name, value in options.items() if value})
        return f"{self.where}?{query}" if query else self.where


def credentials() -> dict[str, str]:
    """Keys from the environment are the library's business; those of the file that other S3 programs use are here."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", Path("~/.aws/credentials").expanduser()))
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(path, encoding="utf-8")
        section = file[os.environ.get("AWS_PROFILE", "default")]
    except (configparser.Error, KeyError, OSError, UnicodeDecodeError):
        return {}
    names = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
    }
    return {target: section[name] for name, target in names.items() if name in section}


def endpoint_of(bucket: Bucket) -> str:
    """The address of the server; empty for Amazon's."""
    return bucket.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
