"""Reading Dockerfiles into stages: what a definition file cannot do is refused here, with the line."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from publisher.errors import RecipeError
from publisher.images.dockerlines import Instruction, instructions

_REFUSED: Final = {
    "HEALTHCHECK": "images have no daemon that would run it: write a [[test]] in image.toml",
    "ONBUILD": "write what it does into the Dockerfiles that build on this one",
    "SHELL": "RUN is run by the image's /bin/sh: call another shell inside RUN",
    "USER": "images run as the user who starts them: leave it out",
}
_DROPPED: Final = frozenset({"EXPOSE", "MAINTAINER", "STOPSIGNAL", "VOLUME"})
"""Instructions that only a Docker daemon heeds."""
_KNOWN: Final = frozenset(
    {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "LABEL", "RUN", "WORKDIR"} | _DROPPED | set(_REFUSED)
)
_VARIABLE: Final = re.compile(r"(\\\$)|\$(?:\{(\w+)\}|(\w+))|(\$\{)")
_ARCHIVE: Final = re.compile(r"\.(tar|tgz|tbz2|txz|gz|gzip|bz2|xz|zst)$")


@dataclass(kw_only=True, slots=True)
class DockerStage:
    """What is known while a stage is read."""

    name: str
    arguments: dict[str, str] = field(default_factory=dict)
    """Arguments of the stage; a value may name the argument itself: ``{{NAME}}``."""
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    lines: list[str] = field(default_factory=list)
    """The plain Dockerfile that spython is given."""


class DockerReader:
    """Reads one Dockerfile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.parent
        self._defaults: dict[str, str] = {}
        self._global: dict[str, str] = {}
        self._stages: list[DockerStage] = []
        self._line = 0

    def read(self, text: str) -> tuple[DockerStage, ...]:
        """The stages of the Dockerfile.

        Raises:
            RecipeError: it does something that a definition file cannot do, or not the same way.
        """
        for instruction in instructions(text, where=f"{self._path}"):
            self._line = instruction.line
            self._take(instruction)
        if not self._stages:
            raise self._problem("there is no FROM")
        return tuple(self._stages)

    @property
    def defaults(self) -> Mapping[str, str]:
        """The arguments that have a default."""
        return self._defaults

    def _problem(self, message: str, *, hint: str = "") -> RecipeError:
        return RecipeError(f"{self._path}:{self._line}: {message}", hint=hint)

    @property
    def _stage(self) -> DockerStage:
        if not self._stages:
            raise self._problem("only ARG may stand before FROM")
        return self._stages[-1]

    def _take(self, instruction: Instruction) -> None:
        word = instruction.word
        if word not in _KNOWN:
            raise self._problem(f"unknown instruction {word!r}")
        if word in _REFUSED:
            raise self._problem(f"{word} has no counterpart in a definition file", hint=_REFUSED[word])
        if word in _DROPPED:
            return
        takers = {
            "ADD": self._copy,
            "ARG": self._arg,
            "CMD": self._cmd,
            "COPY": self._copy,
            "ENTRYPOINT": self._entrypoint,
            "ENV": self._env,
            "FROM": self._from,
            "LABEL": self._label,
            "RUN": self._run,
            "WORKDIR": self._workdir,
        }
        takers[word](instruction)

    def _fill(self, text: str, values: Mapping[str, str]) -> str:
        """The text with ``$NAME`` and ``${NAME}`` replaced where the name has a value."""

        def value(match: re.Match[str]) -> str:
            if match[1] or match[4]:
                raise self._problem(
                    f"{text!r}: only $NAME and ${{NAME}} can be converted", hint="write the value itself"
                )
            return values.get(match[2] or match[3], match[0])

        return _VARIABLE.sub(value, text)

    def _known(self) -> dict[str, str]:
        return self._stage.arguments | self._stage.environment

    def _arg(self, instruction: Instruction) -> None:
        for word in self._words(instruction):
            name, equals, default = word.partition("=")
            if not re.fullmatch(r"\w+", name):
                raise self._problem(f"{name!r} is no name of an argument")
            if equals:
                self._defaults.setdefault(name, self._fill(default, self._global))
            target = self._stage.arguments if self._stages else self._global
            target[name] = f"{{{{{name}}}}}"
            if self._stages:
                self._shell(f'export {name}="{{{{{name}}}}}"')

    def _from(self, instruction: Instruction) -> None:
        words = [word for word in instruction.text.split() if not word.startswith("--platform=")]
        if len(words) == 3 and words[1].upper() == "AS":
            name = words[2]
        elif len(words) == 1:
            name = f"stage-{len(self._stages)}"
        else:
            raise self._problem(f"FROM {instruction.text!r} is not understood")
        source = self._fill(words[0], self._global)
        if source.startswith("-") or source == "scratch":
            raise self._problem(
                f"FROM {source} cannot be converted", hint="write a definition file: Bootstrap: scratch"
            )
        if source in {stage.name for stage in self._stages}:
            raise self._problem(
                f"FROM {source} goes on with an earlier stage, which a definition file cannot",
                hint="copy what is needed with COPY --from",
            )
        self._stages.append(DockerStage(name=name, lines=[f"FROM {source} AS {name}"]))

    def _shell(self, *lines: str) -> None:
        """Lines for ``%post``; spython hands each RUN on as one of them."""
        self._stage.lines += [f"RUN {line}" for line in lines]

    def _run(self, instruction: Instruction) -> None:
        text = instruction.text
        if text.startswith("--"):
            raise self._problem(f"RUN {text.split()[0]} has no counterpart", hint="leave the option out")
        if text.startswith("["):
            raise self._problem("RUN as a JSON list is not converted", hint="write RUN with a shell command")
        if "<<" in text and re.search(r"<<-?\s*[\"']?\w", text):
            raise self._problem(
                "RUN with a here-document is not converted",
                hint="write commands, or COPY a script and run it",
            )
        # as in Docker: a shell of its own, which goes on after a command that fails
        self._shell("(", "set +e", text, ")")

    def _env(self, instruction: Instruction) -> None:
        for name, value in self._pairs(instruction).items():
            self._stage.environment[name] = value
            self._shell(f"export {name}={quoted(value)}")

    def _label(self, instruction: Instruction) -> None:
        for name, value in self._pairs(instruction).items():
            self._stage.labels[name] = value.replace("\n", " ")

    def _workdir(self, instruction: Instruction) -> None:
        folder = self._fill(instruction.text.strip("\"'"), self._known())
        if re.search(r"[\s\"'\\]", folder):
            raise self._problem(f"WORKDIR {folder!r}: blanks and quotes are not converted")
        self._stage.workdir = posixpath.normpath(posixpath.join(self._stage.workdir, folder))
        self._stage.lines.append(f"WORKDIR {self._stage.workdir}")

    def _entrypoint(self, instruction: Instruction) -> None:
        self._stage.entrypoint = self._command(instruction)
        self._stage.command = ()

    def _cmd(self, instruction: Instruction) -> None:
        self._stage.command = self._command(instruction)

    def _command(self, instruction: Instruction) -> tuple[str, ...]:
        if not instruction.text.startswith("["):
            return ("/bin/sh", "-c", instruction.text)
        try:
            words = json.loads(instruction.text)
        except ValueError:
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise self._problem(f"{instruction.word} {instruction.text} is no list of texts")
        return tuple(words)

    def _words(self, instruction: Instruction) -> list[str]:
        try:
            return shlex.split(instruction.text)
        except ValueError as exc:
            raise self._problem(f"{instruction.word}: {exc}") from None

    def _pairs(self, instruction: Instruction) -> dict[str, str]:
        """``KEY=VALUE ...``, or the old form ``KEY VALUE``."""
        first, _, rest = instruction.text.partition(" ")
        if "=" not in first:
            return {first: self._fill(rest.strip(), self._known())}
        pairs = {}
        for word in self._words(instruction):
            name, equals, value = word.partition("=")
            if not equals:
                raise self._problem(f"{instruction.word}: {word!r} has no value")
            pairs[name] = self._fill(value, self._known())
        return pairs

    def _copy(self, instruction: Instruction) -> None:
        word, text = instruction.word, instruction.text
        if text.startswith("["):
            raise self._problem(f"{word} as a JSON list is not converted", hint="write the names plainly")
        options = [item for item in text.split() if item.startswith("--")]
        words = [self._fill(item, self._known()) for item in text.split()[len(options) :]]
        origin = ""
        for option in options:
            if not option.startswith("--from=") or word == "ADD":
                raise self._problem(f"{word} {option} has no counterpart", hint="set owner and mode in a RUN")
            origin = self._origin(option.removeprefix("--from="))
        if len(words) < 2:
            raise self._problem(f"{word} needs a source and a target")
        for source in words[:-1]:
            if word == "ADD" and ("://" in source or _ARCHIVE.search(source)):
                raise self._problem(
                    f"ADD {source} downloads or unpacks, which %files cannot",
                    hint="do it in a RUN, with the digest checked",
                )
            self._copy_one(source, words, origin=origin)

    def _origin(self, name: str) -> str:
        names = [stage.name for stage in self._stages[:-1]]
        if name.isdigit() and int(name) < len(names):
            return names[int(name)]
        if name not in names:
            raise self._problem(
                f"COPY --from={name} names no earlier stage",
                hint=f"earlier stages: {', '.join(names) or 'none'}",
            )
        return name

    def _copy_one(self, source: str, words: list[str], *, origin: str) -> None:
        into_folder = words[-1].endswith("/") or words[-1] in {".", ".."} or len(words) > 2
        target = posixpath.normpath(posixpath.join(self._stage.workdir, words[-1]))
        if origin:
            pair = self._from_stage(source, target, into_folder=into_folder)
            self._stage.lines.append(f"COPY --from={origin} {pair[0]} {pair[1]}")
            return
        pair = self._from_host(source, target, into_folder=into_folder)
        self._stage.lines.append(f"COPY {pair[0]} {pair[1]}")

    def _from_host(self, source: str, target: str, *, into_folder: bool) -> tuple[str, str]:
        """Source and target as ``%files`` must have them to put the same thing in the same place."""
        source = source.lstrip("/") or "."
        if (self._folder / source).is_dir():
            if (self._folder / ".dockerignore").exists():
                raise self._problem(
                    f"COPY {source}: .dockerignore is not heeded",
                    hint="name the files, or remove .dockerignore",
                )
            # COPY copies what a folder holds, %files the folder itself
            return posixpath.join(source, "."), f"{target.rstrip('/')}/"
        if any(sign in source for sign in "*?["):
            return source, f"{target.rstrip('/')}/"
        return source, posixpath.join(target, posixpath.basename(source)) if into_folder else target

    def _from_stage(self, source: str, target: str, *, into_folder: bool) -> tuple[str, str]:
        """The same for another stage, where it is not known what is a folder."""
        name = posixpath.basename(source.rstrip("/"))
        if into_folder and source.endswith("/") and posixpath.basename(target) != name:
            raise self._problem(
                f"COPY --from of the folder {source} to {target}: all of it would land in {target}/{name}",
                hint="give the target the same last name, and move it in a RUN",
            )
        if into_folder and not source.endswith("/"):
            return source, f"{target.rstrip('/')}/"
        if posixpath.basename(target) == name:
            # merges into a folder that is there already; to its own name it would land one level deeper
            return source.rstrip("/"), f"{posixpath.dirname(target).rstrip('/')}/"
        return source.rstrip("/"), target


def quoted(value: str) -> str:
    """For a shell, with variables left to be replaced and nothing else."""
    for sign in ("\\", '"', "`", "$("):
        value = value.replace(sign, "\\" + sign)
    return f'"{value}"'
