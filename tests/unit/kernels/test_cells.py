from __future__ import annotations

import os

import pytest

from publisher.kernels.cells import CellResult, _Collected, judge
from publisher.kernels.processes import left_over, now_s
from publisher.project.kernel import SmokeCell


def verdict(cell, **values):
    return judge(cell, CellResult(code=cell.code, **values), number=2)


def test_good_cell():
    cell = SmokeCell(code="6*7", expect="^42$", allow_stderr="^note:")
    assert not verdict(cell, status="ok", output="42\n", stderr="note: slow\n\n")


def test_error_that_a_kernel_tells_on_stderr_only():
    cell = SmokeCell(code="int i = nope;")
    assert verdict(cell, status="ok", stderr="\x1b[1minput_line_9\x1b[0m: error\n") == (
        "cell 2 wrote on stderr\n  code: int i = nope;\n  stderr: input_line_9: error"
    )


def test_output_that_is_not_expected():
    cell = SmokeCell(code="print(1)", expect=r"\(2, 7\)")
    assert verdict(cell, status="ok", output="(3, 11)\n") == (
        "cell 2 did not print what is expected\n  code: print(1)\n  expected: \\(2, 7\\)\n  printed: (3, 11)"
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"status": "dead"}, "the kernel died in cell 2"),
        ({"status": "timeout", "seconds": 180.2}, "cell 2 did not end in 180 s"),
        ({"status": "error", "traceback": "NameError: x"}, "cell 2 ended with NameError: x"),
        ({"status": "aborted"}, "cell 2 ended with the status 'aborted'"),
    ],
)
def test_cell_that_did_not_end_well(values, words):
    text = verdict(SmokeCell(code="x"), stderr="why", **values)
    assert text == f"{words}\n  code: x\n  printed: (nothing)\n  stderr: why"


def test_only_the_end_of_long_output_is_shown():
    lines = [f"line {number}" for number in range(40)]
    text = verdict(SmokeCell(code="x", expect="no"), status="ok", output="\n".join(lines))
    assert text.endswith("  printed: ...\n    " + "\n    ".join(lines[-12:]))


def test_messages_are_collected():
    collected = _Collected()
    collected.take("status", {"execution_state": "busy"})
    collected.take("stream", {"name": "stdout", "text": "a"})
    collected.take("stream", {"name": "stderr", "text": "b"})
    collected.take("display_data", {"data": {"image/png": "...", "text/plain": "<canvas>"}})
    collected.take("execute_result", {"data": {"text/html": "<b>"}})
    collected.take("error", {"ename": "E", "evalue": "v"})
    assert (collected.output, collected.stderr) == (["a", "<canvas>\n"], ["b"])
    assert (collected.images, collected.traceback, collected.idle) == (1, "E: v", False)
    collected.take("status", {"execution_state": "idle"})
    assert collected.idle


def test_processes_of_a_session_are_found():
    found = left_over(os.getsid(0), marker="no process has this", wait_s=0, since_s=now_s())
    assert os.getpid() in {process.pid for process in found}


def test_no_process_is_found_where_there_is_none():
    assert left_over(2**30, marker="no process has this", wait_s=0, since_s=now_s()) == ()
