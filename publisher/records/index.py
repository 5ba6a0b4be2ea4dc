"""``index.json``: everything that is published, in one machine-readable file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from publisher.errors import FormatError, NotFoundError, ProjectError
from publisher.names import (
    ChannelName,
    Fqrn,
    ImageName,
    ImageVersion,
    KernelName,
    ReleaseVersion,
    RepoPath,
)
from publisher.project.toml import Table, nearest
from publisher.records.document import as_format_error, read_document, to_bytes

INDEX_FILE: Final = "index.json"
_SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexImage:
    """An image that is published; it never changes."""

    name: ImageName
    version: ImageVersion
    inputs_digest: str
    """Digest of what it was built from: recipe, build arguments, locks, files, base."""
    tree_digest: str
    """Digest of what is published (see :func:`publisher.staging.digest.tree_digest`)."""
    entries: int
    size_bytes: int
    """Sum of the sizes of its files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRelease:
    """A release that is published; it never changes."""

    version: ReleaseVersion
    digest: str
    created: str
    """UTC time, ISO 8601."""
    images: tuple[tuple[ImageName, ImageVersion], ...]
    kernels: tuple[KernelName, ...]
    retired: bool = False
    """Out of use: its kernels only say so, and images that no other release uses are gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexChannel:
    """A channel and the releases that it pointed to before."""

    name: ChannelName
    release: ReleaseVersion
    history: tuple[ReleaseVersion, ...] = ()
    """Earlier releases, the latest last; a rollback goes to the last one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """All images, releases and channels of one repository prefix."""

    fqrn: Fqrn
    prefix: RepoPath
    images: tuple[IndexImage, ...] = ()
    releases: tuple[IndexRelease, ...] = ()
    channels: tuple[IndexChannel, ...] = field(default=())

    def image(self, name: str, version: str) -> IndexImage | None:
        """A published image, or None."""
        return next((row for row in self.images if (row.name, row.version) == (name, version)), None)

    def release(self, version: str) -> IndexRelease | None:
        """A published release, or None."""
        return next((row for row in self.releases if row.version == version), None)

    def channel(self, name: str) -> IndexChannel | None:
        """A channel, or None."""
        return next((row for row in self.channels if row.name == name), None)

    def require_release(self, version: str) -> IndexRelease:
        """A published release.

        Raises:
            NotFoundError: there is none of that version.
        """
        found = self.release(version)
        if found is None:
            versions = tuple(row.version for row in self.releases)
            hint = nearest(version, versions) if versions else "nothing is published yet"
            raise NotFoundError(f"the release {version!r} is not published in {self.fqrn}", hint=hint)
        return found

    def require_channel(self, name: str) -> IndexChannel:
        """A channel.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self.channel(name)
        if found is None:
            names = tuple(row.name for row in self.channels)
            hint = nearest(name, names) if names else "nothing is published yet"
            raise NotFoundError(f"the channel {name!r} does not exist in {self.fqrn}", hint=hint)
        return found

    def with_release(self, release: IndexRelease, images: tuple[IndexImage, ...]) -> Index:
        """The index with a release and its images added."""
        new = tuple(row for row in images if self.image(row.name, row.version) is None)
        return replace(self, images=self.images + new, releases=(*self.releases, release))

    def moved(self, channel: ChannelName, release: ReleaseVersion) -> Index:
        """The index with a channel at another release; where it was goes into its history."""
        old = self.channel(channel)
        if old is None:
            return replace(self, channels=(*self.channels, IndexChannel(name=channel, release=release)))
        if old.release == release:
            return self
        history = (*(row for row in old.history if row != release), old.release)
        return self._with_channel(replace(old, release=release, history=history))

    def rolled_back(self, channel: ChannelName) -> Index:
        """The index with a channel at the release before the current one.

        Raises:
            NotFoundError: there is no such channel, or nothing before its release.
        """
        old = self.require_channel(channel)
        if not old.history:
            raise NotFoundError(
                f"the channel {channel!r} has had no release before {old.release}",
                hint=f"name the release: afpub promote RELEASE {channel}",
            )
        return self._with_channel(replace(old, release=old.history[-1], history=old.history[:-1]))

    def without(self, version: ReleaseVersion, *, keep: frozenset[tuple[ImageName, ImageVersion]]) -> Index:
        """The index with a release retired, out of every channel's history, and without images that only it used.

        Args:
            version: the release.
            keep: images that stay all the same.
        """
        releases = tuple(replace(row, retired=True) if row.version == version else row for row in self.releases)
        used = {image for row in releases if not row.retired for image in row.images} | keep
        return replace(
            self,
            releases=releases,
            images=tuple(row for row in self.images if (row.name, row.version) in used),
            channels=tuple(
                replace(row, history=tuple(item for item in row.history if item != version)) for row in self.channels
            ),
        )

    def _with_channel(self, channel: IndexChannel) -> Index:
        rows = tuple(channel if row.name == channel.name else row for row in self.channels)
        return replace(self, channels=rows)

    def to_json(self) -> dict[str, object]:
        """The document that is published as ``index.json``."""
        return {
            "schema": _SCHEMA,
            "fqrn": self.fqrn,
            "prefix": self.prefix,
            "channels": [
                {
                    "name": row.name,
                    "release": row.release,
                    "history": list(row.history),
                    "jupyter_path": f"{self.prefix}/channels/{row.name}/share/jupyter",
                }
                for row in self.channels
            ],
            "releases": [_release_json(row, self.prefix) for row in self.releases],
            "images": [_image_json(row, self.prefix) for row in self.images],
        }

    def to_bytes(self) -> bytes:
        """The bytes that are published as ``index.json``."""
        return to_bytes(self.to_json())


def _release_json(row: IndexRelease, prefix: RepoPath) -> dict[str, object]:
    return {
        "version": row.version,
        "digest": row.digest,
        "created": row.created,
        "path": f"{prefix}/releases/{row.version}",
        "images": [{"name": name, "version": version} for name, version in row.images],
        "kernels": list(row.kernels),
        "retired": row.retired,
    }


def _image_json(row: IndexImage, prefix: RepoPath) -> dict[str, object]:
    return {
        "name": row.name,
        "version": row.version,
        "path": f"{prefix}/images/{row.name}/{row.version}",
        "inputs_digest": row.inputs_digest,
        "tree_digest": row.tree_digest,
        "entries": row.entries,
        "size_bytes": row.size_bytes,
    }


def parse_index(data: bytes) -> Index:
    """The index in the bytes of ``index.json``.

    Raises:
        FormatError: it is not what afpub writes.
    """
    top = read_document(data, name=INDEX_FILE, schema=_SCHEMA)
    try:
        index = Index(
            fqrn=top.named("fqrn", Fqrn),
            prefix=top.named("prefix", RepoPath),
            images=tuple(_image(row) for row in top.tables("images")),
            releases=tuple(_release(row) for row in top.tables("releases")),
            channels=tuple(_channel(row) for row in top.tables("channels")),
        )
    except ProjectError as exc:
        raise as_format_error(exc) from exc
    for channel in index.channels:
        if index.release(channel.release) is None:
            raise FormatError(
                f"{INDEX_FILE}: the channel {channel.name!r} is at {channel.release!r}, which is not in it"
            )
    return index


def _image(row: Table) -> IndexImage:
    return IndexImage(
        name=row.named("name", ImageName),
        version=row.named("version", ImageVersion),
        inputs_digest=row.text("inputs_digest"),
        tree_digest=row.text("tree_digest"),
        entries=row.integer("entries"),
        size_bytes=row.integer("size_bytes"),
    )


def _release(row: Table) -> IndexRelease:
    return IndexRelease(
        version=row.named("version", ReleaseVersion),
        digest=row.text("digest"),
        created=row.text("created"),
        images=tuple(
            (image.named("name", ImageName), image.named("version", ImageVersion)) for image in row.tables("images")
        ),
        kernels=tuple(KernelName(name) for name in row.texts("kernels")),
        retired=row.flag("retired", default=False),
    )


def _channel(row: Table) -> IndexChannel:
    return IndexChannel(
        name=row.named("name", ChannelName),
        release=row.named("release", ReleaseVersion),
        history=tuple(ReleaseVersion(name) for name in row.texts("history")),
    )
