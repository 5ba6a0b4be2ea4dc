"""Releases of ATLAS and the images that they are set up in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from publisher.names import ImageName
from publisher.project.kernel import KernelDefinition
from publisher.report import Finding, Report, collect, note, warning


def check_systems(kernels: Sequence[KernelDefinition], systems: Mapping[ImageName, str]) -> Report:
    """Whether kernels find what the release of ATLAS that they set up needs.

    Args:
        kernels: the kernels of a release.
        systems: the system of each image that is built, as its os-release names it.
    """
    return collect(finding for kernel in kernels for finding in _findings(kernel, systems))


def _findings(kernel: KernelDefinition, systems: Mapping[ImageName, str]) -> Iterator[Finding]:
    release = kernel.atlas_release
    if release is None:
        return
    where = f"kernelspecs/{kernel.name}"
    system = systems.get(kernel.image, "") if kernel.image else ""
    if system and not release.runs_on(system):
        series = release.series or "25.2"
        yield note(
            "atlas-system",
            where,
            f"{release.text} is made for {release.system}, and the image {kernel.image} is {system}; "
            f'where it does not work there, name an image that is: [image_for] "{series}" = "NAME"',
        )
    if release.python == "3" and kernel.packages is None:
        yield warning(
            "kernel-packages",
            where,
            f"{release.text} brings a Python 3 without ipykernel, and no image of the release has one for it",
            hint="add [images.kernel-packages] to the manifest, or name an image: packages = ...",
        )
