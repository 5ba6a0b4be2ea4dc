"""Storages by their locations."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from publisher.cvmfs.bucket import SCHEME, Bucket
from publisher.cvmfs.s3.storage import S3Storage
from publisher.cvmfs.source import FolderSource, Source, WebSource
from publisher.cvmfs.storage import FolderStorage, Storage
from publisher.errors import UsageError
from publisher.progress import Progress

Location = Path | str | Storage
"""A folder, an address (``s3://...``, read only ``http://...``), or a storage."""


def is_bucket(location: object) -> bool:
    """True for the address of a bucket."""
    return isinstance(location, str) and location.startswith(f"{SCHEME}://")


def default_spool(bucket: Bucket) -> Path:
    """Where a repository in a bucket has its local files unless somebody says otherwise."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    mark = hashlib.sha256(bucket.location.encode()).hexdigest()[:8]
    return cache / "afpub" / f"{bucket.name}-{mark}"


def storage_of(location: Location, *, spool: Path | None = None, progress: Progress | None = None) -> Storage:
    """What to write a repository to.

    Args:
        location: a folder, the address of a bucket, or a storage, which is given back.
        spool: folder for local files of a repository in a bucket.
        progress: hears about uploads.

    Raises:
        UsageError: it can be read only, or is no address.
    """
    if isinstance(location, str) and "://" in location:
        if not is_bucket(location):
            raise UsageError(f"{location} can be read only", hint="give the folder or bucket of the repository")
        bucket = Bucket.parse(location)
        return S3Storage(bucket, spool=spool or default_spool(bucket), progress=progress)
    return FolderStorage(Path(location)) if isinstance(location, str | Path) else location


def source_of(location: Location) -> Source:
    """What to read a repository from.

    Raises:
        UsageError: it is no address.
    """
    if isinstance(location, str) and "://" in location:
        return storage_of(location) if is_bucket(location) else WebSource(location)
    return FolderSource(Path(location)) if isinstance(location, str | Path) else location
