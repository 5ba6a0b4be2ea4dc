"""What ``manifests/<release>.toml`` says: the content of one release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from publisher.errors import NameInvalidError
from publisher.names import ChannelName, ImageName, ImageVersion, KernelName, ReleaseVersion, RepoPath
from publisher.project.toml import Table, read_toml


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSelection:
    """One image of a release."""

    name: ImageName
    version: ImageVersion
    """The published folder: the version of the manifest, with ``-<variant>`` when there is one."""
    variant: str = ""
    optional: bool = False
    """Left out of the release when none of its kernels needs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """An old path of the repository that stays valid: a link to what took its place."""

    path: RepoPath
    kernel: KernelName | None = None
    """The kernel of the release's channel that it leads to; it moves with the channel."""
    image: ImageName | None = None
    """The image of the release that it leads to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseManifest:
    """A release as the release manager describes it."""

    file: Path
    version: ReleaseVersion
    channel: ChannelName
    images: tuple[ImageSelection, ...]
    kernels: tuple[KernelName, ...]
    notes: str = ""
    aliases: tuple[Alias, ...] = ()

    def image(self, name: ImageName) -> ImageSelection | None:
        """The selection of an image, or None when the release does not hold it."""
        return next((image for image in self.images if image.name == name), None)


def load_manifest(file: Path) -> ReleaseManifest:
    """The release that a file describes.

    Raises:
        ProjectError: the file is missing or wrong.
    """
    table = read_toml(file)
    images = table.table("images")
    manifest = ReleaseManifest(
        file=file,
        version=table.named("version", ReleaseVersion),
        channel=table.named("channel", ChannelName, "testing"),
        images=tuple(_selection(images, key) for key in sorted(images.keys())),
        kernels=_kernels(table),
        notes=table.text("notes", ""),
        aliases=_aliases(table),
    )
    table.done()
    _check_aliases(table, manifest)
    if not manifest.kernels and not manifest.images:
        raise table.problem("the release is empty", hint="name images in [images] and kernels in 'kernels'")
    return manifest


def _selection(images: Table, key: str) -> ImageSelection:
    row = images.table(key)
    try:
        name = ImageName(key)
    except NameInvalidError as exc:
        raise row.problem(exc.message, hint=exc.hint) from None
    variant = row.text("variant", "")
    version = row.named("version", ImageVersion)
    optional = row.flag("optional", default=False)
    row.done()
    folder = ImageVersion(f"{version}-{variant}") if variant else version
    return ImageSelection(name=name, version=folder, variant=variant, optional=optional)


def _kernels(table: Table) -> tuple[KernelName, ...]:
    names: dict[str, str] = {}
    for text in table.texts("kernels"):
        if text.lower() in names:
            other = names[text.lower()]
            how = "twice" if other == text else f"and {other!r}, which differ only by case"
            raise table.problem(
                f"'kernels' names {text!r} {how}",
                hint="JupyterLab ignores case: the last one listed would hide the other",
            )
        names[text.lower()] = text
    made = []
    for text in names.values():
        try:
            made.append(KernelName(text))
        except NameInvalidError as exc:
            raise table.problem(f"'kernels': {exc.message}", hint=exc.hint) from None
    return tuple(made)


def _aliases(table: Table) -> tuple[Alias, ...]:
    made = []
    for text, what in table.pairs("aliases"):
        kind, _, name = what.partition("/")
        try:
            path = RepoPath(text)
            if kind == "kernels":
                made.append(Alias(path=path, kernel=KernelName(name)))
            elif kind == "images":
                made.append(Alias(path=path, image=ImageName(name)))
            else:
                raise table.problem(f"the alias {text!r} leads to {what!r}", hint="write kernels/NAME or images/NAME")
        except NameInvalidError as exc:
            raise table.problem(f"the alias {text!r}: {exc.message}", hint=exc.hint) from None
    return tuple(made)


def _check_aliases(table: Table, manifest: ReleaseManifest) -> None:
    for alias in manifest.aliases:
        if not alias.path:
            raise table.problem("an alias cannot take the place of the whole repository")
        if alias.kernel is not None and alias.kernel not in manifest.kernels:
            raise table.problem(f"the alias {alias.path!r} leads to the kernel {alias.kernel!r}, which is not released")
        if alias.image is not None and manifest.image(alias.image) is None:
            raise table.problem(f"the alias {alias.path!r} leads to the image {alias.image!r}, which is not released")
        inside = [other.path for other in manifest.aliases if other.path.startswith(f"{alias.path}/")]
        if inside:
            raise table.problem(f"the alias {inside[0]!r} is below the alias {alias.path!r}, which becomes a link")
