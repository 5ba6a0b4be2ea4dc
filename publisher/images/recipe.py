"""The recipe of an image: a definition file, or a Dockerfile converted to one; and its static checks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from publisher.errors import RecipeError
from publisher.images.definition import Definition, FileCopy, Stage
from publisher.images.dockerfile import convert_dockerfile
from publisher.images.parser import parse_definition, read_definition
from publisher.project.image import ImageDefinition
from publisher.report import Finding, Report, collect, error, note, warning

PROVIDED: Final = ("APT_MIRROR", "APT_SECURITY_MIRROR", "BASE")
"""Build arguments that the builder gives to recipes which ask for them; no part of an image's identity."""

_LOCAL_AGENTS: Final = frozenset({"docker-archive", "localimage", "oci", "oci-archive"})
_NETWORK_AGENTS: Final = frozenset({"docker", "library", "oras", "shub"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A definition file with the build arguments of one variant filled in, those of the builder left open."""

    definition: Definition
    arguments: tuple[tuple[str, str], ...]
    """The build arguments of the variant, sorted."""
    asks: frozenset[str]
    """Which of :data:`PROVIDED` the recipe uses."""
    copies: tuple[FileCopy, ...]
    """What ``%files`` takes from the folder of the image."""
    archives: tuple[Path, ...]
    """Images in the folder of the image that stages begin with."""


def load_definition(image: ImageDefinition) -> Definition:
    """The definition file of an image, converted where the recipe is a Dockerfile.

    Raises:
        RecipeError: the recipe cannot be read.
    """
    if image.recipe.suffix == ".def" or image.recipe.name == "Singularity":
        return read_definition(image.recipe)
    return parse_definition(convert_dockerfile(image.recipe), where=f"{image.recipe}")


def load_recipe(image: ImageDefinition, variant: str) -> Recipe:
    """The recipe of a variant of an image.

    Raises:
        ProjectError: there is no such variant.
        RecipeError: the recipe is wrong, or an argument has no value or is not used.
    """
    definition = load_definition(image)
    given = image.arguments(variant)
    used = definition.arguments()
    if unused := sorted(set(given) - used):
        raise RecipeError(
            f"{image.folder / 'image.toml'}: the build argument {unused[0]!r} is not used in {image.recipe.name}",
            hint=_nearest(unused[0], sorted(used)),
        )
    values = {name: _placeholder(name) for name in PROVIDED} | given
    if missing := sorted(definition.required() - set(values)):
        line = min(stage.arguments().get(missing[0], 10**9) for stage in definition.stages)
        raise RecipeError(
            f"{image.recipe}:{line}: the argument {missing[0]!r} has no value",
            hint="give it a default in %arguments, or a value in [build_args] of image.toml",
        )
    filled = parse_definition(definition.filled(values), where=definition.where)
    copies = tuple(copy for stage in filled.stages for copy in stage.copies() if not copy.stage)
    return Recipe(
        definition=definition,
        arguments=tuple(sorted(given.items())),
        asks=used & set(PROVIDED) - set(given),
        copies=copies,
        archives=tuple(path for stage in filled.stages for path in _archive(image, stage)),
    )


def _archive(image: ImageDefinition, stage: Stage) -> Iterator[Path]:
    """The file that a stage begins with, where it lies in the folder of the image."""
    source = stage.header("from")
    if stage.header("bootstrap") not in _LOCAL_AGENTS or source.startswith("/"):
        return
    # the name of an image in the archive may follow
    for name in (source, source.partition(":")[0]):
        if (image.folder / name).exists():
            yield image.folder / name
            return
    raise RecipeError(
        f"{image.recipe}:{stage.line}: the image {source!r} does not exist",
        hint="paths in 'From:' are relative to the folder of the image",
    )


def _placeholder(name: str) -> str:
    return f"/{name.lower()}"


def sources(image: ImageDefinition, copy: FileCopy) -> tuple[Path, ...]:
    """The files and folders that one line of ``%files`` names, patterns expanded.

    Raises:
        RecipeError: there is no such file.
    """
    if any(sign in copy.source for sign in "*?["):
        found = tuple(sorted(image.folder.glob(copy.source.removeprefix("./"))))
    else:
        path = image.folder / copy.source
        found = (path,) if path.exists() else ()
    if not found:
        there = sorted(path.name for path in image.folder.iterdir())
        raise RecipeError(
            f"{image.recipe}:{copy.line}: the file {copy.source!r} of %files does not exist",
            hint=_nearest(copy.source, there),
        )
    return found


def check_recipe(image: ImageDefinition) -> Report:
    """What can be said about a recipe without building it.

    Raises:
        RecipeError: the recipe is no definition file or Dockerfile that can be converted.
    """
    return collect(_findings(image, load_definition(image)))


def _findings(image: ImageDefinition, definition: Definition) -> Iterator[Finding]:
    used: set[Path] = set()
    for variant in tuple(item.name for item in image.variants) or ("",):
        try:
            recipe = load_recipe(image, variant)
            for copy in recipe.copies:
                used.update(path.resolve() for path in sources(image, copy))
        except RecipeError as exc:
            yield error("recipe", f"{image.recipe}", exc.message, hint=exc.hint)
    yield from _base_findings(image, definition)
    for stage in definition.stages:
        yield from _stage_findings(image, stage)
    for lock in image.locks:
        if lock.resolve() not in used:
            yield warning("lock", f"{lock}", "no variant copies this lock file into the image (%files)")
    if not definition.final.named("test"):
        yield note("no-test", f"{image.recipe}", "there is no %test section: the build proves nothing")


def _base_findings(image: ImageDefinition, definition: Definition) -> Iterator[Finding]:
    asks = "BASE" in definition.arguments()
    if image.base is not None and not asks:
        yield error(
            "base",
            f"{image.recipe}",
            f"image.toml names the base {image.base!r}, but the recipe does not use it",
            hint="write 'Bootstrap: localimage' and 'From: {{ BASE }}'",
        )
    if image.base is None and asks and "BASE" not in definition.defaults():
        yield error(
            "base",
            f"{image.recipe}",
            "the recipe uses {{ BASE }}, but image.toml names no base",
            hint="add base = '<image>' to image.toml",
        )


def _stage_findings(image: ImageDefinition, stage: Stage) -> Iterator[Finding]:
    where = f"{image.recipe}:{stage.line}"
    agent, source = stage.header("bootstrap"), stage.header("from")
    if agent in _NETWORK_AGENTS and "@sha256:" not in source and "{{" not in source:
        yield warning(
            "unpinned",
            where,
            f"{source!r} is not pinned: the same recipe makes another image tomorrow",
            hint="write NAME@sha256:DIGEST",
        )
    if agent in _LOCAL_AGENTS and source.startswith("/"):
        yield warning(
            "local-base",
            where,
            f"the base {source!r} is a path of this machine",
            hint="make it an image of the project, named by 'base' in image.toml",
        )
    for name in ("setup", "pre"):
        for section in stage.named(name):
            yield warning(
                "runs-on-host",
                f"{image.recipe}:{section.line}",
                f"%{name} runs on the machine that builds, with the rights of whoever builds",
                hint="do the work in %post",
            )
    yield from _copy_findings(image, stage)


def _copy_findings(image: ImageDefinition, stage: Stage) -> Iterator[Finding]:
    for copy in stage.copies():
        if re.search(r"[$`;&|<>()]", copy.source.replace("{{", "").replace("}}", "")):
            yield error(
                "shell-in-files",
                f"{image.recipe}:{copy.line}",
                f"{copy.source!r}: Apptainer hands this to a shell of the machine that builds",
                hint="name files plainly; only * ? [ ] are patterns",
            )
        elif not copy.stage and (copy.source.startswith("/") or ".." in Path(copy.source).parts):
            yield warning(
                "outside",
                f"{image.recipe}:{copy.line}",
                f"%files takes {copy.source!r} from outside the folder of the image",
                hint="keep the inputs of an image beside its recipe",
            )


def _nearest(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(words)}" if words else ""
