"""Symbolic links of a tree that lead nowhere or out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from publisher.report import Finding, Report, collect, error, note
from publisher.tree import Entry, Kind

_MAX_LINKS: Final = 40
"""As many links as Linux follows before it gives up (MAXSYMLINKS)."""
_AT_RUN_TIME: Final = ("proc", "sys", "dev", "run", "tmp", "var/run", "var/lock", "var/tmp", "cvmfs", "home")
"""Folders of an image that are empty when it is published and filled when it runs."""


def check_links(entries: Sequence[Entry], *, where: str, strict: bool) -> Report:
    """What is wrong with the links of a tree.

    A link out of an image's root is harmless inside the container (there ``/..`` is ``/``) but leads into
    the host when the published folder is looked at. Links into folders that are filled at run time are right.

    Args:
        entries: the tree.
        where: its name for the report.
        strict: broken and escaping links are errors (afpub's own files), not notes (images).
    """
    return collect(_findings(entries, where=where, strict=strict))


def _findings(entries: Sequence[Entry], *, where: str, strict: bool) -> Iterator[Finding]:
    by_path = {entry.path: entry for entry in entries}
    make = error if strict else note
    for entry in entries:
        if entry.kind is not Kind.SYMLINK:
            continue
        place = f"{where}:/{entry.path}"
        if _escapes(entry):
            yield make("escaping-link", place, f"leads out of the tree: {entry.target!r}")
        elif not _resolves(entry, by_path):
            yield make("broken-link", place, f"leads nowhere: {entry.target!r}")


def _escapes(entry: Entry) -> bool:
    if entry.target.startswith("/"):
        return False
    depth = len(entry.parent.split("/")) if entry.parent else 0
    for part in entry.target.split("/"):
        depth += -1 if part == ".." else int(part not in {"", "."})
        if depth < 0:
            return True
    return False


def _resolves(link: Entry, by_path: dict[str, Entry]) -> bool:
    todo = [part for part in link.target.split("/") if part not in {"", "."}][::-1]
    done = [] if link.target.startswith("/") or not link.parent else link.parent.split("/")
    links = 1
    while todo:
        part = todo.pop()
        if part == "..":
            done = done[:-1]
            continue
        path = "/".join([*done, part])
        if path in _AT_RUN_TIME or path.startswith(tuple(f"{name}/" for name in _AT_RUN_TIME)):
            return True
        entry = by_path.get(path)
        if entry is None:
            return False
        if entry.kind is not Kind.SYMLINK:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            return False
        todo += [piece for piece in entry.target.split("/") if piece not in {"", "."}][::-1]
        if entry.target.startswith("/"):
            done = []
    return True
