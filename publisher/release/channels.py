"""Channels: links that move between immutable releases, together with the index, in one revision."""

from __future__ import annotations

from publisher.backends.base import Backend, Changeset, Published
from publisher.errors import UsageError
from publisher.names import ChannelName, ReleaseVersion
from publisher.records.index import Index
from publisher.release.layout import (
    channel_path,
    channel_target,
    file_entry,
    index_path,
    link_entry,
)
from publisher.release.state import PublishedState
from publisher.tree import Graft


def index_graft(index: Index, *, mtime_s: int) -> Graft:
    """The index as it is to be."""
    return Graft(at=index_path(index.prefix), tree=(file_entry(index.to_bytes(), mtime_s=mtime_s),))


def channel_graft(index: Index, channel: ChannelName, *, mtime_s: int) -> Graft:
    """The link of a channel as the index says."""
    target = channel_target(index.require_channel(channel).release)
    return Graft(at=channel_path(index.prefix, channel), tree=(link_entry(target, mtime_s=mtime_s),))


def promote(backend: Backend, state: PublishedState, release: str, channel: ChannelName, *, mtime_s: int) -> Published:
    """Moves a channel to a release; creates the channel when it is new.

    Raises:
        NotFoundError: the release is not published.
        UsageError: it is retired.
    """
    row = state.index.require_release(release)
    if row.retired:
        raise UsageError(f"the release {release} is retired", hint="release it again under a new version")
    version = row.version
    return _move(backend, state, state.index.moved(channel, version), channel, what="promote", mtime_s=mtime_s)


def rollback(
    backend: Backend, state: PublishedState, channel: ChannelName, *, mtime_s: int
) -> tuple[Published, ReleaseVersion]:
    """Moves a channel to the release before the current one, and says which that is.

    Raises:
        NotFoundError: there is no such channel, or nothing before its release.
    """
    index = state.index.rolled_back(channel)
    published = _move(backend, state, index, channel, what="rollback", mtime_s=mtime_s)
    return published, index.require_channel(channel).release


def _move(  # noqa: PLR0913 - what, where to, and when
    backend: Backend, state: PublishedState, index: Index, channel: ChannelName, *, what: str, mtime_s: int
) -> Published:
    base = backend.head()
    if index == state.index:
        return Published(revision=base, new=False)
    changeset = Changeset(
        base=base,
        grafts=(channel_graft(index, channel, mtime_s=mtime_s), index_graft(index, mtime_s=mtime_s)),
        description=f"{what}_{channel}_{index.require_channel(channel).release}",
    )
    return backend.publish(changeset)
