"""What a Jupyter server, its launcher or its users would trip over."""

from __future__ import annotations

import json

import pytest

from publisher.validation.kernelspecs import check_kernelspecs

RIGHT = {
    "argv": ["{resource_dir}/launch", "{connection_file}"],
    "display_name": "One",
    "language": "python",
    "env": {},
    "metadata": {},
}


@pytest.fixture
def add(tmp_path):
    """Adds a kernelspec to a folder of them."""

    def make(name="one", *, text="", **changes):
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(text or json.dumps(RIGHT | changes))
        (folder / "logo-64x64.png").touch()
        (folder / "launch").touch(mode=0o755)
        return folder

    return make


def told(folder):
    return [
        f"{finding.severity}: {finding.where.replace(f'{folder}', '')} {finding.message}".replace(f"{folder}", "")
        for finding in check_kernelspecs(folder).findings
    ]


def test_a_right_kernelspec(add):
    assert told(add().parent) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"argv": ["python3", "{connection_file}"]}, "error: argv begins with 'python3', which the server replaces"),
        (
            {"argv": ["python3.11", "{connection_file}"]},
            "error: argv begins with 'python3.11', which the server replaces",
        ),
        ({"argv": ["/x"]}, "error: argv must hold {connection_file} once: ['/x']"),
        (
            {"argv": ["{resource_dir}/none", "{connection_file}"]},
            "error: argv begins with /one/none, which cannot be run",
        ),
        ({"display_name": ""}, "error: 'display_name' is missing or empty"),
        ({"env": {"PATH": "/x"}}, "error: env sets PATH, which freezes one machine's value"),
        (
            {"metadata": {"kernel_provisioner": {"provisioner_name": "x"}}},
            (
                "warning: metadata asks for a provisioner, and a server that does not have it leaves the kernel out: "
                "{'provisioner_name': 'x'}"
            ),
        ),
        ({"text": "{"}, "error: a Jupyter server cannot read it: "),
    ],
)
def test_wrong_kernelspecs(add, changes, message):
    (finding,) = told(add(**changes).parent)
    assert finding.replace("/one/kernel.json ", "").startswith(message)


def test_names(add):
    add("One")
    add("slac-ml@20200227.0")
    seen = told(add("one").parent)
    assert "error: /one differs from 'One' only by case: one hides the other" in seen
    assert len([row for row in seen if row.startswith("error: /slac-ml@20200227.0 ")]) == 1


def test_the_servers_own_kernel(add):
    assert told(add("python3").parent) == [
        (
            "warning: /python3 hides the kernel of the Jupyter server's own Python, "
            "and is started for the notebooks of that one"
        )
    ]


def test_a_folder_that_jupyter_path_would_split(tmp_path):
    (tmp_path / "a:b").mkdir()
    (finding,) = check_kernelspecs(tmp_path / "a:b").findings
    assert finding.message == "the path holds ':' or '@': JUPYTER_PATH would lose every kernel without a word"


def test_a_kernel_without_a_picture(add):
    folder = add()
    (folder / "logo-64x64.png").unlink()
    assert told(folder.parent) == ["error: /one logo-64x64.png is missing: the card would have no picture"]
