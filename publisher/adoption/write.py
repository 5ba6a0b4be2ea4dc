"""Definitions, index and menus for what was found; new files only, nothing is moved or changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Final

from publisher.adoption.judge import place
from publisher.adoption.launcher import Launched
from publisher.adoption.survey import FoundEnvironment, FoundImage, FoundKernel, Survey
from publisher.errors import NameInvalidError, UsageError
from publisher.names import Fqrn, ImageName, KernelName, ReleaseVersion, RepoPath
from publisher.project.kernel import LOGOS
from publisher.project.settings import SETTINGS_FILE
from publisher.report import Report
from publisher.sites.menus import MenuItem, jupyterhub_menu, ondemand_menu

_LOGO: Final = LOGOS[1]
_SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Adoption:
    """What is written where."""

    survey: Survey
    fqrn: Fqrn
    at: RepoPath | None
    """Where the tree is in the repository; None where it is in none: there will be no aliases."""
    prefix: RepoPath
    """Below which new releases are published."""
    version: ReleaseVersion
    """Of the release that will replace the tree."""
    image: ImageName | None = None
    """For kernels that name no image of their own; without it they stay kernels of the host."""

    def images(self) -> dict[Path, ImageName]:
        """A name for each image that a definition is written for: those of the tree, and those that kernels use."""
        used = [
            Path(kernel.launched.image).resolve()
            for kernel in self.survey.kernels
            if kernel.launched is not None and kernel.launched.image.startswith("/")
        ]
        paths = dict.fromkeys(
            [*(image.path for image in self.survey.images), *(path for path in used if path.exists())]
        )
        named: dict[Path, ImageName] = {}
        for path in paths:
            plain = _plain(path.name.removesuffix(path.suffix) if path.is_file() else path.name)
            taken = {*named.values()}
            name = next(made for number in range(1, 1000) if (made := _numbered(plain, number)) not in taken)
            named[path] = ImageName(name)
        return named

    def kernels(self) -> Iterator[tuple[KernelName, FoundKernel, Launched, ImageName | None]]:
        """The kernels that a definition can be written for, the first of each name, with their images."""
        images = self.images()
        seen: set[str] = set()
        for kernel in self.survey.kernels:
            launched = kernel.launched
            if launched is None or kernel.trouble or kernel.name.lower() in seen:
                continue
            image = images.get(Path(launched.image).resolve()) if launched.image else self.image
            if image is None and (launched.image or not _is_there(launched.program[0])):
                continue
            try:
                yield KernelName(kernel.name), kernel, launched, image
            except NameInvalidError:
                continue
            seen.add(kernel.name.lower())


def _is_there(program: str) -> bool:
    """False for a program that is named by its path and is not there; one that is searched for may be, elsewhere."""
    return not program.startswith("/") or Path(program).exists()


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "image"


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def write(adoption: Adoption, report: Report, folder: Path) -> tuple[Path, ...]:
    """Writes a publishing project beside what was found, or into one that is there; the files.

    Raises:
        UsageError: one of the files is there already; nothing was written.
    """
    files = {folder / name: data for name, data in _files(adoption, report).items()}
    if (folder / SETTINGS_FILE).exists():
        del files[folder / SETTINGS_FILE]
    there = [path for path in files if path.exists()]
    if there:
        raise UsageError(f"{there[0]} is there already", hint="choose another folder with --into; nothing was written")
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tuple(files)


def _files(adoption: Adoption, report: Report) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, kernel, launched, runs_in in adoption.kernels():
        files[f"kernelspecs/{name}/kernel.toml"] = _kernel_toml(kernel, launched, runs_in)
        files |= {f"kernelspecs/{name}/{logo}": data for logo, data in _logos(kernel).items()}
    found = {image.path: image for image in adoption.survey.images}
    for path, image_name in adoption.images().items():
        image = found.get(path, FoundImage(path=path, kind="elsewhere"))
        files[f"images/{image_name}/image.toml"] = _toml(description=f"Taken over from {path}")
        files[f"images/{image_name}/{image_name}.def"] = _recipe(path).encode()
        if image.definition:
            files[f"images/{image_name}/built-from.def"] = image.definition.encode()
    if adoption.images() or any(adoption.kernels()):
        files["manifests/adopted.toml"] = _manifest(adoption)
    for environment in adoption.survey.environments:
        plain = _plain(place(adoption.survey, environment.folder))
        files[f"adopted/{plain}.txt"] = _package_list(environment)
    menu = _menu(adoption)
    files["adopted/ondemand-form.yml"] = ondemand_menu(menu).encode()
    files["adopted/jupyterhub_config.py"] = jupyterhub_menu(menu).encode()
    files["adopted/index.json"] = _index(adoption, report)
    keys = {"fqrn": adoption.fqrn, "prefix": adoption.prefix or "/", "repository": "repository", "keys": "keys"}
    files[SETTINGS_FILE] = _toml(**keys)
    return files


def _toml(**values: str | bool | Sequence[str]) -> bytes:
    """Lines of ``key = value``; what JSON writes for texts and lists is TOML as well."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()).encode()


def _kernel_toml(kernel: FoundKernel, launched: Launched, image: ImageName | None) -> bytes:
    given: dict[str, str | bool | Sequence[str]] = {
        "display_name": kernel.display_name or kernel.name,
        "description": f"Taken over from {kernel.folder}",
        "language": kernel.language or "python",
        "image": image or "",
        "command": launched.program,
        "python_ver": launched.python_ver,
        "user_setup": launched.user_setup,
        "analysisbase": launched.analysisbase,
        "gpu": "auto" if launched.gpu else "",
        "interrupt_mode": kernel.interrupt_mode if kernel.interrupt_mode == "message" else "",
        "debugger": kernel.debugger,
    }
    return _toml(**{key: value for key, value in given.items() if value})


def _logos(kernel: FoundKernel) -> dict[str, bytes]:
    """The kernel's own pictures, and a plain one for the card where it has none."""
    own = {name: (kernel.folder / name).read_bytes() for name in LOGOS if (kernel.folder / name).is_file()}
    if _LOGO not in own:
        template = resources.files("publisher.project") / "template/kernelspecs/analysis"
        own[_LOGO] = (template / _LOGO).read_bytes()
    return own


def _recipe(path: Path) -> str:
    return (
        f"# Made from the image as it is published now. Replace it by a recipe of its own (see docs/images.md).\n"
        f"Bootstrap: localimage\nFrom: {path}\n"
    )


def _manifest(adoption: Adoption) -> bytes:
    kernels = [name for name, *_ in adoption.kernels()]
    lines = [
        "# What the tree that was made by hand becomes. The old paths stay valid: each becomes a link.",
        f"version = {json.dumps(adoption.version)}",
        'channel = "testing"',
        f"kernels = {json.dumps(kernels)}",
    ]
    for path, name in adoption.images().items():
        day = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)
        lines += ["", f"[images.{json.dumps(name)}]", f'version = "{day:%Y.%-m.%-d}"']
    aliases = _aliases(adoption)
    if aliases:
        lines += ["", "[aliases]", *(f"{json.dumps(path)} = {json.dumps(what)}" for path, what in aliases.items())]
    return ("\n".join(lines) + "\n").encode()


def _aliases(adoption: Adoption) -> dict[str, str]:
    """Old paths in the repository, and what each will lead to."""
    if adoption.at is None:
        return {}
    pairs = [
        *((kernel.folder, f"kernels/{name}") for name, kernel, _, _ in adoption.kernels()),
        *((path, f"images/{name}") for path, name in adoption.images().items()),
    ]
    root = adoption.survey.root
    return {f"{adoption.at}/{path.relative_to(root)}": what for path, what in pairs if path.is_relative_to(root)}


def _package_list(environment: FoundEnvironment) -> bytes:
    head = (
        "# conda create --prefix PLACE --file THIS makes it again\n@EXPLICIT\n" if environment.kind == "conda" else ""
    )
    return (head + "".join(f"{row}\n" for row in environment.packages)).encode()


def _menu(adoption: Adoption) -> list[MenuItem]:
    return [
        MenuItem(label=name, image=f"{path}")
        for path, name in sorted(adoption.images().items(), key=lambda row: row[1])
    ]


def _index(adoption: Adoption, report: Report) -> bytes:
    survey, images = adoption.survey, adoption.images()
    defined = {kernel.folder: image or "host" for _, kernel, _, image in adoption.kernels()}
    document: Mapping[str, object] = {
        "schema": _SCHEMA,
        "root": f"{survey.root}",
        "fqrn": adoption.fqrn,
        "at": adoption.at,
        "kernels": [
            {
                "path": place(survey, row.folder),
                "name": row.name,
                "display_name": row.display_name,
                "language": row.language,
                "argv": list(row.argv),
                "script": row.launched.script if row.launched else "",
                "starts": list(row.launched.program) if row.launched else [],
                "image": row.launched.image if row.launched else "",
                "defined_in": defined.get(row.folder),
            }
            for row in survey.kernels
        ],
        "images": [_image_row(survey, row, images[row.path]) for row in survey.images],
        "environments": [
            {
                "path": place(survey, row.folder),
                "kind": row.kind,
                "python": row.python,
                "packages": len(row.packages),
            }
            for row in survey.environments
        ],
        "aliases": _aliases(adoption),
        **report.to_json(),
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _image_row(survey: Survey, row: FoundImage, name: ImageName) -> dict[str, object]:
    return {
        "path": place(survey, row.path),
        "name": name,
        "kind": row.kind,
        "architecture": row.sif.architecture if row.sif else "",
        "created": row.sif.created.isoformat() if row.sif else "",
        "size_bytes": row.sif.size_bytes if row.sif else None,
        "recipe": bool(row.definition),
        "signed": row.sif.signed if row.sif else False,
    }
