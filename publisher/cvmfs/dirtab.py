"""``.cvmfsdirtab``: rules of a repository that say which directories begin a nested catalog."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from publisher.cvmfs.reader import Reader
from publisher.errors import FormatError, RepositoryError
from publisher.names import RepoPath
from publisher.patterns import glob_expression

DIRTAB: Final = ".cvmfsdirtab"
"""Counts in the root of a repository only; anywhere else it is a file like any other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dirtab:
    """The rules. Source: cvmfs/path_filters/dirtab.cc, cvmfs/pathspec (2.12)."""

    positive: re.Pattern[str] | None = None
    negative: re.Pattern[str] | None = None

    def begins_catalog(self, path: str) -> bool:
        """True when the directory at a path of the repository is to begin a nested catalog."""
        if self.positive is None or not self.positive.fullmatch(path):
            return False
        return self.negative is None or not self.negative.fullmatch(path)


def parse_dirtab(data: bytes) -> Dirtab:
    """The rules in a file.

    Raises:
        FormatError: a rule is wrong; the CVMFS tools refuse the whole file then, too.
    """
    rules: dict[bool, set[str]] = {False: set(), True: set()}
    for number, line in enumerate(os.fsdecode(data).split("\n"), 1):
        text = line.strip()
        excluded = text.startswith("!")
        rule = text[excluded:].strip()
        if not rule or text.startswith("#"):
            continue
        fault = _fault(rule, excluded=excluded)
        if fault:
            raise FormatError(f"line {number} of {DIRTAB}: {rule!r} {fault}", hint="write it as /folder/*/name")
        rules[excluded].add("/" * rule.startswith("/") + "/".join(part for part in rule.split("/") if part))
    both = sorted(rules[False] & rules[True])
    if both:
        raise FormatError(f"{DIRTAB} names {both[0]} as a catalog and as none", hint="remove one of the two lines")
    return Dirtab(positive=_expression(rules[False], relaxed=False), negative=_expression(rules[True], relaxed=True))


def _fault(rule: str, *, excluded: bool) -> str:
    if not excluded and not rule.startswith("/"):
        return "does not begin with a slash"
    if not rule.strip("/"):
        return "names nothing"
    if re.search(r"(?<!\\)(?:\\\\)*\\(?![*?\\])", rule):
        return "has a backslash before something that is not special"
    return ""


def _expression(rules: Iterable[str], *, relaxed: bool) -> re.Pattern[str] | None:
    """In a negative rule a star crosses slashes; a question mark never does."""
    texts = [_relax(glob_expression(rule, escapes=True), relaxed=relaxed) for rule in sorted(rules)]
    return re.compile("|".join(f"(?:{text})" for text in texts), re.DOTALL) if texts else None


def _relax(expression: str, *, relaxed: bool) -> str:
    return expression.replace("[^/]*", ".*") if relaxed else expression


def read_dirtab(reader: Reader) -> Dirtab:
    """The rules of a repository; none where it has no such file.

    Raises:
        FormatError: they are wrong.
        RepositoryError: they cannot be read.
    """
    path = RepoPath(f"/{DIRTAB}")
    if reader.lookup(path) is None:
        return Dirtab()
    try:
        return parse_dirtab(b"".join(reader.read(path)))
    except FormatError as exc:
        raise RepositoryError(f"the repository's {exc.message}", hint=exc.hint) from exc
