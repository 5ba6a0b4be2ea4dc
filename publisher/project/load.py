"""A whole publishing project as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from publisher.errors import NameInvalidError, ProjectError
from publisher.names import ImageName, KernelName
from publisher.project.image import ImageDefinition, load_image
from publisher.project.kernel import KernelDefinition, load_kernel
from publisher.project.manifest import ImageSelection, ReleaseManifest
from publisher.project.settings import SETTINGS_FILE, Settings, find_project, load_settings
from publisher.project.toml import nearest

KERNEL_PACKAGES = ImageName("kernel-packages")
"""The image with ipykernel for the Pythons of experiments, taken by kernels that name no other as ``packages``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """Where the project is and what its settings say; images and kernels are read when asked for."""

    settings: Settings

    @property
    def root(self) -> Path:
        """The folder of the project."""
        return self.settings.root

    def image_names(self) -> tuple[str, ...]:
        """The folders below ``images/``, sorted."""
        return _folders(self.root / "images", "image.toml")

    def kernel_names(self) -> tuple[str, ...]:
        """The folders below ``kernelspecs/``, sorted."""
        return _folders(self.root / "kernelspecs", "kernel.toml")

    def manifest_files(self) -> tuple[Path, ...]:
        """The release manifests, sorted by name."""
        return tuple(sorted((self.root / "manifests").glob("*.toml")))

    def image(self, name: ImageName, *, asked_by: str = "") -> ImageDefinition:
        """The definition of an image.

        Raises:
            ProjectError: there is no such image, or its files are wrong.
        """
        _must_exist("image", name, self.image_names(), asked_by)
        return load_image(self.root / "images" / name)

    def kernel(self, name: KernelName, *, asked_by: str = "") -> KernelDefinition:
        """The definition of a kernel.

        Raises:
            ProjectError: there is no such kernel, or its files are wrong.
        """
        _must_exist("kernel", name, self.kernel_names(), asked_by)
        return load_kernel(self.root / "kernelspecs" / name)

    def image_chain(self, name: ImageName, *, asked_by: str = "") -> tuple[ImageDefinition, ...]:
        """An image after the images it is based on, the lowest base first.

        Raises:
            ProjectError: an image is missing, or images are based on each other.
        """
        chain: list[ImageDefinition] = []
        current: ImageName | None = name
        while current is not None:
            if current in {image.name for image in chain}:
                loop = " -> ".join([*(image.name for image in chain), current])
                raise ProjectError(f"images are based on each other: {loop}")
            chain.append(self.image(current, asked_by=asked_by))
            asked_by = f"{chain[-1].folder / 'image.toml'}"
            current = chain[-1].base
        return tuple(reversed(chain))

    def kernels_of(self, manifest: ReleaseManifest) -> tuple[KernelDefinition, ...]:
        """The kernels of a release, each with its image in the release.

        Raises:
            ProjectError: a kernel is missing or wrong, or the release does not hold its image.
        """
        kernels = tuple(
            _with_packages(self.kernel(name, asked_by=f"{manifest.file}"), manifest) for name in manifest.kernels
        )
        held = tuple(image.name for image in manifest.images)
        for kernel in kernels:
            for name, what in ((kernel.image, "runs in"), (kernel.packages, "takes packages from")):
                if name and name not in held:
                    raise ProjectError(
                        f"{kernel.folder / 'kernel.toml'}: the kernel {what} the image {name!r}, "
                        f"which {manifest.file.name} does not hold",
                        hint=nearest(name, held) if held else "add it to [images]",
                    )
        return kernels


def needed_images(manifest: ReleaseManifest, kernels: Sequence[KernelDefinition]) -> tuple[ImageSelection, ...]:
    """The images of a release: those that are optional only where a kernel or an alias needs them."""
    needed = {name for kernel in kernels for name in (kernel.image, kernel.packages)}
    needed |= {alias.image for alias in manifest.aliases}
    return tuple(image for image in manifest.images if not image.optional or image.name in needed)


def _with_packages(kernel: KernelDefinition, manifest: ReleaseManifest) -> KernelDefinition:
    """A release of an experiment brings no kernel, so that whoever changes to one need not think of it."""
    if kernel.packages is None and kernel.brings_python and manifest.image(KERNEL_PACKAGES) is not None:
        return replace(kernel, packages=KERNEL_PACKAGES)
    return kernel


def load_project(start: Path) -> Project:
    """The project at or above a folder.

    Raises:
        ProjectError: there is none, or its settings are wrong.
    """
    root = find_project(start)
    if root is None:
        raise ProjectError(
            f"no {SETTINGS_FILE} in {start} or above it",
            hint="go to a publishing project, or make one with 'afpub init'",
        )
    return Project(settings=load_settings(root))


def _folders(parent: Path, marker: str) -> tuple[str, ...]:
    if not parent.is_dir():
        return ()
    names = tuple(sorted(item.name for item in parent.iterdir() if (item / marker).is_file()))
    by_fold: dict[str, str] = {}
    for name in names:
        other = by_fold.setdefault(name.lower(), name)
        if other != name:
            raise NameInvalidError(
                f"{parent}: {other!r} and {name!r} differ only by case",
                hint="JupyterLab and many file systems ignore case: rename one of them",
            )
    return names


def _must_exist(what: str, name: str, names: tuple[str, ...], asked_by: str) -> None:
    if name not in names:
        prefix = f"{asked_by}: " if asked_by else ""
        raise ProjectError(f"{prefix}there is no {what} {name!r}", hint=nearest(name, names))
