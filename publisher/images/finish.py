"""What is done to a fresh root file system: nothing of this machine stays in it, its mount points exist."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from publisher.errors import BuildError
from publisher.images.apptainer import SOURCE_DATE_EPOCH

_META: Final = ".singularity.d"
_SOURCE_LABELS: Final = "org.label-schema.usage.singularity.deffile."
_DATE_LABEL: Final = "org.label-schema.build-date"
DIGEST_LABEL: Final = "org.afpub.inputs-digest"
_RUNTIME_WRITES: Final = (
    "dev",
    "etc",
    "etc/hosts",
    "etc/resolv.conf",
    "home",
    "proc",
    "root",
    "sys",
    "tmp",
    "var/tmp",
)
"""Places that Apptainer itself makes or touches at every build."""


def finish_rootfs(rootfs: Path, *, recipe: str, base: str, inputs_digest: str, bind_points: Iterable[str]) -> None:
    """Settles the metadata that Apptainer wrote, and makes the mount points.

    Apptainer records the definition file with its arguments filled in and the path of the base; both tell of
    the machine that built, and differ where nothing in the image does.

    Args:
        rootfs: the root file system.
        recipe: text of the definition file, to be recorded.
        base: name of the image that it was built on, ``""`` for none.
        inputs_digest: goes into a label.
        bind_points: absolute paths inside the image.

    Raises:
        BuildError: a file cannot be written, or a mount point leads outside.
    """
    try:
        for point in bind_points:
            _mount_point(rootfs, point)
        meta = rootfs / _META
        if meta.is_dir() and not meta.is_symlink():
            _replace(meta / "Singularity", recipe)
            _settle_labels(meta / "labels.json", base=base, inputs_digest=inputs_digest)
        _settle_times(rootfs)
    except OSError as exc:
        raise BuildError(f"{exc.filename} cannot be written: {exc.strerror}") from exc


def _mount_point(rootfs: Path, point: str) -> None:
    folder = rootfs
    for part in Path(point.lstrip("/")).parts:
        folder /= part
        if folder.is_symlink():
            # a link would be followed on this machine, not in the image; if it is there, the place exists
            return
        if not folder.exists():
            folder.mkdir(mode=0o755)
            os.utime(folder, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH))


def _replace(file: Path, text: str) -> None:
    if file.is_symlink() or file.exists():
        file.unlink()
    file.write_text(text, encoding="utf-8")
    file.chmod(0o644)


def _settle_labels(file: Path, *, base: str, inputs_digest: str) -> None:
    if file.is_symlink() or not file.is_file():
        return
    labels = json.loads(file.read_text(encoding="utf-8"))
    kept = {
        key: value
        for key, value in labels.items()
        if not _tells_of_the_machine(key.removeprefix(_SOURCE_LABELS), value)
    }
    if base:
        kept[f"{_SOURCE_LABELS}from"] = base
    kept[_DATE_LABEL] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(SOURCE_DATE_EPOCH))
    kept[DIGEST_LABEL] = inputs_digest
    _replace(file, json.dumps(kept, indent=1, sort_keys=True) + "\n")


def _tells_of_the_machine(keyword: str, value: object) -> bool:
    return keyword in {"mirrorurl", "updateurl"} or (keyword == "from" and str(value).startswith("/"))


def _settle_times(rootfs: Path) -> None:
    """Gives what Apptainer wrote the same times in every build; what the recipe wrote keeps its own."""
    for path in _written_by_runtime(rootfs):
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_mtime > SOURCE_DATE_EPOCH:
                os.utime(path, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH), follow_symlinks=False)


def _written_by_runtime(rootfs: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(rootfs / _META):
        yield from (Path(folder) / name for name in (*names, *files))
    for name in (*_RUNTIME_WRITES, _META):
        path = rootfs / name
        if name in {"dev", "etc/hosts"} and path.is_dir() and not path.is_symlink():
            yield from path.iterdir()
        yield path
    for item in rootfs.iterdir():
        if item.is_symlink():
            yield item
    yield rootfs
