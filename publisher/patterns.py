"""Patterns for paths, as settings give them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Self

from publisher.errors import NameInvalidError

_HINT = "such as '*.png', 'share/doc' or '/data/**'; '*' and '?' stay within one name, '**' stands for any folders"


class PathPattern(str):
    """A pattern that is legal.

    Without a slash it is about the last name of a path (``*.png``); with one it is about the end of a path, name by
    name (``lib/python*/site-packages``); with a leading one about all of it (``/data/**/raw``).
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Checks the text and keeps it.

        Raises:
            NameInvalidError: nothing could match it, or it is not clear what should.
        """
        names = text.removeprefix("/").split("/")
        if "\0" in text or any(name in {"", ".", ".."} for name in names):
            raise NameInvalidError(f"{text!r} is no pattern for paths", hint=_HINT)
        if any("**" in name and name != "**" for name in names):
            raise NameInvalidError(f"{text!r} is no pattern for paths: '**' must stand alone", hint=_HINT)
        if names[-1] == "**" and len(names) == 1:
            raise NameInvalidError(f"{text!r} is no pattern for paths: write '*' for everything", hint=_HINT)
        if any(name.count("[") != name.count("]") for name in names):
            raise NameInvalidError(f"{text!r} is no pattern for paths: a bracket is not closed", hint=_HINT)
        return super().__new__(cls, text)

    @property
    def expression(self) -> str:
        """The regular expression that the path, with its leading slash, must match whole."""
        names = self.removeprefix("/").split("/")
        start = "" if self.startswith("/") else "(?:/[^/]+)*"
        return start + "".join("(?:/[^/]+)*" if name == "**" else f"/{glob_expression(name)}" for name in names)


def glob_expression(name: str, *, any_character: str = "[^/]", escapes: bool = False) -> str:
    """The regular expression of a glob for one name.

    Args:
        name: ``*``, ``?`` and ``[...]`` are special.
        any_character: what ``*`` and ``?`` may stand for.
        escapes: a backslash takes the special meaning from the next character, and brackets have none.
    """
    parts = []
    at = 0
    while at < len(name):
        letter = name[at]
        end = name.find("]", at + 2) if letter == "[" and not escapes else -1
        if escapes and letter == "\\" and at + 1 < len(name):
            parts.append(re.escape(name[at + 1]))
            at += 1
        elif letter in "*?":
            parts.append(any_character + ("*" if letter == "*" else ""))
        elif end > 0:
            inner = name[at + 1 : end].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
            inner = f"^/{inner[1:]}" if inner.startswith("!") else inner
            parts.append(f"(?!/)[{inner}]")
            at = end
        else:
            parts.append(re.escape(letter))
        at += 1
    return "".join(parts)


def matcher(patterns: Iterable[PathPattern]) -> Callable[[str], bool]:
    """Says whether a path (with a leading slash) matches one of the patterns."""
    texts = [pattern.expression for pattern in patterns]
    if not texts:
        return lambda _: False
    whole = re.compile("|".join(f"(?:{text})" for text in texts), re.DOTALL)
    return lambda path: whole.fullmatch(path) is not None
