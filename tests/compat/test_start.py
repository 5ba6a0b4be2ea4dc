"""Starting the program: what is loaded for one command, and what a wrong one gets."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import publisher
from publisher import tools


@pytest.mark.parametrize(
    ("word", "spared"),
    [
        ("shell", {"jupyter_client", "cryptography", "obstore"}),
        ("serve", {"jupyter_client"}),
        ("repo", {"jupyter_client"}),
        ("adopt", {"obstore"}),
    ],
)
def test_a_command_loads_what_it_needs(word, spared):
    code = "import sys; from publisher.cli.main import program; program(sys.argv[1:]); print(*sys.modules)"
    environ = {**os.environ, "PYTHONPATH": f"{Path(publisher.__file__).parent.parent}"}
    loaded = set(tools.run([sys.executable, "-c", code, word], env=environ).stdout.split())
    assert "typer" in loaded
    assert not spared & loaded


def test_a_wrong_command_gets_the_right_one():
    done = tools.run([Path(sys.executable).with_name("afpub"), "relase"], check=False)
    assert "release" in f"{done.stdout}{done.tail}"
