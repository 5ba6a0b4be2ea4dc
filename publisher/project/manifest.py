"""What ``manifests/<release>.toml`` says: the content of one release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from publisher.errors import NameInvalidError
from publisher.names import ChannelName, ImageName, ImageVersion, KernelName, ReleaseVersion
from publisher.project.toml import Table, read_toml


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSelection:
    """One image of a release."""

    name: ImageName
    version: ImageVersion
    """The published folder: the version of the manifest, with ``-<variant>`` when there is one."""
    variant: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseManifest:
    """A release as the release manager describes it."""

    file: Path
    version: ReleaseVersion
    channel: ChannelName
    images: tuple[ImageSelection, ...]
    kernels: tuple[KernelName, ...]
    notes: str = ""

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
    )
    table.done()
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
    row.done()
    folder = ImageVersion(f"{version}-{variant}") if variant else version
    return ImageSelection(name=name, version=folder, variant=variant)


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
