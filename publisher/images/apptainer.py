"""How Apptainer is called, what it leaves behind, and what its failures mean."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from publisher import tools
from publisher.errors import AfpubError, BuildError, DiskError

HINT: Final = "install Apptainer (Debian 12: .ci/install-apptainer); 'afpub doctor' checks the rest"
SOURCE_DATE_EPOCH: Final = 1_767_225_600
"""2026-01-01 00:00:00 UTC: the time that reproducible parts of an image carry."""
_SECTION: Final = re.compile(r"%(\w+) (?:section|script): exit status (\d+)$")
_FULL: Final = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NOISE: Final = ("destination is already in the mount point list", "INFO: ")
_DETAIL_LINES: Final = 20
_ENVIRONMENT: Final = re.compile(r"(APPTAINER|SINGULARITY)(ENV_|_BIND|_NO_|_CONTAIN|_WRITABLE|_FAKEROOT)")


def program() -> Path:
    """The container runtime.

    Raises:
        ToolError: it is not installed.
    """
    return tools.which("apptainer") or tools.require("singularity", hint=HINT)


def version() -> tuple[str, str]:
    """Name and version of the container runtime.

    Raises:
        ToolError: it is not installed or does not start.
    """
    words = tools.run((program(), "--version"), timeout_s=60).stdout.split()
    return (words[0], words[-1]) if words else ("apptainer", "")


def own_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what would change a build behind the recipe's back.

    Args:
        extra: variables to add.
    """
    kept = {key: value for key, value in os.environ.items() if not _ENVIRONMENT.match(key)}
    return kept | dict(extra)


def build_words(
    *, recipe: Path, target: Path, arguments: Mapping[str, str], binds: Sequence[tuple[Path, str]]
) -> tuple[str | Path, ...]:
    """The command that builds a sandbox from a definition file."""
    # without --force labels of the base would win over those of the recipe
    words: list[str | Path] = [program(), "build", "--fakeroot", "--sandbox", "--force"]
    for source, inside in binds:
        words += ["--bind", f"{source}:{inside}"]
    for name, value in sorted(arguments.items()):
        words += ["--build-arg", f"{name}={value}"]
    return (*words, target, recipe)


def sif_words(*, rootfs: Path, target: Path) -> tuple[str | Path, ...]:
    """The command that packs a root file system into a SIF file."""
    # zstd at a low level packs as well as the default and is ten times as fast
    squash = "-comp zstd -Xcompression-level 3"
    return (program(), "build", "--force", "--mksquashfs-args", squash, target, rootfs)


def exec_words(rootfs: Path, command: Sequence[str]) -> tuple[str | Path, ...]:
    """The command that runs something in a root file system, away from the user's home and environment."""
    # without privileges, because root may lack some of those that Apptainer would ask for
    return (program(), "--silent", "exec", "--no-privs", "--containall", "--cleanenv", rootfs, *command)


def build_failure(what: str, tail: str, *, log: Path) -> AfpubError:
    """The error that a failed build is, with the last lines that explain it.

    Args:
        what: the image.
        tail: the last lines that Apptainer printed.
        log: where all of them are.
    """
    lines = [line for line in tail.splitlines() if not any(noise in line for noise in _NOISE)]
    detail = "\n".join(lines[-_DETAIL_LINES:])
    if _FULL.search(tail):
        return DiskError(
            f"the disk is full: {what} could not be built", hint=f"all of its output: {log}", detail=detail
        )
    fatal = next((line for line in reversed(lines) if line.startswith("FATAL:")), "")
    if section := _SECTION.search(fatal):
        message = f"{what}: %{section[1]} failed with exit code {section[2]}"
    elif fatal:
        message = f"{what} could not be built: {fatal.removeprefix('FATAL:').strip()}"
    else:
        message = f"{what} could not be built"
    return BuildError(message, hint=f"all of its output: {log}", detail=detail)
