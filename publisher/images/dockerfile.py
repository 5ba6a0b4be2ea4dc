"""Dockerfiles as recipes: spython reads them, after what it gets wrong was settled or refused.

What spython 0.3.14 gets wrong, each with what is done about it here:

* ``ARG`` is not substituted, and has no value from outside: arguments become ``%arguments``.
* ``ENV`` becomes assignments that ``%post`` does not export, and some of its forms crash: parsed here.
* ``RUN`` leaks its working folder and variables into the next one, and stops at the first failing command of
  a list: each is given a shell of its own. With options, as JSON or with a here-document: refused.
* A last stage without a name is merged into the first one: every stage is given a name.
* ``LABEL`` becomes one key with the whole text, ``ENTRYPOINT`` and ``CMD`` lose their quoting: parsed here.
* ``COPY`` of folders and to relative paths lands elsewhere, its options become file names: settled or
  refused.
* ``WORKDIR`` moves the user who starts the image: heeded while building only.
* ``SHELL``, ``USER``, ``ONBUILD``, ``HEALTHCHECK``, and ``ADD`` of addresses and archives have no counterpart
  or a wrong one: refused.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spython.logger import bot
from spython.main.parse.parsers import DockerParser

from publisher.errors import RecipeError
from publisher.images.dockerstages import DockerReader, DockerStage, quoted

_ARGUMENT: Final = re.compile(r"\{\{(\w+)\}\}")
_LOCAL: Final = ("docker-archive", "oci-archive", "oci", "localimage")
"""Bootstrap agents that may stand before the name in FROM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parsed:
    """What spython read of one stage."""

    source: str
    install: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    layers: Mapping[str, tuple[tuple[str, str], ...]]


def convert_dockerfile(path: Path) -> str:
    """The definition file that does what a Dockerfile does.

    ``FROM`` may name, beside a registry image, the base of ``image.toml`` (``ARG BASE`` and ``FROM $BASE``)
    and local archives (``docker-archive:FILE``, ``oci-archive:FILE``).

    Raises:
        RecipeError: the Dockerfile does something that a definition file cannot do, or not the same way.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RecipeError(f"{path} cannot be read: {exc}") from exc
    reader = DockerReader(path)
    stages = reader.read(text)
    parsed = _parse_with_spython("".join(f"{line}\n" for stage in stages for line in stage.lines))
    parts = [_write_stage(stage, parsed[stage.name], reader.defaults, last=stage is stages[-1]) for stage in stages]
    return f"# Made from {path.name}\n" + "\n".join(parts)


def _parse_with_spython(plain: str) -> dict[str, _Parsed]:
    """What spython makes of a plain Dockerfile, stage by stage."""
    level, bot.level = bot.level, 0
    try:
        with (
            tempfile.TemporaryDirectory(prefix="afpub-") as folder,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            file = Path(folder) / "Dockerfile"
            file.write_text(plain, encoding="utf-8")
            recipes = DockerParser(str(file)).recipe
    finally:
        bot.level = level
    return {
        str(name): _Parsed(
            source=str(recipe.fromHeader).strip(),
            install=tuple(str(line).strip() for line in recipe.install),
            files=tuple((str(source), str(target)) for source, target in recipe.files),
            layers={
                str(layer): tuple((str(source), str(target)) for source, target in pairs)
                for layer, pairs in recipe.layer_files.items()
            },
        )
        for name, recipe in recipes.items()
    }


def _write_stage(stage: DockerStage, parsed: _Parsed, defaults: Mapping[str, str], *, last: bool) -> str:
    """A stage as text; spython's own writer loses quoting and labels."""
    source = _ARGUMENT.sub(r"{{ \1 }}", parsed.source)
    agent, colon, rest = source.partition(":")
    if source == "{{ BASE }}":
        agent = "localimage"
    elif colon and agent in _LOCAL:
        source = rest
    else:
        agent = "docker"
    text = f"Bootstrap: {agent}\nFrom: {source}\nStage: {stage.name}\n"
    wanted = {name: value for name, value in defaults.items() if name != "BASE"}
    text += _section("arguments", [f"{name}={value}" for name, value in wanted.items()])
    for layer, pairs in parsed.layers.items():
        text += _section(f"files from {layer}", [" ".join(pair) for pair in pairs])
    text += _section("files", [" ".join(pair) for pair in parsed.files])
    text += _section("post", list(parsed.install))
    if not last:
        return text
    text += _section("environment", [f"export {k}={quoted(v)}" for k, v in stage.environment.items()])
    text += _section("labels", [f"{name} {value}" for name, value in stage.labels.items()])
    return text + _section("runscript", _runscript(stage))


def _runscript(stage: DockerStage) -> list[str]:
    """What Docker does: arguments of the user take the place of CMD."""
    if not stage.entrypoint and not stage.command:
        return []
    entry, command = shlex.join(stage.entrypoint), shlex.join(stage.command)
    return [
        f'if [ "$#" -gt 0 ]; then exec {entry} "$@"; fi'.replace("exec  ", "exec "),
        f"exec {entry} {command}".replace("exec  ", "exec ").rstrip(),
    ]


def _section(name: str, lines: list[str]) -> str:
    return f"\n%{name}\n" + "".join(f"    {line}\n" for line in lines) if lines else ""
