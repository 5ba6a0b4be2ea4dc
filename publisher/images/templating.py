"""``{{ NAME }}`` in definition files, found and filled in as Apptainer does it.

Source: apptainer internal/pkg/build/args/reader.go NewReader and args.go ReadDefaults (1.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from publisher.errors import RecipeError

_ARGUMENT = re.compile(r"\{\{\s*(\w+)\s*\}\}", re.ASCII)
_COMMENT = re.compile(r"#[^!]")


def _matches(text: str) -> Iterator[re.Match[str]]:
    """The arguments that Apptainer sees: those with a comment sign before them on their line are none."""
    done = 0
    for match in _ARGUMENT.finditer(text):
        begin = max(text.rfind("\n", done, match.start()), done)
        if not _COMMENT.search(text, begin, match.start()):
            done = match.end()
            yield match


def argument_lines(text: str, *, first_line: int = 1) -> dict[str, int]:
    """The names of the arguments in a text, each with the line where it is used first."""
    found: dict[str, int] = {}
    for match in _matches(text):
        found.setdefault(match[1], first_line + text.count("\n", 0, match.start()))
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its arguments replaced; a value may itself name arguments, one level deep.

    Raises:
        RecipeError: an argument has no value.
    """
    parts, done = [], 0
    for match in _matches(text):
        name = match[1]
        if name not in values:
            raise RecipeError(
                f"the argument {name!r} has no value",
                hint="give it a default in %arguments, or a build argument",
            )
        value = _ARGUMENT.sub(lambda inner: values.get(inner[1], inner[0]), values[name])
        parts += [text[done : match.start()], value]
        done = match.end()
    return "".join((*parts, text[done:]))
