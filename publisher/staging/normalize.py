"""What a built tree must look like before everybody may read it; every change is listed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from publisher.report import Finding, Report, collect, error, note, warning
from publisher.tree import Entry, Kept, Kind

_SPECIAL: Final = (Kind.FIFO, Kind.SOCKET, Kind.CHAR, Kind.BLOCK)
_SET_ID: Final = 0o6000
_ODD: Final = re.compile(r"[\x00-\x1f\udc80-\udcff]")
"""Control characters, and bytes that are not UTF-8 as :func:`os.fsdecode` gives them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What to do with entries that cannot be published as they are."""

    unreadable: str = "repair"
    """``repair`` or ``refuse`` files that others cannot read and directories they cannot enter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalized:
    """A tree fit for publishing, and what was changed to make it so."""

    entries: Sequence[Entry]
    report: Report


def normalize(tree: Iterable[Entry], *, where: str, policy: Policy) -> Normalized:
    """The entries as they are to be published, in the same order.

    Devices, sockets and FIFOs go; set-id bits and file capabilities go; everything belongs to root; what
    others cannot read is opened or refused. Times stay as they are: Python judges bytecode by them.

    Args:
        tree: entries in tree order.
        where: name of the tree for the report.
        policy: what to repair and what to refuse.
    """
    findings: list[Finding] = []
    entries = Kept(_normalized(tree, where=where, policy=policy, findings=findings))
    return Normalized(entries=entries, report=collect(findings))


def _normalized(tree: Iterable[Entry], *, where: str, policy: Policy, findings: list[Finding]) -> Iterator[Entry]:
    for entry in tree:
        place = f"{where}:/{entry.path}"
        if entry.kind in _SPECIAL:
            findings.append(note("special-file", place, f"a {entry.kind.value} device or pipe was left out"))
            continue
        findings.extend(_remarks(entry, place))
        if _has_capability(entry):
            findings.append(note("capability", place, "file capabilities were removed"))
        mode = entry.mode
        if mode & _SET_ID:
            if entry.kind is Kind.FILE:
                findings.append(note("set-id", place, f"set-id bits were removed from mode {mode:04o}"))
            mode &= ~_SET_ID
        readable = _readable(entry.kind, mode)
        if readable != mode:
            message = f"others cannot read it (mode {mode:04o})"
            if policy.unreadable == "refuse":
                findings.append(
                    error("unreadable", place, message, hint="chmod it in the recipe, or set policy.unreadable")
                )
            else:
                findings.append(note("unreadable", place, f"{message}; published as {readable:04o}"))
        if (entry.mode, entry.uid, entry.gid, entry.link_group) == (readable, 0, 0, 0) and not entry.xattrs:
            yield entry
        else:
            yield entry._replace(mode=readable, uid=0, gid=0, xattrs=(), link_group=0)


def _readable(kind: Kind, mode: int) -> int:
    if kind is Kind.DIRECTORY:
        return mode | 0o555
    if kind is Kind.FILE:
        return mode | (0o555 if mode & 0o111 else 0o444)
    return mode


def _has_capability(entry: Entry) -> bool:
    if entry.kind is not Kind.FILE or not entry.mode & 0o111 or not isinstance(entry.content, str):
        return False
    try:
        return bool(os.getxattr(entry.content, "security.capability"))
    except OSError:
        return False


def _remarks(entry: Entry, place: str) -> Iterator[Finding]:
    if entry.name.startswith(".wh."):
        yield error(
            "whiteout",
            place,
            "a layer's whiteout is left in the tree: files are missing from the image",
            hint="rebuild the image; the tool that unpacked its layers did not finish",
        )
    if _ODD.search(entry.name):
        yield warning("odd-name", place, "the name holds control characters or is not UTF-8")
    if entry.kind is Kind.SYMLINK and "$(" in entry.target:
        yield error(
            "variant-link",
            place,
            f"CVMFS clients would expand the target {entry.target!r} from their environment",
            hint="replace the link in the recipe",
        )
