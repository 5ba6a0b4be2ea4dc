"""``release.json``: what one release holds, and where every part of it came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from publisher.errors import NotFoundError, ProjectError
from publisher.names import ChannelName, Fqrn, ImageName, ImageVersion, KernelName, ReleaseVersion, RepoPath
from publisher.project.toml import Table
from publisher.records.document import as_format_error, read_document, to_bytes

RELEASE_FILE: Final = "release.json"
_SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A package that an image holds."""

    kind: str
    """``deb`` or ``python``."""
    name: str
    version: str
    license: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What normalizing did to one path of an image."""

    check: str
    path: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogPart:
    """What one nested catalog of an image holds."""

    path: str
    """The directory in the image that begins it; empty for the root."""
    entries: int
    """Rows, with that of the directory itself."""
    size_bytes: int
    """Sum of the sizes of its files."""
    digest: str
    """``sha256:<hex>`` of names, kinds, modes, sizes and link targets; not of contents, which need not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """An image of a release."""

    name: ImageName
    version: ImageVersion
    variant: str
    description: str
    base: str
    """Name of the image that it was built on; empty for none."""
    features: tuple[str, ...]
    licenses: tuple[str, ...]
    inputs_digest: str
    tree_digest: str
    entries: int
    size_bytes: int
    recipe: str
    """Text of the definition file as it was built."""
    builder: str
    """Name and version of the container runtime that built it."""
    os: str
    """PRETTY_NAME of the image's os-release; empty when it has none."""
    packages: tuple[Package, ...]
    changes: tuple[Change, ...]
    """What was left out, stripped or opened on the way into the repository."""
    catalogs: tuple[CatalogPart, ...] = ()
    """Its nested catalogs; none in records of older versions of afpub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """A file that afpub itself wrote."""

    path: str
    """Path below the folder of the release."""
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelRecord:
    """A kernel of a release."""

    name: KernelName
    display_name: str
    language: str
    image: ImageName | None
    """None for a kernel of the host."""
    image_version: ImageVersion | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseRecord:
    """A release as it was published."""

    version: ReleaseVersion
    digest: str
    created: str
    """UTC time, ISO 8601; not part of the digest."""
    fqrn: Fqrn
    prefix: RepoPath
    channel: ChannelName
    """The channel that the release went to first."""
    notes: str
    images: tuple[ImageRecord, ...]
    kernels: tuple[KernelRecord, ...]
    files: tuple[FileDigest, ...]
    """Every other file below the folder of the release."""
    tools: tuple[tuple[str, str], ...]
    """Programs that made the release, with their versions."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Old paths of the repository, and the targets of the links that they became."""

    def image(self, name: str) -> ImageRecord:
        """An image of the release.

        Raises:
            NotFoundError: the release does not hold it.
        """
        for row in self.images:
            if row.name == name:
                return row
        raise NotFoundError(f"the release {self.version} holds no image {name!r}")

    def to_json(self) -> dict[str, object]:
        """The document that is published as ``release.json``."""
        return {
            "schema": _SCHEMA,
            "version": self.version,
            "digest": self.digest,
            "created": self.created,
            "fqrn": self.fqrn,
            "prefix": self.prefix,
            "channel": self.channel,
            "notes": self.notes,
            "kernels": [
                {
                    "name": row.name,
                    "display_name": row.display_name,
                    "language": row.language,
                }
                | ({"image": row.image, "image_version": row.image_version} if row.image else {})
                for row in self.kernels
            ],
            "files": {row.path: row.sha256 for row in self.files},
            "tools": dict(self.tools),
            "aliases": dict(self.aliases),
            "images": [_image_json(row, self.prefix) for row in self.images],
        }

    def to_bytes(self) -> bytes:
        """The bytes that are published as ``release.json``."""
        return to_bytes(self.to_json())


def _image_json(row: ImageRecord, prefix: RepoPath) -> dict[str, object]:
    return {
        "name": row.name,
        "version": row.version,
        "variant": row.variant,
        "path": f"{prefix}/images/{row.name}/{row.version}",
        "description": row.description,
        "base": row.base,
        "features": list(row.features),
        "licenses": list(row.licenses),
        "inputs_digest": row.inputs_digest,
        "tree_digest": row.tree_digest,
        "entries": row.entries,
        "size_bytes": row.size_bytes,
        "recipe": row.recipe,
        "recipe_sha256": hashlib.sha256(row.recipe.encode()).hexdigest(),
        "builder": row.builder,
        "os": row.os,
        "packages": [
            {"kind": item.kind, "name": item.name, "version": item.version, "license": item.license}
            for item in row.packages
        ],
        "changes": [{"check": item.check, "path": item.path, "message": item.message} for item in row.changes],
        "catalogs": [
            {"path": item.path, "entries": item.entries, "size_bytes": item.size_bytes, "digest": item.digest}
            for item in row.catalogs
        ],
    }


def parse_release(data: bytes) -> ReleaseRecord:
    """The release in the bytes of ``release.json``.

    Raises:
        FormatError: it is not what afpub writes.
    """
    top = read_document(data, name=RELEASE_FILE, schema=_SCHEMA)
    try:
        return ReleaseRecord(
            version=top.named("version", ReleaseVersion),
            digest=top.text("digest"),
            created=top.text("created"),
            fqrn=top.named("fqrn", Fqrn),
            prefix=top.named("prefix", RepoPath),
            channel=top.named("channel", ChannelName),
            notes=top.text("notes"),
            images=tuple(_image(row) for row in top.tables("images")),
            kernels=tuple(_kernel(row) for row in top.tables("kernels")),
            files=tuple(FileDigest(path=path, sha256=digest) for path, digest in top.pairs("files")),
            tools=top.pairs("tools"),
            aliases=top.pairs("aliases"),
        )
    except ProjectError as exc:
        raise as_format_error(exc) from exc


def _kernel(row: Table) -> KernelRecord:
    return KernelRecord(
        name=row.named("name", KernelName),
        display_name=row.text("display_name"),
        language=row.text("language"),
        image=row.named("image", ImageName) if "image" in row.keys() else None,  # noqa: SIM118 - not a dict
        image_version=row.named("image_version", ImageVersion) if "image" in row.keys() else None,  # noqa: SIM118 - same
    )


def _image(row: Table) -> ImageRecord:
    return ImageRecord(
        name=row.named("name", ImageName),
        version=row.named("version", ImageVersion),
        variant=row.text("variant"),
        description=row.text("description"),
        base=row.text("base"),
        features=row.texts("features"),
        licenses=row.texts("licenses"),
        inputs_digest=row.text("inputs_digest"),
        tree_digest=row.text("tree_digest"),
        entries=row.integer("entries"),
        size_bytes=row.integer("size_bytes"),
        recipe=row.text("recipe"),
        builder=row.text("builder"),
        os=row.text("os"),
        packages=tuple(_package(item) for item in row.tables("packages")),
        changes=tuple(_change(item) for item in row.tables("changes")),
        catalogs=tuple(_catalog(item) for item in row.tables("catalogs")),
    )


def _package(row: Table) -> Package:
    return Package(
        kind=row.text("kind"), name=row.text("name"), version=row.text("version"), license=row.text("license")
    )


def _catalog(row: Table) -> CatalogPart:
    return CatalogPart(
        path=row.text("path"),
        entries=row.integer("entries"),
        size_bytes=row.integer("size_bytes"),
        digest=row.text("digest"),
    )


def _change(row: Table) -> Change:
    return Change(check=row.text("check"), path=row.text("path"), message=row.text("message"))


def release_digest(parts: object) -> str:
    """``sha256:<hex>`` of JSON values: what makes a release the same release."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
