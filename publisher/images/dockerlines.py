"""The lines of a Dockerfile as instructions: comments gone, continued lines joined, line numbers kept.

Source: the Dockerfile reference, "Format", "Parser directives" and "escape".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from publisher.errors import RecipeError

_ESCAPE: Final = re.compile(r"#\s*escape\s*=\s*(\S+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile."""

    word: str
    """In upper case, such as ``RUN``."""
    text: str
    """What follows the word, continued lines joined."""
    line: int
    """The line where it begins, from 1."""


def instructions(text: str, *, where: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile in their order.

    Raises:
        RecipeError: the file sets another escape sign, or ends within an instruction.
    """
    parts: list[str] = []
    begin = 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("#"):
            _refuse_escape(stripped, where=f"{where}:{number}")
            continue
        if not stripped:
            continue
        begin = begin or number
        goes_on = stripped.endswith("\\")
        parts.append(stripped.removesuffix("\\").strip())
        if not goes_on:
            yield _instruction(" ".join(part for part in parts if part), line=begin)
            parts, begin = [], 0
    if parts:
        raise RecipeError(f"{where}:{begin}: the last instruction ends with a backslash")


def _instruction(text: str, *, line: int) -> Instruction:
    word, _, rest = text.partition(" ")
    return Instruction(word=word.upper(), text=rest.strip(), line=line)


def _refuse_escape(comment: str, *, where: str) -> None:
    found = _ESCAPE.fullmatch(comment)
    if found and found[1] != "\\":
        raise RecipeError(f"{where}: the escape sign {found[1]!r} is not converted", hint="use the backslash")
