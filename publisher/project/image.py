"""What ``images/<image>/image.toml`` says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import ProjectError
from publisher.names import ImageName
from publisher.project.toml import Table, nearest, read_toml

FEATURES = ("batch", "gpu", "grid")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTest:
    """A command that must succeed in the built image."""

    command: tuple[str, ...]
    expect: str = ""
    """Regular expression that is searched for in what the command prints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One of several images that a recipe makes."""

    name: str
    build_args: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDefinition:
    """An image as the release manager describes it."""

    name: ImageName
    folder: Path
    """The folder that holds the recipe and its inputs."""
    recipe: Path
    """A Singularity definition file or a Dockerfile."""
    description: str = ""
    base: ImageName | None = None
    """Another image of the project, which the recipe takes as ``{{ BASE }}``."""
    build_args: tuple[tuple[str, str], ...] = ()
    variants: tuple[Variant, ...] = ()
    locks: tuple[Path, ...] = ()
    """Lock files: inputs of the build."""
    features: tuple[str, ...] = ()
    bind_points: tuple[str, ...] = ()
    """Folders that must exist in the image so that sites can bind there."""
    licenses: tuple[str, ...] = ()
    tests: tuple[ImageTest, ...] = ()

    def arguments(self, variant: str) -> dict[str, str]:
        """The build arguments of a variant (``""`` for a recipe without variants).

        Raises:
            ProjectError: there is no such variant.
        """
        names = tuple(item.name for item in self.variants)
        if variant not in (names or ("",)):
            where = f"{self.folder / 'image.toml'}"
            if not names:
                raise ProjectError(f"{where}: the image has no variants, {variant!r} was asked for")
            asked = f"variant {variant!r} is not defined" if variant else "a variant must be chosen"
            raise ProjectError(f"{where}: {asked}", hint=nearest(variant, names))
        own = {key: value for item in self.variants if item.name == variant for key, value in item.build_args}
        return dict(self.build_args) | own


def load_image(folder: Path) -> ImageDefinition:
    """The image that a folder describes.

    Raises:
        ProjectError: ``image.toml`` or the recipe is missing or wrong.
    """
    table = read_toml(folder / "image.toml")
    try:
        name = ImageName(folder.name)
    except ProjectError as exc:
        raise table.problem(f"the folder name: {exc.message}", hint=exc.hint) from None
    variants = table.table("variants")
    image = ImageDefinition(
        name=name,
        folder=folder,
        recipe=_recipe(table, folder),
        description=table.text("description", ""),
        base=table.named("base", ImageName) if "base" in table.keys() else None,  # noqa: SIM118 - not a dict
        build_args=table.pairs("build_args"),
        variants=tuple(_variant(variants, key) for key in variants.keys()),  # noqa: SIM118 - not a dict
        locks=tuple(_inside(table, folder, lock) for lock in table.texts("locks")),
        features=_features(table),
        bind_points=_bind_points(table),
        licenses=table.texts("licenses"),
        tests=tuple(_test(row) for row in table.tables("test")),
    )
    table.done()
    return image


def _recipe(table: Table, folder: Path) -> Path:
    named = table.text("recipe", "")
    if named:
        return _inside(table, folder, named)
    for candidate in (f"{folder.name}.def", "Dockerfile"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise table.problem(
        f"there is no recipe: neither {folder.name}.def nor Dockerfile",
        hint="write one, or name it with the key 'recipe'",
    )


def _inside(table: Table, folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise table.problem(f"{name!r} is outside the folder of the image")
    if not path.is_file():
        raise table.problem(f"the file {name!r} does not exist")
    return path


def _variant(variants: Table, key: str) -> Variant:
    row = variants.table(key)
    if not re.fullmatch(r"[a-z0-9]+", key):
        raise row.problem(f"{key!r} is no variant name", hint="use lower-case letters and digits")
    variant = Variant(name=key, build_args=row.pairs("build_args"))
    row.done()
    return variant


def _features(table: Table) -> tuple[str, ...]:
    features = table.texts("features")
    for feature in features:
        if feature not in FEATURES:
            raise table.problem(f"unknown feature {feature!r}", hint=nearest(feature, FEATURES))
    return features


def _bind_points(table: Table) -> tuple[str, ...]:
    points = table.texts("bind_points")
    for point in points:
        if not point.startswith("/") or ".." in point.split("/") or ":" in point:
            raise table.problem(f"{point!r} is no bind point", hint="write an absolute path such as /scratch")
    return points


def _test(row: Table) -> ImageTest:
    test = ImageTest(command=row.texts("command"), expect=regex(row, "expect"))
    if not test.command:
        raise row.problem("the key 'command' is missing")
    row.done()
    return test


def regex(row: Table, key: str) -> str:
    """The regular expression at a key; empty when the key is not there.

    Raises:
        ProjectError: it is no regular expression.
    """
    pattern = row.text(key, "")
    try:
        re.compile(pattern)
    except re.error as exc:
        raise row.problem(f"{key!r} is no regular expression: {exc}") from None
    return pattern
