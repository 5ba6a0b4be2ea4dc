"""Kernelspecs as a Jupyter server will read them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec

from publisher.errors import NameInvalidError
from publisher.names import KernelName
from publisher.project.kernel import CONNECTION_FILE
from publisher.report import Finding, Report, collect, error, warning

_REPLACED = ("python", "python3")
"""Words that a Jupyter server replaces by its own interpreter when they come first in argv."""
_SERVERS_OWN = ("python2", "python3")
"""Names that ipykernel gives to the kernel of the server's own Python."""


def check_kernelspecs(folder: Path) -> Report:
    """What a Jupyter server, its launcher or its users would trip over in a folder of kernelspecs.

    Args:
        folder: a ``share/jupyter/kernels`` folder.
    """
    return collect(_findings(folder))


def _findings(folder: Path) -> Iterator[Finding]:
    if any(char in str(folder) for char in ":@"):
        yield error(
            "kernelspec-path",
            f"{folder}",
            "the path holds ':' or '@': JUPYTER_PATH would lose every kernel without a word",
            hint="choose another folder",
        )
    by_fold: dict[str, str] = {}
    for spec in sorted(folder.iterdir()):
        other = by_fold.setdefault(spec.name.lower(), spec.name)
        if other != spec.name:
            yield error("kernel-name", f"{spec}", f"differs from {other!r} only by case: one hides the other")
        try:
            KernelName(spec.name)
        except NameInvalidError as exc:
            yield error("kernel-name", f"{spec}", exc.message, hint=exc.hint)
        if spec.name in _SERVERS_OWN:
            yield warning(
                "kernel-name",
                f"{spec}",
                "hides the kernel of the Jupyter server's own Python, and is started for the notebooks of that one",
                hint="if that is not meant, choose another name",
            )
        yield from _spec_findings(spec)


def _spec_findings(folder: Path) -> Iterator[Finding]:
    file = folder / "kernel.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        spec = KernelSpec.from_resource_dir(str(folder))
    except Exception as exc:  # noqa: BLE001 - whatever stops the server's own reader is what we look for
        yield error("kernel-json", f"{file}", f"a Jupyter server cannot read it: {exc}")
        return
    if not spec.argv or sum(word.count(CONNECTION_FILE) for word in spec.argv) != 1:
        yield error("kernel-json", f"{file}", f"argv must hold {CONNECTION_FILE} once: {spec.argv}")
        return
    for key in ("display_name", "language"):
        if not raw.get(key):
            yield error("kernel-json", f"{file}", f"{key!r} is missing or empty")
    program = spec.argv[0].replace("{resource_dir}", str(folder))
    if program in _REPLACED or program.startswith("python3."):
        yield error("kernel-json", f"{file}", f"argv begins with {program!r}, which the server replaces")
    elif program.startswith(f"{folder}") and not os.access(program, os.X_OK):
        yield error("kernel-json", f"{file}", f"argv begins with {program}, which cannot be run")
    yield from _machine_findings(file, spec)
    if not (folder / "logo-64x64.png").is_file():
        yield error("kernel-logo", f"{folder}", "logo-64x64.png is missing: the card would have no picture")


def _machine_findings(file: Path, spec: KernelSpec) -> Iterator[Finding]:
    """What works on one machine and not on another."""
    if provisioner := spec.metadata.get("kernel_provisioner"):
        yield warning(
            "kernel-json",
            f"{file}",
            f"metadata asks for a provisioner, and a server that does not have it leaves the kernel out: {provisioner}",
        )
    for key in spec.env:
        if "PATH" in key:
            yield error("kernel-json", f"{file}", f"env sets {key}, which freezes one machine's value")
