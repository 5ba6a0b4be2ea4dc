"""What is in a tree that was made by hand: kernels, images, environments. Looks, and changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from publisher.adoption.launcher import Command, Launched, read_command
from publisher.adoption.sif import Sif, read_sif
from publisher.errors import UsageError

_DEEPEST = 12
"""Levels below the folder that is looked at; nobody hides a kernel deeper, and links can make loops of mounts."""
_SQUASHFS = b"hsqs"
_SKIPPED = frozenset({".git", "__pycache__", "node_modules"})


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundKernel:
    """A kernelspec."""

    folder: Path
    name: str
    """Name of its folder, which notebooks store."""
    trouble: str
    """Why a Jupyter server cannot read it; empty when it can."""
    display_name: str = ""
    language: str = ""
    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    interrupt_mode: str = ""
    debugger: bool = False
    launched: Launched | None = None
    """What argv comes to when the script that it calls is read; None where that cannot be told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundImage:
    """An image: a SIF file, a plain squashfs file, or an unpacked root file system."""

    path: Path
    kind: str
    """``sif``, ``squashfs`` or ``sandbox``."""
    sif: Sif | None = None
    definition: str = ""
    """The recipe that was kept in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundEnvironment:
    """A conda environment or a virtual environment."""

    folder: Path
    kind: str
    """``conda`` or ``venv``."""
    python: str
    """Version of its Python; empty where it has none."""
    packages: tuple[str, ...]
    """For conda the addresses of the packages, which make the same environment again; else names."""
    prefix: str
    """Where its scripts believe that it is; empty where they do not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Everything that was found, each kind in the order of its path."""

    root: Path
    kernels: tuple[FoundKernel, ...]
    images: tuple[FoundImage, ...]
    environments: tuple[FoundEnvironment, ...]
    unreadable: tuple[Path, ...]
    """Folders and files that could not be looked into."""


def survey(root: Path) -> Survey:
    """Everything in a tree.

    Raises:
        UsageError: it is no folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is no folder", hint="name the tree that was published by hand")
    kernels: list[FoundKernel] = []
    images: list[FoundImage] = []
    environments: list[FoundEnvironment] = []
    unreadable: list[Path] = []
    waiting = [(root.resolve(), 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            items = sorted(os.scandir(folder), key=lambda item: item.name)
        except OSError:
            unreadable.append(folder)
            continue
        names = {item.name for item in items}
        if "kernel.json" in names:
            kernels.append(read_kernel(folder))
        elif "conda-meta" in names or "pyvenv.cfg" in names:
            environments.append(_environment(folder, conda="conda-meta" in names))
            kernels.extend(_kernels_below(folder / "share/jupyter/kernels"))
        elif ".singularity.d" in names or {"usr", "etc", "bin"} <= names:
            images.append(_sandbox(folder))
        elif depth < _DEEPEST:
            waiting += [
                (Path(item.path), depth + 1)
                for item in reversed(items)
                if item.is_dir(follow_symlinks=False) and item.name not in _SKIPPED
            ]
            images += _image_files(items, unreadable)
    return Survey(
        root=root.resolve(),
        kernels=tuple(sorted(kernels, key=lambda row: row.folder)),
        images=tuple(sorted(images, key=lambda row: row.path)),
        environments=tuple(sorted(environments, key=lambda row: row.folder)),
        unreadable=tuple(sorted(unreadable)),
    )


def _kernels_below(folder: Path) -> Iterator[FoundKernel]:
    for file in sorted(folder.glob("*/kernel.json")):
        yield read_kernel(file.parent)


def read_kernel(folder: Path) -> FoundKernel:
    """The kernelspec in a folder, as far as it can be read."""
    try:
        spec = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
        argv = tuple(str(word) for word in spec["argv"])
        metadata = spec.get("metadata") or {}
        return FoundKernel(
            folder=folder,
            name=folder.name,
            trouble="" if argv else "argv is empty",
            display_name=str(spec.get("display_name", "")),
            language=str(spec.get("language", "")),
            argv=argv,
            env=tuple(sorted((str(key), str(value)) for key, value in (spec.get("env") or {}).items())),
            interrupt_mode=str(spec.get("interrupt_mode", "")),
            debugger=bool(metadata.get("debugger", False)),
            launched=read_command(Command(argv=argv, resource_dir=folder)) if argv else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        return FoundKernel(folder=folder, name=folder.name, trouble=f"{type(exc).__name__}: {exc}")


def _image_files(items: list[os.DirEntry[str]], unreadable: list[Path]) -> Iterator[FoundImage]:
    for item in items:
        if not item.is_file(follow_symlinks=False) or not item.name.endswith((".sif", ".simg", ".img", ".sqsh")):
            continue
        path = Path(item.path)
        try:
            sif = read_sif(path)
            if sif is not None:
                yield FoundImage(path=path, kind="sif", sif=sif, definition=sif.definition)
            elif _has_squashfs(path):
                yield FoundImage(path=path, kind="squashfs")
        except OSError:
            unreadable.append(path)


def _has_squashfs(path: Path) -> bool:
    """True for a squashfs file, also behind the line ``#!/usr/bin/env run-singularity`` of old images."""
    with path.open("rb") as file:
        return _SQUASHFS in file.read(64)


def _sandbox(folder: Path) -> FoundImage:
    recipe = folder / ".singularity.d/Singularity"
    try:
        text = recipe.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return FoundImage(path=folder, kind="sandbox", definition=text)


def _environment(folder: Path, *, conda: bool) -> FoundEnvironment:
    packages = _conda_packages(folder) if conda else _pip_packages(folder)
    return FoundEnvironment(
        folder=folder,
        kind="conda" if conda else "venv",
        python=_python_version(folder),
        packages=packages,
        prefix=_prefix_of_scripts(folder),
    )


def _conda_packages(folder: Path) -> tuple[str, ...]:
    found = []
    for file in sorted((folder / "conda-meta").glob("*.json")):
        try:
            meta = json.loads(file.read_text(encoding="utf-8"))
            digest = f"#{meta['md5']}" if meta.get("md5") else ""
            found.append(f"{meta['url']}{digest}" if meta.get("url") else f"{meta['name']}={meta['version']}")
        except (OSError, ValueError, KeyError, TypeError):
            found.append(f"{file.stem} (its record cannot be read)")
    return tuple(found)


def _pip_packages(folder: Path) -> tuple[str, ...]:
    infos = sorted(folder.glob("lib/python*/site-packages/*.dist-info"))
    return tuple(info.name.removesuffix(".dist-info").replace("-", "==", 1) for info in infos)


def _python_version(folder: Path) -> str:
    versions = sorted(folder.glob("lib/python*.*"))
    return versions[-1].name.removeprefix("python") if versions else ""


def _prefix_of_scripts(folder: Path) -> str:
    """The folder that the first line of its pip or IPython names: an environment that was moved still names the old."""
    for name in ("pip", "pip3", "ipython", "jupyter"):
        try:
            with (folder / "bin" / name).open("rb") as file:
                line = file.readline(512).decode("utf-8", "replace").strip()
        except OSError:
            continue
        if line.startswith("#!/") and "/bin/python" in line:
            return line[2:].rpartition("/bin/python")[0]
    return ""
