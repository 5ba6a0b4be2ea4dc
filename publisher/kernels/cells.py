"""Runs cells in a started kernel and judges what they printed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import Empty

from jupyter_client.asynchronous.client import AsyncKernelClient

from publisher.project.kernel import SmokeCell

_POLL_S = 0.5
_SHOWN_LINES = 12
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True, slots=True)
class CellResult:
    """What came out of a cell."""

    code: str
    status: str
    """``ok``, ``error``, ``aborted``; ``dead`` if the kernel ended, ``timeout`` if no answer came."""
    output: str = ""
    """Text on stdout, results and displayed text, as they came."""
    stderr: str = ""
    traceback: str = ""
    seconds: float = 0.0
    images: int = 0
    """Pictures displayed."""
    kinds: frozenset[str] = frozenset()
    """What came: ``stdout``, ``stderr``, ``display_data``, ``execute_result``, ``error``, ``input_request``."""


@dataclass(slots=True)
class _Collected:
    output: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    traceback: str = ""
    images: int = 0
    status: str = ""
    idle: bool = False
    kinds: set[str] = field(default_factory=set)

    def take(self, kind: str, content: Mapping[str, object]) -> None:
        """Adds what one message on the IOPub channel brings."""
        self.kinds.add(str(content["name"]) if kind == "stream" else kind)
        if kind == "stream":
            sink = self.stderr if content["name"] == "stderr" else self.output
            sink.append(str(content["text"]))
        elif kind in {"execute_result", "display_data"}:
            data = content["data"]
            assert isinstance(data, Mapping)
            self.images += any(mime.startswith("image/") for mime in data)
            if "text/plain" in data:
                self.output.append(f"{data['text/plain']}\n")
        elif kind == "error":
            self.traceback = f"{content['ename']}: {content['evalue']}"
        elif kind == "status":
            self.idle = content["execution_state"] == "idle"


async def run_cell(client: AsyncKernelClient, code: str, *, timeout_s: float, answer: str | None = None) -> CellResult:
    """What a cell printed, and how it ended; it always returns, also when the kernel dies.

    Args:
        client: of the kernel, with channels started.
        code: the cell.
        timeout_s: seconds after which the answer is no longer waited for.
        answer: what is typed when the cell asks for a line; None forbids it to ask.
    """
    begun = time.monotonic()
    message = send_cell(client, code, allow_stdin=answer is not None)
    return await wait_for_cell(client, message, code=code, deadline=begun + timeout_s, begun=begun, answer=answer)


def send_cell(client: AsyncKernelClient, code: str, *, allow_stdin: bool = False) -> str:
    """Sends a cell and gives the message's id; if the cell fails, the next one is run all the same.

    After an error a kernel aborts the cells that are waiting, and a busy one also those that come a moment later.
    """
    return str(client.execute(code, allow_stdin=allow_stdin, stop_on_error=False))


async def wait_for_cell(  # noqa: PLR0913 - the cell, its times, its answer
    client: AsyncKernelClient, message: str, *, code: str, deadline: float, begun: float, answer: str | None = None
) -> CellResult:
    """What a cell printed that was sent before as ``message``; times are of :func:`time.monotonic`."""
    collected = _Collected()
    questions = asyncio.create_task(_answer_questions(client, message, collected, answer))
    await asyncio.gather(
        _follow_output(client, message, collected, deadline),
        _follow_reply(client, message, collected, deadline),
    )
    questions.cancel()
    return CellResult(
        code=code,
        status=collected.status,
        output="".join(collected.output),
        stderr="".join(collected.stderr),
        traceback=collected.traceback,
        seconds=time.monotonic() - begun,
        images=collected.images,
        kinds=frozenset(collected.kinds - {"status", "execute_input"}),
    )


async def wait_for_text(client: AsyncKernelClient, message: str, text: str, *, timeout_s: float) -> bool:
    """True once the cell sent as ``message`` has printed a text."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            received = await client.get_iopub_msg(timeout=_POLL_S)
        except Empty:
            continue
        if _answers(received, message) and text in str(received["content"].get("text", "")):
            return True
    return False


async def _follow_output(client: AsyncKernelClient, message: str, collected: _Collected, deadline: float) -> None:
    """Until the kernel is idle again: only then all output has come."""
    while not collected.idle and collected.status not in {"dead", "timeout"}:
        try:
            received = await client.get_iopub_msg(timeout=_POLL_S)
        except Empty:
            if time.monotonic() > deadline:
                return
            continue
        if _answers(received, message):
            collected.take(received["msg_type"], received["content"])


async def _answer_questions(client: AsyncKernelClient, message: str, collected: _Collected, answer: str | None) -> None:
    while answer is not None and not collected.status:
        try:
            received = await client.get_stdin_msg(timeout=_POLL_S)
        except Empty:
            continue
        if _answers(received, message):
            collected.kinds.add(received["msg_type"])
            client.input(answer)


async def _follow_reply(client: AsyncKernelClient, message: str, collected: _Collected, deadline: float) -> None:
    while not collected.status:
        try:
            received = await client.get_shell_msg(timeout=_POLL_S)
        except Empty:
            if not await client.is_alive():
                collected.status = "dead"
            elif time.monotonic() > deadline:
                collected.status = "timeout"
            continue
        if _answers(received, message):
            collected.status = received["content"]["status"]


def _answers(received: Mapping[str, Mapping[str, object]], message: str) -> bool:
    return received["parent_header"].get("msg_id") == message


def judge(cell: SmokeCell, result: CellResult, *, number: int) -> str:
    """Why a smoke cell failed, in words for the release manager; empty if it did what it should.

    A C++ kernel tells errors on stderr and answers ``ok``, so anything on stderr that is not allowed counts.
    """
    what = f"cell {number}"
    if result.status == "dead":
        return f"the kernel died in {what}{_shown('code', cell.code)}{_printed(result)}"
    if result.status == "timeout":
        return f"{what} did not end in {result.seconds:.0f} s{_shown('code', cell.code)}{_printed(result)}"
    if result.status != "ok":
        raised = result.traceback or f"the status {result.status!r}"
        return f"{what} ended with {raised}{_shown('code', cell.code)}{_printed(result)}"
    bad = [line for line in result.stderr.splitlines() if line.strip() and not _allowed(cell, line)]
    if bad:
        return f"{what} wrote on stderr{_shown('code', cell.code)}{_shown('stderr', chr(10).join(bad))}"
    if cell.expect and not re.search(cell.expect, result.output):
        return (
            f"{what} did not print what is expected"
            f"{_shown('code', cell.code)}{_shown('expected', cell.expect)}{_printed(result)}"
        )
    return ""


def _allowed(cell: SmokeCell, line: str) -> bool:
    return bool(cell.allow_stderr and re.search(cell.allow_stderr, line))


def _printed(result: CellResult) -> str:
    text = _shown("printed", result.output or "(nothing)")
    return text + _shown("stderr", result.stderr) if result.stderr else text


def _shown(title: str, text: str) -> str:
    lines = _ANSI.sub("", text).strip().splitlines()
    if len(lines) > _SHOWN_LINES:
        lines = ["...", *lines[-_SHOWN_LINES:]]
    return f"\n  {title}: " + "\n    ".join(lines)
