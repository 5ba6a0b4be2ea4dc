"""What a repository holds now, read from the repository itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from publisher.errors import FormatError, NotFoundError
from publisher.names import Fqrn, ReleaseVersion, RepoPath
from publisher.records.index import Index, parse_index
from publisher.records.release import RELEASE_FILE, ReleaseRecord, parse_release
from publisher.release.layout import index_path, release_path

Read = Callable[[RepoPath], bytes | None]
"""Gives the bytes of a published file, or None where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedState:
    """The index, and the release records when asked for."""

    index: Index
    read: Read

    def record(self, version: ReleaseVersion) -> ReleaseRecord:
        """The record of a published release.

        Raises:
            NotFoundError: the release is not published.
            FormatError: its record is missing or wrong.
        """
        self.index.require_release(version)
        path = release_path(self.index.prefix, version) / RELEASE_FILE
        data = self.read(path)
        if data is None:
            raise FormatError(f"{self.index.fqrn}: {path} is missing, but the index holds the release")
        record = parse_release(data)
        if record.version != version:
            raise FormatError(f"{self.index.fqrn}: {path} is the record of {record.version}")
        return record


def read_state(read: Read, *, fqrn: Fqrn, prefix: RepoPath) -> PublishedState:
    """What is published below a prefix; an empty index where nothing is.

    Raises:
        FormatError: the index is wrong, or is that of another repository or prefix.
    """
    data = read(index_path(prefix))
    index = Index(fqrn=fqrn, prefix=prefix) if data is None else parse_index(data)
    if (index.fqrn, index.prefix) != (fqrn, prefix):
        raise FormatError(f"{index_path(prefix)} is the index of {index.fqrn}{index.prefix}, not of {fqrn}{prefix}")
    return PublishedState(index=index, read=read)


def find_prefix(listing: Callable[[RepoPath], tuple[str, ...]], read: Read) -> RepoPath:
    """The prefix below which afpub has published, found at the root or one folder below it.

    Raises:
        NotFoundError: there is none.
    """
    root = RepoPath("")
    for prefix in (root, *(root / name for name in listing(root))):
        if read(index_path(prefix)) is not None:
            return prefix
    raise NotFoundError("the repository holds no index.json of afpub", hint="name the folder with --prefix /folder")
