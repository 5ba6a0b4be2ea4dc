"""What a release would build, reuse, publish and move; decided from digests, nothing is changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from publisher.errors import AlreadyPublishedError, ProjectError
from publisher.images.inputs import inputs_digest
from publisher.kernels.render import render_release
from publisher.names import RepoPath
from publisher.project.image import ImageDefinition
from publisher.project.kernel import KernelDefinition
from publisher.project.load import Project, needed_images
from publisher.project.manifest import ImageSelection, ReleaseManifest
from publisher.records.index import INDEX_FILE, Index
from publisher.records.release import release_digest
from publisher.tree import Entry, Kind


class Action(StrEnum):
    """What a release does with an image."""

    REUSE = "reuse"
    """It is published already, made from the same inputs."""
    BUILD = "build"
    """It is not published; it is built, or taken from the cache of builds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildStep:
    """One build of one recipe."""

    definition: ImageDefinition
    variant: str
    inputs_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """An image of the release."""

    selection: ImageSelection
    chain: tuple[BuildStep, ...]
    """The images below it and, last, the image itself."""
    action: Action

    @property
    def inputs_digest(self) -> str:
        """Digest of everything that the image is made from."""
        return self.chain[-1].inputs_digest

    @property
    def definition(self) -> ImageDefinition:
        """The image's own definition."""
        return self.chain[-1].definition


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasePlan:
    """A release before anything was done for it."""

    manifest: ReleaseManifest
    images: tuple[ImagePlan, ...]
    kernels: tuple[KernelDefinition, ...]
    files: tuple[Entry, ...] = field(repr=False)
    """The rendered files of the release's folder, ``release.json`` not yet among them."""
    digest: str
    index: Index = field(repr=False)
    """What is published now."""

    @property
    def published(self) -> bool:
        """True when the repository holds this very release."""
        return self.index.release(self.manifest.version) is not None


def build_chain(project: Project, selection: ImageSelection, *, asked_by: str) -> tuple[BuildStep, ...]:
    """The builds that make an image, the lowest base first.

    Raises:
        ProjectError: an image is missing or its files are wrong.
    """
    steps: list[BuildStep] = []
    chain = project.image_chain(selection.name, asked_by=asked_by)
    for definition in chain:
        variant = selection.variant if definition is chain[-1] else ""
        below = steps[-1].inputs_digest if steps else ""
        digest = inputs_digest(definition, variant=variant, base_digest=below)
        steps.append(BuildStep(definition=definition, variant=variant, inputs_digest=digest))
    return tuple(steps)


def make_plan(project: Project, manifest: ReleaseManifest, index: Index) -> ReleasePlan:
    """The plan of a release.

    Raises:
        ProjectError: something that the release names is missing or wrong.
        AlreadyPublishedError: its version, or the version of one of its images, is published with other
            content.
    """
    kernels = project.kernels_of(manifest)
    _check_aliases(manifest, index.prefix)
    selections = needed_images(manifest, kernels)
    images = tuple(_image_plan(project, manifest, selection, index) for selection in selections)
    files = render_release(
        kernels,
        images={selection.name: selection.version for selection in selections},
        release=manifest.version,
        links=project.settings.links,
        mount=_mount(project, index),
    )
    digest = _digest(manifest, images, files)
    published = index.release(manifest.version)
    if published is not None and published.digest != digest:
        raise AlreadyPublishedError(
            f"{manifest.file}: {manifest.version} is published in {index.fqrn} with other content",
            hint="published releases never change: give this one a new version",
        )
    if published is not None and published.retired:
        raise AlreadyPublishedError(
            f"{manifest.file}: {manifest.version} was published in {index.fqrn} and is retired",
            hint="give the release a new version",
        )
    return ReleasePlan(manifest=manifest, images=images, kernels=kernels, files=files, digest=digest, index=index)


def _mount(project: Project, index: Index) -> RepoPath | str:
    if project.settings.argv == "absolute":
        return f"/cvmfs/{index.fqrn}{index.prefix}"
    return ""


def _image_plan(project: Project, manifest: ReleaseManifest, selection: ImageSelection, index: Index) -> ImagePlan:
    chain = build_chain(project, selection, asked_by=f"{manifest.file}")
    published = index.image(selection.name, selection.version)
    if published is not None and published.inputs_digest != chain[-1].inputs_digest:
        raise AlreadyPublishedError(
            f"{manifest.file}: the image {selection.name} {selection.version} is published in {index.fqrn}, "
            "but its recipe, its locks or its base have changed since",
            hint=f"published images never change: give it a new version in [images.{selection.name}]",
        )
    action = Action.BUILD if published is None else Action.REUSE
    return ImagePlan(selection=selection, chain=chain, action=action)


def _check_aliases(manifest: ReleaseManifest, prefix: RepoPath) -> None:
    """An alias must not take the place of what afpub itself publishes."""
    for alias in manifest.aliases:
        own = [prefix / name for name in ("images", "releases", "channels", INDEX_FILE)]
        if any(f"{path}/".startswith(f"{alias.path}/") or alias.path.startswith(f"{path}/") for path in own):
            raise ProjectError(
                f"{manifest.file}: the alias {alias.path!r} is where releases are published ({prefix or '/'})",
                hint="aliases are for paths that were published by hand; choose another prefix in afpub.toml",
            )


def _digest(manifest: ReleaseManifest, images: Sequence[ImagePlan], files: Sequence[Entry]) -> str:
    aliases = {alias.path: f"{alias.kernel or alias.image}" for alias in manifest.aliases}
    return release_digest(
        {
            **({"aliases": aliases} if aliases else {}),
            "version": manifest.version,
            "notes": manifest.notes,
            "images": {f"{plan.selection.name}/{plan.selection.version}": plan.inputs_digest for plan in images},
            "files": {entry.path: _fingerprint(entry) for entry in files if entry.kind is not Kind.DIRECTORY},
        }
    )


def _fingerprint(entry: Entry) -> str:
    if entry.kind is Kind.SYMLINK:
        return f"-> {entry.target}"
    assert isinstance(entry.content, bytes), "afpub's own files are rendered in memory"
    return f"{entry.mode:o} {hashlib.sha256(entry.content).hexdigest()}"
