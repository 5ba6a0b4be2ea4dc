"""What a hand-written kernelspec really starts: argv, and the shell script that it mostly calls, read as text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from publisher.project.kernel import CONNECTION_FILE

_RUNTIMES: Final = frozenset({"singularity", "apptainer"})
_RUN_WORDS: Final = frozenset({"exec", "run", "shell"})
_WITH_VALUE: Final = frozenset(
    {
        "-B",
        "--bind",
        "-H",
        "--home",
        "--pwd",
        "--cwd",
        "--env",
        "--env-file",
        "--overlay",
        "-o",
        "--scratch",
        "-S",
        "-W",
        "--workdir",
        "--mount",
        "--network",
        "--dns",
        "--hostname",
        "--app",
        "--security",
        "--add-caps",
        "--drop-caps",
        "--apply-cgroups",
        "--fusemount",
    }
)
"""Options of the runtimes that take a word of their own."""
_MOST_BYTES: Final = 1 << 18
_SETUP = re.compile(r"(~|\$HOME|\$\{HOME\})(/[\w./-]*\.user_setups)")
_ASETUP = re.compile(r"^\s*(?:.*[;&]\s*)?asetup\s+([^\s;&|#][^;&|#\n]*)", re.MULTILINE)
_PYTHON_VER = re.compile(r"""PYTHON_VER=["']?([\w.$]+)""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """The argv of a kernelspec."""

    argv: tuple[str, ...]
    resource_dir: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """What it comes to."""

    program: tuple[str, ...]
    """The kernel's own command, in the image where there is one; one word is ``{connection_file}``."""
    image: str = ""
    """Path or address of the image; empty where the program runs where the server runs."""
    script: str = ""
    """The script that argv calls; empty where it calls none."""
    gpu: bool = False
    user_setup: str = ""
    """The user's file that the script sources, with ``~`` for the home folder."""
    python_ver: str = ""
    analysisbase: str = ""
    """What ``asetup`` is given."""
    binds: tuple[str, ...] = ()


def read_command(command: Command) -> Launched | None:
    """What an argv comes to; None where it cannot be told from the text."""
    words = tuple(word.replace("{resource_dir}", f"{command.resource_dir}") for word in command.argv)
    text = _script_text(words)
    if text is None:
        return _launched(words)
    values = {f"{number}": word for number, word in enumerate(words)}
    variables = dict(_assignments(text, values))
    for line in reversed(_lines(text)):
        found = _launched(tuple(_words(line, values | variables, words[1:])))
        if found is not None:
            return _with_script(found, words[0], text, values | variables)
    return None


def _with_script(found: Launched, script: str, text: str, values: dict[str, str]) -> Launched:
    setup, asetup, version = _SETUP.search(text), _ASETUP.search(text), _PYTHON_VER.search(text)
    return Launched(
        program=found.program,
        image=found.image,
        script=script,
        gpu=found.gpu,
        user_setup=f"~{setup[2]}" if setup else "",
        python_ver=_expanded(version[1], values) if version else "",
        analysisbase=_expanded(asetup[1].strip(), values) if asetup else "",
        binds=found.binds,
    )


def _script_text(words: Sequence[str]) -> str | None:
    """The text of the shell script that the first word is; None where it is something else."""
    try:
        path = Path(words[0])
        if not path.is_absolute() or not path.is_file():
            return None
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES)
    except (OSError, ValueError):
        return None
    first = raw.partition(b"\n")[0]
    return raw.decode("utf-8", "replace") if first.startswith(b"#!") and b"sh" in first else None


def _lines(text: str) -> list[str]:
    joined = re.sub(r"\\\n", " ", text)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def _assignments(text: str, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Plain ``NAME=value`` lines; what would have to be run stays as it is."""
    known = dict(values)
    for line in _lines(text):
        match = re.fullmatch(r"""(?:export\s+)?([A-Za-z_]\w*)=("[^"`]*"|'[^']*'|[^\s"'`;]*)""", line)
        if match:
            known[match[1]] = _expanded(match[2].strip("\"'"), known)
            yield match[1], known[match[1]]


def _expanded(word: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)(?::?-[^}]*)?\}|\$(\w+)", lambda match: values.get(match[1] or match[2], match[0]), word)


def _words(line: str, values: dict[str, str], arguments: Sequence[str]) -> Iterator[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return
    for word in words[1:] if words[:1] == ["exec"] else words:
        if word in {"$@", "$*", "${@}"}:
            yield from arguments
        elif word != "&":
            yield _expanded(word, values)


def _launched(words: tuple[str, ...]) -> Launched | None:
    """The command in a line of words; None where they start no kernel."""
    if sum(word.count(CONNECTION_FILE) for word in words) != 1:
        return None
    start = next((at for at, word in enumerate(words) if Path(word).name in _RUNTIMES), None)
    if start is None or start + 1 >= len(words) or words[start + 1] not in _RUN_WORDS:
        return Launched(program=words) if CONNECTION_FILE in words else None
    rest = list(words[start + 2 :])
    binds, gpu = [], False
    while rest and rest[0].startswith("-"):
        option, _, value = rest.pop(0).partition("=")
        gpu |= option in {"--nv", "--rocm"}
        if option in _WITH_VALUE and not value and rest:
            value = rest.pop(0)
        if option in {"-B", "--bind"}:
            binds += value.split(",")
    if len(rest) < 2 or CONNECTION_FILE not in rest[1:]:
        return None
    return Launched(program=tuple(rest[1:]), image=rest[0], gpu=gpu, binds=tuple(binds))
