"""What is wrong with a tree that was made by hand, and what of it cannot be taken over as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from publisher.adoption.survey import FoundEnvironment, FoundImage, FoundKernel, Survey
from publisher.errors import DiskError, NameInvalidError
from publisher.names import KernelName
from publisher.project.kernel import CONNECTION_FILE
from publisher.report import Finding, Report, Severity, collect, error, note, warning
from publisher.staging.links import check_links
from publisher.staging.normalize import Policy, normalize
from publisher.staging.secrets import check_secrets
from publisher.tree import FolderTree

_REPLACED = re.compile(r"python(\d(\.\d+)?)?")
_LEAKS = ("PATH", "PYTHONHOME", "LD_PRELOAD")
_SECRET = re.compile(r"(?i)(token|password|passwd|secret|credential|apikey|api_key)$")


def judge(survey: Survey) -> Report:
    """All findings; where each is about is its path below the root of the tree."""
    return collect(_findings(survey))


def _findings(survey: Survey) -> Iterator[Finding]:
    by_fold: dict[str, FoundKernel] = {}
    for kernel in survey.kernels:
        where = place(survey, kernel.folder)
        yield from _kernel(kernel, where, survey)
        other = by_fold.setdefault(kernel.name.lower(), kernel)
        if other is not kernel:
            yield error(
                "kernel-name",
                where,
                f"has the name of {place(survey, other.folder)}: only one of them can be shown",
                hint="the first one found was taken; rename the folder of the other and adopt again",
            )
    for image in survey.images:
        yield from _image(image, place(survey, image.path))
    for environment in survey.environments:
        yield from _environment(environment, place(survey, environment.folder))
    for path in survey.unreadable:
        yield warning("unreadable", place(survey, path), "cannot be looked into: what it holds is not taken over")


def place(survey: Survey, path: Path) -> str:
    """A path as findings and the index have it: below the root of the tree."""
    return f"{path.relative_to(survey.root)}" if path.is_relative_to(survey.root) else f"{path}"


def _kernel(kernel: FoundKernel, where: str, survey: Survey) -> Iterator[Finding]:
    if kernel.trouble:
        yield error("kernel-json", where, f"a Jupyter server cannot read it: {kernel.trouble}")
        return
    try:
        KernelName(kernel.name)
    except NameInvalidError as exc:
        yield error("kernel-name", where, exc.message, hint="notebooks store this name: they will ask for a kernel")
    if sum(word.count(CONNECTION_FILE) for word in kernel.argv) != 1:
        yield error("kernel-json", where, f"argv must hold {CONNECTION_FILE} once: {list(kernel.argv)}")
    yield from _program(kernel, where)
    for key in ("display_name", "language"):
        if not getattr(kernel, key):
            yield warning("kernel-json", where, f"{key!r} is missing or empty")
    for name, value in kernel.env:
        if _SECRET.search(name) and value:
            yield error("secret", where, f"env sets {name}: everybody can read it", hint="withdraw it, it is known")
        elif name.endswith(_LEAKS):
            yield warning("environment", where, f"env sets {name}, which freezes one machine's value; it is left out")
        else:
            yield warning("environment", where, f"env sets {name}; it is left out", hint="set it in the recipe")
    yield from _start(kernel, where, survey)


def _program(kernel: FoundKernel, where: str) -> Iterator[Finding]:
    program = kernel.argv[0].replace("{resource_dir}", f"{kernel.folder}")
    if _REPLACED.fullmatch(program):
        yield error("program", where, f"argv begins with {program!r}, which the server replaces by its own interpreter")
    elif program.startswith("/") and not os.path.lexists(program):
        yield error("program", where, f"argv begins with {program}, which is not there")
    elif program.startswith("/") and not os.access(program, os.X_OK):
        yield error("program", where, f"argv begins with {program}, which cannot be run")


def _start(kernel: FoundKernel, where: str, survey: Survey) -> Iterator[Finding]:
    launched = kernel.launched
    if launched is None:
        yield warning("launcher", where, "what it starts cannot be told from its text: no definition is written")
        return
    if not launched.image:
        yield note("no-image", where, "it runs wherever the server runs; --image NAME puts it into an image")
    elif launched.image.startswith("/") and not Path(launched.image).exists():
        yield error("image-missing", where, f"its image {launched.image} is not there")
    elif launched.image.startswith("/") and not Path(launched.image).is_relative_to(survey.root):
        yield warning("image-elsewhere", where, f"its image {launched.image} is outside the tree that is taken over")
    for bind in launched.binds:
        source = bind.partition(":")[0]
        if source.startswith("/") and not Path(source).exists():
            yield warning("bind", where, f"it binds {source}, which is not on this machine: there it does not start")


def _image(image: FoundImage, where: str) -> Iterator[Finding]:
    if image.sif is not None and not image.sif.whole:
        yield error(
            "image-cut",
            where,
            f"the file has {image.sif.size_bytes:,} bytes, what it lists needs {image.sif.needed_bytes:,}",
            hint="it was cut off on its way: copy it again",
        )
    if not image.definition:
        yield warning("no-recipe", where, "no recipe is kept in it: nobody can build it again")
    elif "%setup" in image.definition or re.search(r"^\s+/tmp/", image.definition, re.MULTILINE):
        yield warning("recipe", where, "its recipe takes files of the machine that built it: it cannot be built again")
    if image.kind == "squashfs":
        yield warning("old-format", where, "an image of Singularity 2: newer versions may not open it")
    if image.kind == "sandbox":
        yield from _sandbox(image, where)


def _sandbox(image: FoundImage, where: str) -> Iterator[Finding]:
    if not os.path.lexists(image.path / "bin/sh"):
        yield error("image-shell", where, "it has no /bin/sh: no container runtime can start a program in it")
    try:
        tree = normalize(FolderTree(folder=image.path), where=where, policy=Policy())
    except DiskError as exc:
        yield error("unreadable", where, exc.message)
        return
    links = check_links(tree.entries, where=where, strict=False)
    found = (*tree.report.findings, *links.findings, *check_secrets(tree.entries, where=where).findings)
    counts: dict[str, int] = {}
    for finding in found:
        if finding.severity is Severity.ERROR:
            yield finding
        counts[finding.check] = counts.get(finding.check, 0) + 1
    for check, count in sorted(counts.items()):
        first = next(finding for finding in found if finding.check == check)
        if first.severity is not Severity.ERROR:
            yield note(check, first.where, f"{first.message}; {count:,} like it" if count > 1 else first.message)


def _environment(environment: FoundEnvironment, where: str) -> Iterator[Finding]:
    if not environment.python:
        yield error("environment", where, "it has no Python")
    if environment.prefix and Path(environment.prefix) != environment.folder:
        yield error(
            "moved",
            where,
            f"its scripts believe that it is at {environment.prefix}: pip, IPython and jupyter of it do not work",
            hint="make it again where it is to be; the list of its packages is in adopted/",
        )
    if environment.kind == "venv":
        yield warning("environment", where, "a virtual environment uses the Python of the machine that made it")
