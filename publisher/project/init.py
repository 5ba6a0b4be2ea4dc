"""A new publishing project that releases as it is."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from publisher.errors import UsageError
from publisher.names import Fqrn, ReleaseVersion
from publisher.project.settings import SETTINGS_FILE

_TEXT = (".def", ".md", ".toml")


def init_project(folder: Path, *, fqrn: Fqrn, version: ReleaseVersion) -> tuple[Path, ...]:
    """The files of the new project, as they were written.

    Args:
        folder: made if it is not there; it may hold other files, but none of the project's own.
        fqrn: the repository that the project will publish into.
        version: version of the first release.

    Raises:
        UsageError: a file is there already; nothing was written.
    """
    template = resources.files("publisher.project") / "template"
    words = {"@FQRN@": fqrn, "@VERSION@": version}
    files = {folder / path: data for path, data in _files(template, words, "")}
    there = [path for path in files if path.exists()]
    if there:
        raise UsageError(
            f"{there[0]} is there already",
            hint=f"choose an empty folder; a folder with {SETTINGS_FILE} is a project already",
        )
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tuple(files)


def _files(folder: Traversable, words: dict[str, str], prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        path = f"{prefix}{item.name}"
        if item.is_dir():
            found += _files(item, words, f"{path}/")
            continue
        data = item.read_bytes()
        if item.name.endswith(_TEXT):
            text = data.decode()
            for word, value in words.items():
                text = text.replace(word, value)
            data = text.encode()
        found.append((".gitignore" if path == "gitignore" else path, data))
    return found
