"""What ``kernelspecs/<kernel>/kernel.toml`` says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import ProjectError
from publisher.names import ImageName, KernelName
from publisher.project.image import regex
from publisher.project.toml import Table, read_toml

CONNECTION_FILE = "{connection_file}"
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
class KernelDefinition:
    """A kernel as the release manager describes it."""

    name: KernelName
    folder: Path
    display_name: str
    language: str
    image: ImageName
    command: tuple[str, ...]
    """Program and arguments in the image; one of them is ``{connection_file}``."""
    description: str = ""
    python_ver: str = ""
    """Value of PYTHON_VER while the user's set-up file is sourced."""
    user_setup: str = ""
    """The user's set-up file, sourced if it exists; ``~`` is the user's home."""
    analysisbase: str = ""
    """Argument of ``asetup`` where ATLASLocalRootBase is there; empty for none."""
    gpu: str = "none"
    """``auto``: the host's NVIDIA driver is bound when there is a device."""
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
    kernel = KernelDefinition(
        name=name,
        folder=folder,
        display_name=table.text("display_name"),
        language=table.text("language"),
        image=table.named("image", ImageName),
        command=_command(table),
        description=table.text("description", ""),
        python_ver=table.text("python_ver", ""),
        user_setup=table.text("user_setup", ""),
        analysisbase=table.text("analysisbase", ""),
        gpu=table.choice("gpu", ("auto", "none"), "none"),
        user_site=table.flag("user_site", default=False),
        history=table.flag("history", default=False),
        interrupt_mode=table.choice("interrupt_mode", ("signal", "message"), "signal"),
        debugger=table.flag("debugger", default=False),
        help_links=tuple(_help_link(row) for row in table.tables("help_links")),
        metadata=json.dumps(table.free("metadata"), sort_keys=True, default=str),
        smoke=tuple(_smoke(row) for row in table.tables("smoke")),
        logos=_logos(table, folder),
    )
    table.done()
    _one_line(table, kernel)
    return kernel


def _command(table: Table) -> tuple[str, ...]:
    command = table.texts("command")
    if not command:
        raise table.problem("the key 'command' is missing")
    if command.count(CONNECTION_FILE) != 1:
        raise table.problem(f"'command' must hold {CONNECTION_FILE!r} once, as a word of its own")
    return command


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
        *kernel.command,
    )
    for value in values:
        if any(ord(char) < 32 for char in value):
            raise table.problem(f"{value!r} holds a line break or control character")
