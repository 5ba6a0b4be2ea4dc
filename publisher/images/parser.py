"""Reading definition files exactly as Apptainer does, with better messages where it would refuse.

Source: apptainer pkg/build/types/parser/deffile.go (1.4).
"""

from __future__ import annotations

import difflib
import re
from itertools import pairwise
from pathlib import Path
from typing import Final

from publisher.errors import RecipeError
from publisher.images.definition import Definition, Header, Section, Stage

SECTIONS: Final = (
    "arguments",
    "environment",
    "files",
    "help",
    "labels",
    "post",
    "pre",
    "runscript",
    "setup",
    "startscript",
    "test",
)
APP_SECTIONS: Final = (
    "appenv",
    "appfiles",
    "apphelp",
    "appinstall",
    "applabels",
    "apprun",
    "appstart",
    "apptest",
)
HEADERS: Final = (
    "bootstrap",
    "confurl",
    "fingerprints",
    "from",
    "include",
    "includecmd",
    "library",
    "mirrorurl",
    "modules",
    "namespace",
    "osversion",
    "otherurl",
    "product",
    "productpgp",
    "regcode",
    "registerurl",
    "registry",
    "setopt",
    "stage",
    "updateurl",
    "user",
)
AGENTS: Final = (
    "arch",
    "busybox",
    "debootstrap",
    "docker",
    "docker-archive",
    "docker-daemon",
    "dnf",
    "library",
    "localimage",
    "oci",
    "oci-archive",
    "oras",
    "scratch",
    "shub",
    "yum",
    "zypper",
)
_HEADER_SPELLING: Final = {
    "bootstrap": "Bootstrap",
    "from": "From",
    "includecmd": "IncludeCmd",
    "mirrorurl": "MirrorURL",
    "osversion": "OSVersion",
    "otherurl": "OtherURL",
    "updateurl": "UpdateURL",
}

_STAGE = re.compile(r"^bootstrap:", re.IGNORECASE | re.MULTILINE)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def read_definition(path: Path) -> Definition:
    """The definition file at a path.

    Raises:
        RecipeError: it cannot be read, or Apptainer would refuse it.
    """
    try:
        # newlines are kept as they are: a carriage return is part of the line for Apptainer too
        text = path.read_bytes().decode("utf-8")
    except OSError as exc:
        raise RecipeError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise RecipeError(f"{path} is not text in UTF-8") from exc
    return parse_definition(text, where=str(path))


def parse_definition(text: str, *, where: str) -> Definition:
    """A definition file as a value; its ``text`` is the argument again, byte for byte.

    Args:
        text: the definition file.
        where: name of it for messages.

    Raises:
        RecipeError: Apptainer would refuse it; names the line and the nearest right word.
    """
    starts = [match.start() for match in _STAGE.finditer(text)]
    if not starts:
        raise RecipeError(
            f"{where}: there is no 'Bootstrap:' header",
            hint="begin with what the image is made from, such as 'Bootstrap: localimage'",
        )
    opening = text[: starts[0]]
    _refuse_sections_before_header(opening, where=where)
    stages = tuple(
        _stage(text[start:end], line=text.count("\n", 0, start) + 1, where=where)
        for start, end in pairwise((*starts, len(text)))
    )
    return Definition(where=where, opening=opening, stages=stages)


def _refuse_sections_before_header(opening: str, *, where: str) -> None:
    for number, line in enumerate(_LINE.findall(opening), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            raise RecipeError(
                f"{where}:{number}: {stripped!r} stands before the 'Bootstrap:' header",
                hint="'Bootstrap:' must be the first keyword, at the beginning of its line",
            )


def _stage(text: str, *, line: int, where: str) -> Stage:
    lines = _LINE.findall(text)
    heads = [index for index, item in enumerate(lines) if item.lstrip().startswith("%")]
    first = heads[0] if heads else len(lines)
    sections = tuple(
        _section(lines[begin:end], line=line + begin, where=where) for begin, end in pairwise((*heads, len(lines)))
    )
    headers = _headers(lines[:first], first_line=line, where=where)
    stage = Stage(preamble="".join(lines[:first]), headers=headers, sections=sections, line=line)
    agent = stage.header("bootstrap")
    if agent not in AGENTS and "{{" not in agent:
        raise RecipeError(f"{where}:{line}: unknown bootstrap agent {agent!r}", hint=_nearest(agent, AGENTS))
    return stage


def _section(lines: list[str], *, line: int, where: str) -> Section:
    head = lines[0]
    if not head.startswith("%"):
        raise RecipeError(
            f"{where}:{line}: {head.strip()!r} is indented, but begins with '%' and so starts a section",
            hint="move it to the beginning of the line; inside a script put something before the '%'",
        )
    name, _, arguments = head.rstrip("\r\n").lstrip("%").partition(" ")
    key = name.strip().lower()
    if key not in SECTIONS and key not in APP_SECTIONS:
        raise RecipeError(
            f"{where}:{line}: unknown section '%{name.strip()}'",
            hint=_nearest(key, (*SECTIONS, *APP_SECTIONS), mark="%"),
        )
    if key in APP_SECTIONS and not arguments.strip():
        raise RecipeError(f"{where}:{line}: '%{key}' names no app", hint=f"write '%{key} NAME'")
    return Section(name=key, arguments=arguments.strip(), head=head, body="".join(lines[1:]), line=line)


def _headers(lines: list[str], *, first_line: int, where: str) -> tuple[Header, ...]:
    found = []
    pending: Header | None = None
    for number, line in enumerate(lines, start=first_line):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            found += [pending] if pending else []
            pending = None
            continue
        text = stripped.split("#")[0].strip()
        if pending:
            header = Header(keyword=pending.keyword, value=pending.value + text, line=pending.line)
        else:
            header = _header(text, line=number, where=where)
        pending = None
        if header.value.endswith("\\"):
            pending = Header(keyword=header.keyword, value=header.value[:-1], line=header.line)
        else:
            found.append(header)
    return (*found, pending) if pending else tuple(found)


def _header(text: str, *, line: int, where: str) -> Header:
    keyword, colon, value = text.partition(":")
    key = keyword.strip().lower()
    if not colon:
        raise RecipeError(
            f"{where}:{line}: {text!r} is neither a header ('Keyword: value') nor a section",
            hint="sections begin with '%', comments with '#'",
        )
    if key not in HEADERS and re.sub(r"\d+$", "", key) != "otherurl":
        words = tuple(_HEADER_SPELLING.get(word, word.capitalize()) for word in HEADERS)
        raise RecipeError(
            f"{where}:{line}: unknown header keyword {keyword.strip()!r}",
            hint=_nearest(_HEADER_SPELLING.get(key, key.capitalize()), words),
        )
    return Header(keyword=key, value=value.strip(), line=line)


def _nearest(word: str, words: tuple[str, ...], *, mark: str = "") -> str:
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{mark}{close[0]}'?"
    return f"known: {', '.join(mark + item for item in words)}"
