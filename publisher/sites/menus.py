"""Menus of images for the forms in which users choose what their JupyterLab runs in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MenuItem:
    """A line of a menu."""

    label: str
    image: str
    """Path of the image as the nodes see it."""


def ondemand_menu(items: Sequence[MenuItem]) -> str:
    """The attribute ``image`` for ``form.yml`` of an interactive app of Open OnDemand; its value is the path."""
    lines = ["image:", "  label: Image", "  widget: select", "  options:"]
    return "\n".join([*lines, *(f"    - [{_text(item.label)}, {_text(item.image)}]" for item in items)]) + "\n"


def jupyterhub_menu(items: Sequence[MenuItem]) -> str:
    """Lines for ``jupyterhub_config.py``: a choice of images, the chosen one as JUPYTER_IMAGE for the server."""
    rows = "".join(f"    {_text(item.label)}: {_text(item.image)},\n" for item in items)
    return f"""\
IMAGES = {{
{rows}}}


def image_form(_spawner):
    options = "".join(f'<option value="{{label}}">{{label}}</option>' for label in IMAGES)
    return f'<label for="image">Image</label><select name="image" id="image">{{options}}</select>'


def chosen_image(form):
    return {{"image": IMAGES[form["image"][0]]}}  # a name that is not in the menu is refused


def use_image(spawner):
    if "image" in spawner.user_options:
        spawner.environment["JUPYTER_IMAGE"] = spawner.user_options["image"]


c.Spawner.options_form = image_form
c.Spawner.options_from_form = chosen_image
c.Spawner.pre_spawn_hook = use_image
"""


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
