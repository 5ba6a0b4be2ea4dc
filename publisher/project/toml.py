"""Typed reading of TOML: parsing is validation, and every message names the file and the key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from publisher.errors import NameInvalidError, ProjectError

T = TypeVar("T")

_TYPE_NAMES: Final = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "a table",
}


class Table:
    """One table of a TOML file; remembers what was asked for, so that unknown keys are found."""

    def __init__(self, data: Mapping[str, object], *, file: Path, where: str = "") -> None:
        self._data = data
        self._known: set[str] = set()
        self.file = file
        self.where = where

    def problem(self, message: str, *, hint: str = "") -> ProjectError:
        """An error that names this file and this table."""
        place = f"{self.file}: [{self.where}]" if self.where else f"{self.file}"
        return ProjectError(f"{place}: {message}", hint=hint)

    def keys(self) -> tuple[str, ...]:
        """All keys of the table, in the order of the file."""
        return tuple(self._data)

    def _get(self, key: str, kind: type[T], default: T | None) -> T:
        self._known.add(key)
        if key not in self._data:
            if default is None:
                raise self.problem(f"the key {key!r} is missing")
            return default
        value = self._data[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.problem(f"{key!r} must be {_TYPE_NAMES[kind]}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """The text at a key; without a default the key must be there."""
        return self._get(key, str, default)

    def flag(self, key: str, *, default: bool) -> bool:
        """The truth value at a key."""
        return self._get(key, bool, default)

    def integer(self, key: str, default: int | None = None) -> int:
        """The whole number at a key."""
        return self._get(key, int, default)

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """The text at a key, which must be one of ``allowed``."""
        value = self.text(key, default)
        if value not in allowed:
            raise self.problem(
                f"{key!r} is {value!r}, which is none of {', '.join(allowed)}", hint=nearest(value, allowed)
            )
        return value

    def named(self, key: str, make: Callable[[str], T], default: str | None = None) -> T:
        """The text at a key as a validated name."""
        value = self.text(key, default)
        try:
            return make(value)
        except NameInvalidError as exc:
            raise self.problem(f"{key!r}: {exc.message}", hint=exc.hint) from None

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts at a key; empty when the key is not there."""
        values = self._get(key, list, [])
        for value in values:
            if not isinstance(value, str):
                raise self.problem(f"{key!r} must be a list of texts")
        return tuple(values)

    def table(self, key: str) -> Table:
        """The table at a key; empty when the key is not there."""
        return Table(self._get(key, dict, {}), file=self.file, where=self._below(key))

    def tables(self, key: str) -> tuple[Table, ...]:
        """The array of tables at a key; empty when the key is not there."""
        rows = self._get(key, list, [])
        made = []
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                raise self.problem(f"{key!r} must be tables, written [[{key}]]")
            made.append(Table(row, file=self.file, where=f"{self._below(key)}[{number}]"))
        return tuple(made)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """The table of texts at a key, sorted; empty when the key is not there."""
        inner = self.table(key)
        return tuple(sorted((name, inner.text(name)) for name in inner.keys()))  # noqa: SIM118 - not a dict

    def free(self, key: str) -> dict[str, object]:
        """A table whose keys are the user's own."""
        return dict(self._get(key, dict, {}))

    def _below(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def done(self) -> None:
        """Call when all known keys have been read.

        Raises:
            ProjectError: the table holds a key that nobody asked for.
        """
        for key in self._data:
            if key not in self._known:
                raise self.problem(f"unknown key {key!r}", hint=nearest(key, sorted(self._known)))


def nearest(word: str, words: tuple[str, ...] | list[str]) -> str:
    """A hint that names the nearest right word, or all of them."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(words)}"


def read_toml(file: Path) -> Table:
    """The top table of a TOML file.

    Raises:
        ProjectError: the file is not there, cannot be read, or is not TOML.
    """
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(f"{file} does not exist") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ProjectError(f"{file} cannot be read: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ProjectError(f"{file} is not TOML: {exc}") from exc
    return Table(data, file=file)
