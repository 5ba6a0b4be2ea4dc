"""Static checks of everything that the release manager wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from publisher.errors import ProjectError
from publisher.images.recipe import check_recipe
from publisher.names import ImageName, KernelName
from publisher.project.load import Project
from publisher.project.manifest import load_manifest
from publisher.report import Finding, Report, collect, error, note


def check_project(project: Project) -> Report:
    """All that can be said about a project without building anything."""
    return collect(_findings(project))


def _findings(project: Project) -> Iterator[Finding]:
    images, kernels = project.image_names(), project.kernel_names()
    for name in images:
        yield from _attempt(f"images/{name}", partial(_image_findings, project, name))
    for name in kernels:
        yield from _attempt(f"kernelspecs/{name}", partial(_kernel_findings, project, name))
    for file in project.manifest_files():
        yield from _attempt(f"manifests/{file.name}", partial(_manifest_findings, project, file))
    yield note(
        "project",
        f"{project.root}",
        f"{len(images)} images, {len(kernels)} kernels, {len(project.manifest_files())} manifests",
    )


def _attempt(where: str, check: Callable[[], Report]) -> Iterator[Finding]:
    """One broken file must not hide what is wrong with the others."""
    try:
        yield from check().findings
    except ProjectError as exc:
        yield error("project", where, exc.message, hint=exc.hint)


def _image_findings(project: Project, name: str) -> Report:
    return check_recipe(project.image_chain(ImageName(name))[-1])


def _kernel_findings(project: Project, name: str) -> Report:
    project.kernel(KernelName(name))
    return Report()


def _manifest_findings(project: Project, file: Path) -> Report:
    manifest = load_manifest(file)
    project.kernels_of(manifest)
    for selection in manifest.images:
        project.image_chain(selection.name, asked_by=f"{file}")[-1].arguments(selection.variant)
    return Report()
