"""Which kernels are to be probed: a folder with kernel.json, and the cells that it must be able to run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from publisher.errors import KernelError, NotFoundError
from publisher.project.kernel import SmokeCell
from publisher.report import Finding, Report, collect, error, warning

SMOKE_FILE = "smoke.json"
"""The smoke cells in a published kernel's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A kernel to be probed."""

    kernel_dir: Path
    """Folder with kernel.json; its name is the kernel's name."""
    smoke: tuple[SmokeCell, ...] = ()

    @property
    def name(self) -> str:
        """The name by which servers and notebooks know the kernel."""
        return self.kernel_dir.name


def specs(kernel_dir: Path) -> KernelSpecManager:
    """What finds one kernel as a server does."""
    return KernelSpecManager(kernel_dirs=[str(kernel_dir.parent)], ensure_native_kernel=False)


def read_spec(kernel_dir: Path) -> KernelSpec:
    """The kernelspec as a Jupyter server reads it.

    Raises:
        KernelError: a server would not list it.
    """
    try:
        return specs(kernel_dir).get_kernel_spec(kernel_dir.name)
    except (NoSuchKernel, ValueError) as exc:
        raise KernelError(f"{kernel_dir} is no kernelspec that a Jupyter server lists", detail=str(exc)) from exc


def smoke_json(cells: Sequence[SmokeCell]) -> bytes:
    """The content of the file :data:`SMOKE_FILE`."""
    rows = [{"code": cell.code, "expect": cell.expect, "allow_stderr": cell.allow_stderr} for cell in cells]
    return (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode()


def read_smoke(kernel_dir: Path) -> tuple[SmokeCell, ...]:
    """The smoke cells that were published with a kernel; none where there is no such file.

    Raises:
        KernelError: the file is not what :func:`smoke_json` writes.
    """
    file = kernel_dir / SMOKE_FILE
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return tuple(SmokeCell(**{key: str(value) for key, value in row.items()}) for row in rows)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise KernelError(
            f"{file} cannot be read: {exc}", hint="publish the release anew under another version"
        ) from exc


def listed(names: Sequence[str] = (), *, jupyter_paths: Sequence[Path] = ()) -> tuple[tuple[Target, ...], Report]:
    """The kernels that a Jupyter server on this machine would list, and what is wrong with the others.

    Args:
        names: only these.
        jupyter_paths: where to look; what JUPYTER_PATH and Jupyter's own folders say where none is given.

    Raises:
        NotFoundError: a name is not among them.
    """
    default = KernelSpecManager(ensure_native_kernel=False).kernel_dirs
    places = [path / "kernels" for path in jupyter_paths] or [Path(folder) for folder in default]
    targets: dict[str, Target] = {}
    findings: list[Finding] = []
    for kernel_dir in _kernel_dirs(places):
        name = kernel_dir.name.lower()
        if names and name not in {wanted.lower() for wanted in names}:
            continue
        if name in targets:
            findings.append(_hidden(kernel_dir, targets[name].kernel_dir))
            continue
        try:
            read_spec(kernel_dir)
            targets[name] = Target(kernel_dir=kernel_dir, smoke=read_smoke(kernel_dir))
        except KernelError as exc:
            findings.append(_unreadable(kernel_dir, exc))
    seen = {finding.where.lower() for finding in findings} | set(targets)
    if missing := [name for name in names if name.lower() not in seen]:
        looked = ", ".join(str(place) for place in places)
        raise NotFoundError(
            f"there is no kernel {missing[0]!r} in {looked}",
            hint="set JUPYTER_PATH as the Jupyter server has it, or give it with --jupyter-path",
        )
    return tuple(targets.values()), collect(findings)


def _kernel_dirs(places: Iterable[Path]) -> list[Path]:
    """The folders with a kernel.json, those that win first, as KernelSpecManager looks for them."""
    return [file.parent for place in places for file in sorted(place.glob("*/kernel.json"))]


def _hidden(kernel_dir: Path, winner: Path) -> Finding:
    return warning(
        "hidden-kernel",
        kernel_dir.name,
        f"{kernel_dir} is never started: {winner} has the same name and comes first",
        hint="give one of them another name, or change the order in JUPYTER_PATH",
    )


def _unreadable(kernel_dir: Path, exc: KernelError) -> Finding:
    reason = exc.detail or exc.message
    return error(
        "kernel-json",
        kernel_dir.name,
        f"{kernel_dir} cannot be used, and servers leave it out without a word: {reason}",
        hint=exc.hint or f"mend or remove {kernel_dir / 'kernel.json'}",
    )
