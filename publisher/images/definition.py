"""Singularity definition files as values that keep every byte; :mod:`publisher.images.parser` makes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publisher.images.templating import argument_lines, fill

_FILE_WORD = re.compile(r"(?:[^\s\"']*\{\{\s*\w+\s*\}\}*[^\s{}\"']*)+|[^\s\"']+|\"[^\"]*\"|'[^']*'?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """One ``Keyword: value`` of a stage."""

    keyword: str
    """In lower case."""
    value: str
    """Without comment, continuation lines joined."""
    line: int
    """Line of the file, from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCopy:
    """One line of a ``%files`` section."""

    source: str
    target: str
    """Empty where the line gives none: the same path as ``source``."""
    line: int
    stage: str = ""
    """Name of the stage that the source is taken from; empty for the host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One section, from its ``%name`` line up to the next section."""

    name: str
    """In lower case, without the percent sign."""
    arguments: str
    """What follows the name on its line, such as ``-c /bin/bash``, ``from build`` or the name of an app."""
    head: str
    """The ``%name`` line as it is, with its line end."""
    body: str
    """All the lines below it as they are."""
    line: int
    """Line of the ``%name`` line in the file, from 1."""

    @property
    def text(self) -> str:
        """The section as it stands in the file."""
        return self.head + self.body

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines of the body with their numbers in the file."""
        yield from enumerate(self.body.split("\n"), start=self.line + 1)

    def rows(self) -> Iterator[tuple[int, str]]:
        """The lines that say something: stripped, without empty ones and comments."""
        for number, line in self.lines():
            stripped = line.strip()
            if stripped and not stripped.startswith("#"):
                yield number, stripped


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A ``Bootstrap:`` header and its sections."""

    preamble: str
    """The text of the header with its comments and empty lines as they are."""
    headers: tuple[Header, ...]
    sections: tuple[Section, ...]
    line: int
    """First line in the file, from 1."""

    @property
    def text(self) -> str:
        """The stage as it stands in the file."""
        return self.preamble + "".join(section.text for section in self.sections)

    def header(self, keyword: str) -> str:
        """The value of a header keyword (lower case), empty where it is not there; the last one counts."""
        found = [header.value for header in self.headers if header.keyword == keyword]
        return found[-1] if found else ""

    def named(self, name: str) -> tuple[Section, ...]:
        """The sections of a name, in the order of the file."""
        return tuple(section for section in self.sections if section.name == name)

    def script(self, name: str) -> str:
        """The text of a section that Apptainer runs: the bodies of all sections of the name, joined."""
        return "".join(section.body for section in self.named(name))

    def defaults(self) -> dict[str, str]:
        """The arguments that ``%arguments`` gives a default."""
        found = {}
        for section in self.named("arguments"):
            for _, row in section.rows():
                key, equals, value = row.partition("=")
                if equals and key.strip():
                    found[key.strip()] = value.strip()
        return found

    def arguments(self) -> dict[str, int]:
        """The ``{{ NAME }}`` that Apptainer fills in, each with the line of the file where it comes first."""
        return argument_lines(self.text, first_line=self.line)

    def labels(self) -> dict[str, str]:
        """What ``%labels`` says."""
        rows = [row for section in self.named("labels") for _, row in section.rows()]
        pairs = [row.partition(" ") for row in rows]
        return {key: value.strip() for key, _, value in pairs}

    def copies(self) -> tuple[FileCopy, ...]:
        """The lines of ``%files`` and ``%appfiles``."""
        found = []
        for section in (*self.named("files"), *self.named("appfiles")):
            words = section.arguments.split()
            stage = words[1] if section.name == "files" and len(words) == 2 and words[0] == "from" else ""
            for number, row in section.rows():
                parts = [part.strip("\"'") for part in _FILE_WORD.findall(row)]
                target = parts[1] if len(parts) > 1 else ""
                found.append(FileCopy(source=parts[0], target=target, line=number, stage=stage))
        return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A definition file; :attr:`text` is the file, byte for byte."""

    where: str
    """The name that messages use, mostly the path."""
    opening: str
    """Text before the first ``Bootstrap:`` (comments)."""
    stages: tuple[Stage, ...]

    @property
    def text(self) -> str:
        """The definition file as it is."""
        return self.opening + "".join(stage.text for stage in self.stages)

    @property
    def final(self) -> Stage:
        """The stage that becomes the image: the last one."""
        return self.stages[-1]

    def defaults(self) -> dict[str, str]:
        """The arguments that have a default in any stage."""
        return {key: value for stage in self.stages for key, value in stage.defaults().items()}

    def arguments(self) -> frozenset[str]:
        """The names of all ``{{ NAME }}`` that Apptainer fills in."""
        return frozenset(name for stage in self.stages for name in stage.arguments())

    def required(self) -> frozenset[str]:
        """The arguments that must be given, because their stage has no default for them."""
        return frozenset(name for stage in self.stages for name in stage.arguments() if name not in stage.defaults())

    def filled(self, values: Mapping[str, str]) -> str:
        """The text that Apptainer builds from: each ``{{ NAME }}`` replaced by its value or default.

        Raises:
            RecipeError: an argument has no value.
        """
        parts = [fill(stage.text, stage.defaults() | dict(values)) for stage in self.stages]
        return self.opening + "".join(parts)
