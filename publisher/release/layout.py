"""Where things are below the prefix of a repository: the published tree."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from publisher.names import ChannelName, ImageName, ImageVersion, ReleaseVersion, RepoPath, TagName
from publisher.records.index import INDEX_FILE
from publisher.tree import Entry, Kind

JUPYTER: Final = "share/jupyter"
"""What a site puts into JUPYTER_PATH, below a channel or a release."""


def image_path(prefix: RepoPath, name: ImageName, version: ImageVersion) -> RepoPath:
    """The root file system of an image."""
    return prefix / "images" / name / version


def release_path(prefix: RepoPath, version: ReleaseVersion) -> RepoPath:
    """The folder of a release."""
    return prefix / "releases" / version


def channel_path(prefix: RepoPath, name: ChannelName) -> RepoPath:
    """The link that is a channel."""
    return prefix / "channels" / name


def channel_target(version: ReleaseVersion) -> str:
    """What the link of a channel says; relative, so that the tree works wherever it is mounted."""
    return f"../releases/{version}"


def index_path(prefix: RepoPath) -> RepoPath:
    """The index."""
    return prefix / INDEX_FILE


def release_tag(version: ReleaseVersion) -> TagName:
    """The CVMFS tag of the revision that published a release."""
    return TagName(f"afpub-{version}")


def release_folder(tree: Path, version: ReleaseVersion) -> Path:
    """The folder of a release in a staged or exported copy of the published tree."""
    return tree / release_path(RepoPath(""), version)[1:]


def alias_target(path: RepoPath, place: RepoPath) -> str:
    """What the link at an old path says to lead to a place; relative, as all links are."""
    return os.path.relpath(place, path.parent or "/")


def file_entry(content: bytes, *, mtime_s: int, path: str = "") -> Entry:
    """A file of afpub's own."""
    return Entry(path=path, kind=Kind.FILE, mode=0o644, mtime_s=mtime_s, size_bytes=len(content), content=content)


def link_entry(target: str, *, mtime_s: int, path: str = "") -> Entry:
    """A symbolic link of afpub's own."""
    size = len(os.fsencode(target))
    return Entry(path=path, kind=Kind.SYMLINK, mode=0o777, mtime_s=mtime_s, size_bytes=size, target=target)


def folder_entry(*, mtime_s: int, path: str = "") -> Entry:
    """A folder of afpub's own."""
    return Entry(path=path, kind=Kind.DIRECTORY, mode=0o755, mtime_s=mtime_s)
