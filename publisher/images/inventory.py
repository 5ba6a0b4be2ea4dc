"""What packages an image holds, read from its files: nothing of the image is run.

Sources: deb-control(5) for dpkg's status file; the PyPA specifications "Recording installed projects" and
"Core metadata" for Python; os-release(5).
"""

from __future__ import annotations

import email.parser
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from publisher.project.toml import Table

_SITE: Final = re.compile(r"python[23](?:\.\d+)?$")
_ROOTS: Final = ("usr/lib", "usr/local/lib", "usr/lib64", "usr/local/lib64", "opt")
_NO_LICENSE: Final = ("", "UNKNOWN")
_DEPTH: Final = 6
"""How deep below the root Python environments are looked for, in folders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledPackage:
    """One installed package."""

    kind: str
    """``deb`` or ``python``."""
    name: str
    version: str
    license: str = ""
    """As the package itself says; empty where it says nothing."""
    origin: str = ""
    """For Debian the source package, for Python the folder in the image that it is installed in."""

    def to_json(self) -> dict[str, str]:
        """The package as plain JSON values."""
        return {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "license": self.license,
            "origin": self.origin,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """The packages of an image."""

    os: str
    """``PRETTY_NAME`` of os-release; empty where there is none."""
    packages: tuple[InstalledPackage, ...]
    """Sorted by kind, name, version and origin."""

    def to_json(self) -> dict[str, object]:
        """The inventory as plain JSON values."""
        return {"os": self.os, "packages": [package.to_json() for package in self.packages]}

    @classmethod
    def from_json(cls, table: Table) -> Inventory:
        """The inventory that :meth:`to_json` wrote.

        Raises:
            ProjectError: it is something else.
        """
        keys = ("kind", "name", "version", "license", "origin")
        rows = tuple(InstalledPackage(**{key: row.text(key, "") for key in keys}) for row in table.tables("packages"))
        return cls(os=table.text("os", ""), packages=rows)


def read_inventory(rootfs: Path) -> Inventory:
    """The packages in a root file system; what cannot be read is left out.

    Links are not followed: in an image they may point anywhere, on this machine too.
    """
    packages = {*_debian(rootfs), *_python(rootfs)}
    ordered = sorted(packages, key=lambda item: (item.kind, item.name, item.version, item.origin))
    return Inventory(os=os_name(rootfs), packages=tuple(ordered))


def _text(rootfs: Path, path: str) -> str:
    """The text of a file of the image; empty where it is not a plain file inside it."""
    file = rootfs / path
    try:
        if not file.resolve().is_relative_to(rootfs.resolve()) or not file.is_file():
            return ""
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def os_name(rootfs: Path) -> str:
    """PRETTY_NAME of the os-release of a root file system; empty where it has none."""
    text = _text(rootfs, "usr/lib/os-release") or _text(rootfs, "etc/os-release")
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "PRETTY_NAME":
            try:
                return " ".join(shlex.split(value))
            except ValueError:
                return value.strip()
    return ""


def _debian(rootfs: Path) -> Iterator[InstalledPackage]:
    for paragraph in _text(rootfs, "var/lib/dpkg/status").split("\n\n"):
        fields = {
            key: value.strip()
            for key, colon, value in (line.partition(":") for line in paragraph.splitlines())
            if colon and not key.startswith((" ", "\t"))
        }
        if fields.get("Status", "").endswith(" installed") and {"Package", "Version"} <= set(fields):
            source = fields.get("Source", fields["Package"]).partition(" ")[0]
            yield InstalledPackage(kind="deb", name=fields["Package"], version=fields["Version"], origin=source)


def _python(rootfs: Path) -> Iterator[InstalledPackage]:
    for folder in _site_folders(rootfs):
        for name in sorted(path.name for path in (rootfs / folder).iterdir()):
            if name.endswith(".dist-info"):
                yield from _distribution(rootfs, folder, f"{folder}/{name}/METADATA")
            elif name.endswith(".egg-info"):
                inner = f"{folder}/{name}"
                is_file = (rootfs / inner).is_file()
                yield from _distribution(rootfs, folder, inner if is_file else f"{inner}/PKG-INFO")


def _site_folders(rootfs: Path) -> Iterator[str]:
    """Every ``site-packages`` and ``dist-packages`` below the usual roots, of each Python and environment."""
    for top in _ROOTS:
        if not (rootfs / top).resolve().is_relative_to(rootfs.resolve()):
            continue
        for folder, names, _ in os.walk(rootfs / top):
            here = Path(folder)
            depth = len(here.relative_to(rootfs).parts)
            plain = [name for name in names if not (here / name).is_symlink()]
            found = [name for name in plain if name in {"site-packages", "dist-packages"}]
            for name in found:
                yield os.path.relpath(here / name, rootfs)
            stop = found or depth > _DEPTH or _SITE.search(here.name)
            names[:] = [] if stop else [name for name in plain if name not in {"share", "include"}]


def _distribution(rootfs: Path, folder: str, metadata: str) -> Iterator[InstalledPackage]:
    headers = email.parser.HeaderParser().parsestr(_text(rootfs, metadata))
    name, version = headers.get("Name", ""), headers.get("Version", "")
    if not name or not version:
        return
    license_ = str(headers.get("License-Expression", "") or headers.get("License", "")).strip()
    first_line = license_.splitlines()[0] if license_ else ""
    if first_line in _NO_LICENSE or len(license_.splitlines()) > 1:
        classifiers = [str(value).split(" :: ") for value in headers.get_all("Classifier", [])]
        named = [parts[-1] for parts in classifiers if parts[0] == "License" and len(parts) > 1]
        first_line = "; ".join(named) or ("" if first_line in _NO_LICENSE else first_line)
    yield InstalledPackage(kind="python", name=str(name), version=str(version), license=first_line, origin=f"/{folder}")
