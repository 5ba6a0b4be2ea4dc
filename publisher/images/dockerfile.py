"""Dockerfiles as recipes."""

from __future__ import annotations

from pathlib import Path

from publisher.errors import RecipeError


def convert_dockerfile(path: Path) -> str:
    """The definition file that does what a Dockerfile does."""
    raise RecipeError(f"{path}: Dockerfiles cannot be converted yet")
