"""What ``kernelspecs/<kernel>/kernel.toml`` says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from publisher.errors import ProjectError
from publisher.names import ImageName, KernelName
from publisher.project.atlas import AtlasRelease
from publisher.project.image import regex
from publisher.project.toml import Table, read_toml

CONNECTION_FILE = "{connection_file}"
STEP_KINDS = ("source", "asetup", "module", "conda", "venv")
"""A set-up file; a release of ATLAS; environment modules; an environment of conda or Python, by its folder."""
_FILES = frozenset({"source", "conda", "venv"})
_OF_RELEASE = "{python}"
"""Stands for the Python of the release of ATLAS: ``2.7`` or ``3``."""
_PLAIN_WORD = re.compile(r"[\w./,:=+@%~-]+", re.ASCII)
_SERIES = re.compile(r"\d+\.\d+", re.ASCII)
LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")
"""The files that launchers look for; the 64 pixel one must be there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmokeCell:
    """A cell that is run before and after publishing."""

    code: str
    expect: str = ""
    """Regular expression that is searched for in what the cell prints or returns."""
    allow_stderr: str = ""
    """Regular expression of lines on stderr that are no failure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HelpLink:
    """An entry of JupyterLab's Help menu."""

    text: str
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetupStep:
    """Something that is done before the kernel starts; a kind of ``STEP_KINDS`` and its words."""

    kind: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelDefinition:
    """A kernel as the release manager describes it."""

    name: KernelName
    folder: Path
    display_name: str
    language: str
    command: tuple[str, ...]
    """Program and arguments; one of them is ``{connection_file}``."""
    image: ImageName | None = None
    """None: the kernel runs on the host."""
    description: str = ""
    python_ver: str = ""
    """Value of PYTHON_VER while the user's set-up file is sourced."""
    user_setup: str = ""
    """The user's set-up file, sourced if it exists; ``~`` is the user's home."""
    analysisbase: str = ""
    """Argument of ``asetup`` where ATLASLocalRootBase is there; empty for none."""
    setup: tuple[SetupStep, ...] = ()
    """What is done before the kernel starts; it does not start when one of them fails."""
    packages: ImageName | None = None
    """Image with ipykernel for the Pythons that a set-up step brings."""
    retired: str = ""
    """Why the kernel is no more and what to take; then all that it does is to say so."""
    gpu: str = "none"
    """``auto``: the host's driver is bound when there is a device."""
    cuda: str = ""
    """CUDA's libraries are those of the ``image`` or of the ``host``; empty: as the site says, else of the image."""
    user_site: bool = False
    """The user's own packages below ``~/.local`` are seen."""
    history: bool = False
    """IPython keeps its history in a file below HOME."""
    interrupt_mode: str = "signal"
    debugger: bool = False
    help_links: tuple[HelpLink, ...] = ()
    metadata: str = "{}"
    """More metadata for kernel.json, as JSON text."""
    smoke: tuple[SmokeCell, ...] = ()
    logos: tuple[Path, ...] = ()

    @property
    def atlas_release(self) -> AtlasRelease | None:
        """The release of ATLAS that is set up before it starts."""
        names = (" ".join(step.words) for step in self.setup if step.kind == "asetup")
        text = self.analysisbase or next(names, "")
        return AtlasRelease(text=text) if text else None

    @property
    def brings_python(self) -> bool:
        """True if a set-up step may bring a Python 3 that has no ipykernel."""
        if self.atlas_release is not None:
            return self.atlas_release.python == "3"
        return any(step.kind in {"source", "module"} for step in self.setup)


def load_kernel(folder: Path) -> KernelDefinition:
    """The kernel that a folder describes.

    Raises:
        ProjectError: ``kernel.toml`` is missing or wrong.
    """
    table = read_toml(folder / "kernel.toml")
    try:
        name = KernelName(folder.name)
    except ProjectError as exc:
        raise table.problem(f"the folder name: {exc.message}", hint=exc.hint) from None
    keys = table.keys()
    kernel = KernelDefinition(
        name=name,
        folder=folder,
        display_name=table.text("display_name"),
        language=table.text("language"),
        image=table.named("image", ImageName) if "image" in keys else None,
        command=_command(table) if "retired" not in keys else table.texts("command"),
        description=table.text("description", ""),
        python_ver=table.text("python_ver", ""),
        user_setup=table.text("user_setup", ""),
        analysisbase=table.text("analysisbase", ""),
        setup=tuple(_setup_step(row) for row in table.tables("setup")),
        packages=table.named("packages", ImageName) if "packages" in keys else None,
        retired=table.text("retired", ""),
        gpu=table.choice("gpu", ("auto", "none"), "none"),
        cuda=table.choice("cuda", ("image", "host", ""), ""),
        user_site=table.flag("user_site", default=False),
        history=table.flag("history", default=False),
        interrupt_mode=table.choice("interrupt_mode", ("signal", "message"), "signal"),
        debugger=table.flag("debugger", default=False),
        help_links=tuple(_help_link(row) for row in table.tables("help_links")),
        metadata=json.dumps(table.free("metadata"), sort_keys=True, default=str),
        smoke=tuple(_smoke(row) for row in table.tables("smoke")),
        logos=_logos(table, folder),
    )
    image_for = _image_for(table.table("image_for"))
    table.done()
    kernel = _follow_release(table, kernel, image_for)
    _one_line(table, kernel)
    if kernel.interrupt_mode == "message" and kernel.command[:1] and "python2" in kernel.command[0]:
        raise table.problem(
            "'interrupt_mode' is 'message', and no kernel of Python 2 knows interrupt messages",
            hint="leave it out: the launcher hands signals on",
        )
    return kernel


def _image_for(rows: Table) -> dict[str, ImageName]:
    """Which image a series of releases wants."""
    for series in rows.keys():  # noqa: SIM118 - not a dict
        if not _SERIES.fullmatch(series):
            raise rows.problem(f"{series!r} is no series of releases", hint='such as "25.2"')
    return {series: rows.named(series, ImageName) for series in rows.keys()}  # noqa: SIM118 - not a dict


def _follow_release(table: Table, kernel: KernelDefinition, image_for: Mapping[str, ImageName]) -> KernelDefinition:
    """Everything that depends on the release of ATLAS, so that its name is the one line that is changed."""
    release = kernel.atlas_release
    texts = (kernel.display_name, kernel.description, *kernel.command)
    if release is None:
        if image_for or any(_OF_RELEASE in text for text in texts):
            raise table.problem(
                f"'image_for' and {_OF_RELEASE!r} go by the release of ATLAS, and the kernel sets none up",
                hint='name it: analysisbase = "AnalysisBase,21.2.111"',
            )
        return kernel
    display_name, description, *command = (text.replace(_OF_RELEASE, release.python) for text in texts)
    return replace(
        kernel,
        display_name=display_name,
        description=description,
        command=tuple(command),
        python_ver=kernel.python_ver or release.python[0],
        image=image_for.get(release.series, kernel.image),
    )


def _command(table: Table) -> tuple[str, ...]:
    command = table.texts("command")
    if not command:
        raise table.problem("the key 'command' is missing")
    if command.count(CONNECTION_FILE) != 1:
        raise table.problem(f"'command' must hold {CONNECTION_FILE!r} once, as a word of its own")
    if "" in command:
        raise table.problem("'command' holds an empty word")
    return command


def _setup_step(row: Table) -> SetupStep:
    """One step; the launcher splits its words at spaces, so that none may hold one, or anything that a shell reads."""
    kinds = [key for key in row.keys() if key in STEP_KINDS]  # noqa: SIM118 - not a dict
    if len(kinds) != 1:
        raise row.problem("a step is exactly one of " + ", ".join(STEP_KINDS), hint='such as source = "/setup.sh"')
    (kind,) = kinds
    words = row.texts(kind) if kind == "module" else (row.text(kind), *row.texts("arguments"))
    row.done()
    for word in words:
        if not _PLAIN_WORD.fullmatch(word):
            raise row.problem(f"{word!r} in {kind!r} must be one plain word of letters, digits and ./_,:=+@%~-")
    if not words or (kind in _FILES and not words[0].startswith("/")):
        raise row.problem(f"{kind!r} must be an absolute path" if words else f"{kind!r} names nothing")
    return SetupStep(kind=kind, words=words)


def _help_link(row: Table) -> HelpLink:
    link = HelpLink(text=row.text("text"), url=row.text("url"))
    if not link.url.startswith(("https://", "http://")):
        raise row.problem(f"{link.url!r} is no http(s) address")
    row.done()
    return link


def _smoke(row: Table) -> SmokeCell:
    cell = SmokeCell(code=row.text("code"), expect=regex(row, "expect"), allow_stderr=regex(row, "allow_stderr"))
    row.done()
    return cell


def _logos(table: Table, folder: Path) -> tuple[Path, ...]:
    logos = tuple(folder / name for name in LOGOS if (folder / name).is_file())
    if folder / "logo-64x64.png" not in logos:
        raise table.problem("the logo 'logo-64x64.png' is missing", hint="launchers show it on the card")
    return logos


def _one_line(table: Table, kernel: KernelDefinition) -> None:
    """The launcher's data file is one line a value, so no value may hold a line break."""
    values = (
        kernel.display_name,
        kernel.python_ver,
        kernel.user_setup,
        kernel.analysisbase,
        kernel.retired,
        *kernel.command,
    )
    for value in values:
        if any(ord(char) < 32 for char in value):
            raise table.problem(f"{value!r} holds a line break or control character")
