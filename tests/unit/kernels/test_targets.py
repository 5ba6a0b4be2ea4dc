from __future__ import annotations

import json

import pytest

from publisher.errors import KernelError, NotFoundError
from publisher.kernels.targets import SMOKE_FILE, listed, read_smoke, smoke_json
from publisher.project.kernel import SmokeCell

CELLS = (SmokeCell(code="6 * 7", expect="^42$"), SmokeCell(code="1", allow_stderr="."))


@pytest.fixture
def kernel(tmp_path):
    """Writes a kernel into a folder ``<place>/kernels``."""

    def write(place, name, text=""):
        folder = tmp_path / place / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": ["x", "{connection_file}"], "display_name": name, "language": "python"}
        (folder / "kernel.json").write_text(text or json.dumps(spec))
        return folder

    return write


def test_kernels_are_listed_with_their_smoke_cells(kernel, tmp_path):
    (kernel("a", "one") / SMOKE_FILE).write_bytes(smoke_json(CELLS))
    kernel("a", "two")
    targets, report = listed(jupyter_paths=[tmp_path / "a"])
    assert [(target.name, target.smoke) for target in targets] == [("one", CELLS), ("two", ())]
    assert report.findings == ()


def test_kernel_that_another_one_hides_is_told(kernel, tmp_path):
    first, second = kernel("a", "py"), kernel("b", "Py")
    targets, report = listed(["PY"], jupyter_paths=[tmp_path / "a", tmp_path / "b"])
    assert [target.kernel_dir for target in targets] == [first]
    (finding,) = report.findings
    assert finding.message == f"{second} is never started: {first} has the same name and comes first"
    assert finding.hint == "give one of them another name, or change the order in JUPYTER_PATH"


def test_kernel_that_servers_leave_out_is_told(kernel, tmp_path):
    folder = kernel("a", "py", "{")
    targets, report = listed(["py"], jupyter_paths=[tmp_path / "a"])
    assert targets == ()
    (finding,) = report.errors
    assert finding.message.startswith(f"{folder} cannot be used, and servers leave it out without a word: ")
    assert finding.hint == f"mend or remove {folder}/kernel.json"


def test_names_that_are_not_there_are_refused(kernel, tmp_path):
    kernel("a", "py")
    with pytest.raises(NotFoundError, match=f"there is no kernel 'r' in {tmp_path}/a/kernels") as caught:
        listed(["py", "r"], jupyter_paths=[tmp_path / "a"])
    assert "--jupyter-path" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "[1]", '[{"cod": "1"}]', '{"code": "1"}'])
def test_smoke_cells_that_cannot_be_read_are_told(kernel, text):
    folder = kernel("a", "py")
    (folder / SMOKE_FILE).write_text(text)
    with pytest.raises(KernelError, match=f"{SMOKE_FILE} cannot be read"):
        read_smoke(folder)
