"""afpub shell, and a release of an image that has no kernel."""

from __future__ import annotations

import json

import pytest
from compat import small_project

pytestmark = [pytest.mark.images, pytest.mark.usefixtures("apptainer")]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A release with a kernel in the channel stable, and one with an image only in the channel login."""
    made = small_project.make(tmp_path_factory.mktemp("shell") / "project")
    made.release()
    made.write("manifests/login.toml", 'version = "2.0"\nchannel = "login"\n[images.machine]\nversion = "1.0"\n')
    made.json("release", "manifests/login.toml")
    return made


@pytest.fixture
def apptainer(require_tool):
    require_tool("apptainer")


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (("--kernel", "small"), "small 1.0"),
        (("--image", "machine"), "machine 1.0"),
        (("--image", "machine", "--release", "login"), "machine 2.0"),
        (("--image", "machine", "--release", "2.0"), "machine 2.0"),
    ],
)
def test_a_command_runs_in_what_was_published(project, chosen, seen):
    done = project.run("shell", *chosen, "--", "sh", "-c", 'echo "$AFPUB_KERNEL $AFPUB_RELEASE"')
    assert done.stdout == seen


def test_the_exit_code_is_the_commands_own(project):
    assert project.run("shell", "--kernel", "small", "--", "sh", "-c", "exit 33", ok=False).returncode == 33


def test_with_json_the_command_is_shown_and_not_run(project):
    program = f"{project.root}/work/published/channels/stable/bin/afpub-run"
    shown = project.run("shell", "--json", "--kernel", "small", "--", "ls", "-l")
    assert json.loads(shown.stdout) == {"command": [program, "small", "--", "ls", "-l"]}


def test_an_image_without_a_kernel_is_listed_and_shown(project):
    shown = project.json("show", "login")
    assert (shown["kernels"], [row["name"] for row in shown["images"]]) == ([], ["machine"])
    assert "share/afpub/images/machine/kernel.conf" in shown["files"]
    assert not any(path.startswith("share/jupyter") for path in shown["files"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "which kernel, or which image?"),
        (
            ("--kernel", "small", "--release", "next"),
            12,
            "there is no release or channel 'next' in {root}/work/published",
        ),
        (
            ("--kernel", "small", "--at", "nowhere"),
            12,
            "nothing that is published is in nowhere",
        ),
    ],
)
def test_what_is_not_there_is_told(project, words, code, message):
    done = project.run("shell", *words, "--json", ok=False)
    assert done.returncode == code
    assert json.loads(done.stdout)["error"] == message.format(root=project.root)
