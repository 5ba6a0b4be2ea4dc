"""Taking a release out of use: its kernels say so and name the successor, images that only it used go."""

from __future__ import annotations

from publisher.backends.base import Backend, Changeset, Published
from publisher.errors import FormatError, UsageError
from publisher.kernels.render import KERNELS
from publisher.names import ImageName, ImageVersion, KernelName, ReleaseVersion, RepoPath
from publisher.records.index import Index
from publisher.release.channels import index_graft
from publisher.release.layout import file_entry, image_path, release_path
from publisher.release.state import PublishedState
from publisher.tree import Graft

_REPLACED = ("MODE", "REASON", "SUCCESSOR", "TRY")
"""Keys of kernel.conf that say that a kernel is no more (see libexec/launch)."""


def retire(  # noqa: PLR0913 - what, why, for whom, and when
    backend: Backend,
    state: PublishedState,
    release: str,
    *,
    successor: str,
    reason: str,
    mtime_s: int,
) -> Published:
    """Takes a release out of use in one revision.

    Its folder stays, so that notebooks and scripts that name it are told what to do; channels forget it.

    Args:
        backend: where it is published.
        state: what is published.
        release: the release.
        successor: the release that takes its place; empty for none.
        reason: a sentence for users; empty for none.
        mtime_s: time of the new files, seconds since 1970.

    Raises:
        NotFoundError: the release or its successor is not published.
        UsageError: a channel is at the release, the successor is retired itself, or the reason is no single line.
    """
    index = retired_index(state, release, successor)
    if index == state.index:
        return Published(revision=backend.head(), new=False)
    if not reason.isprintable():
        raise UsageError("the reason must be one line of text")
    version = ReleaseVersion(release)
    row = state.index.require_release(version)
    kept = {(image.name, image.version) for image in index.images}
    confs = (
        _conf_graft(state, version, kernel, successor=successor, reason=reason, mtime_s=mtime_s)
        for kernel in row.kernels
    )
    return backend.publish(
        Changeset(
            base=backend.head(),
            grafts=(*confs, index_graft(index, mtime_s=mtime_s)),
            removals=tuple(image_path(index.prefix, *image) for image in row.images if image not in kept),
            description=f"retire_{version}",
        )
    )


def retired_index(state: PublishedState, release: str, successor: str) -> Index:
    """The index with a release retired; raises as :func:`retire`."""
    index = state.index
    row = index.require_release(release)
    held = [channel.name for channel in index.channels if channel.release == row.version]
    if held:
        raise UsageError(
            f"the channel {held[0]!r} is at {row.version}: its users would lose every kernel",
            hint=f"move the channel first: afpub promote RELEASE {held[0]}",
        )
    if successor:
        following = index.require_release(successor)
        if following.retired or following.version == row.version:
            raise UsageError(f"the successor {successor} is retired itself", hint="name a release that is in use")
    return index.without(row.version, keep=_aliased(state))


def _aliased(state: PublishedState) -> frozenset[tuple[ImageName, ImageVersion]]:
    """Images that the links at old paths lead to, whichever release made them: those paths stay valid."""
    found = set()
    for row in state.index.releases:
        targets = {target for _, target in state.record(row.version).aliases}
        found |= {
            (name, version)
            for name, version in row.images
            for target in targets
            if target.endswith(f"/images/{name}/{version}")
        }
    return frozenset(found)


def _conf_graft(  # noqa: PLR0913 - see retire
    state: PublishedState, version: ReleaseVersion, kernel: KernelName, *, successor: str, reason: str, mtime_s: int
) -> Graft:
    path = RepoPath(f"{release_path(state.index.prefix, version)}/{KERNELS}/{kernel}/kernel.conf")
    data = state.read(path)
    if data is None:
        raise FormatError(f"{state.index.fqrn}: {path} is missing, but the index holds the kernel")
    return Graft(at=path, tree=(file_entry(retired_conf(data, successor=successor, reason=reason), mtime_s=mtime_s),))


def retired_conf(data: bytes, *, successor: str, reason: str) -> bytes:
    """The data file of a kernel that says that it is no more."""
    lines = [line for line in data.decode().splitlines() if line.partition("=")[0] not in _REPLACED]
    told = {"MODE": "retired", "REASON": reason, "SUCCESSOR": f"release {successor}" if successor else ""}
    lines += [f"{key}={value}" for key, value in told.items() if value]
    return ("\n".join(lines) + "\n").encode()
