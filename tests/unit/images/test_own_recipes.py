"""The recipes of this project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from publisher.images.inputs import inputs_digest
from publisher.images.parser import read_definition
from publisher.images.recipe import check_recipe
from publisher.project.image import load_image

IMAGES = Path(__file__).parents[3] / "images"
NAMES = sorted(file.parent.name for file in IMAGES.glob("*/image.toml"))
LOCKS = sorted(IMAGES.glob("*/*.lock"))


def test_the_recipes_are_there():
    assert NAMES == ["base", "kernel-packages", "login", "python27", "python3-ml", "root"]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_no_findings(name):
    image = load_image(IMAGES / name)
    assert check_recipe(image).findings == ()
    assert read_definition(image.recipe).text == image.recipe.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_described(name):
    image = load_image(IMAGES / name)
    assert image.description
    assert image.licenses
    assert image.tests


def test_both_variants_of_the_machine_learning_image_are_different_images():
    image = load_image(IMAGES / "python3-ml")
    digests = {inputs_digest(image, variant=name, base_digest="") for name in ("cpu", "cuda")}
    assert len(digests) == 2


def pins(lock):
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.parent.name}-{lock.stem}")
def test_every_package_is_pinned_by_version_and_hash(lock):
    text = lock.read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 2
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==\S+ .*\\\n {4}--hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_images_on_top_of_another_keep_its_versions(variant):
    below = pins(IMAGES / "root/requirements.lock")
    assert below.items() <= pins(IMAGES / f"python3-ml/requirements-{variant}.lock").items()


@pytest.mark.parametrize("file", sorted(IMAGES.glob("*/*")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_no_file_names_a_host(file):
    assert not re.search(r"(https?|ftp|file)://", file.read_text())
