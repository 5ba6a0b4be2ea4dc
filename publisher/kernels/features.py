"""What a notebook relies on beside running cells: kinds of output, questions, completion, help, the debugger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient

from publisher.kernels.cells import CellResult, run_cell

_TIMEOUT_S = 30.0
_POLL_S = 0.5
_ANSWER = "afpub-answer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """What a kernel of a language is asked, and what must come."""

    outputs: str
    """A cell that makes every kind of output."""
    kinds: frozenset[str]
    """The kinds that must come, as :class:`~publisher.kernels.cells.CellResult` names them."""
    completion: tuple[str, str]
    """Text before the cursor, and how one of the matches must end."""
    failing: str = ""
    """A cell that must end with an error; empty where errors are told on stderr only."""
    question: str = ""
    """A cell that asks for a line and gives it back; empty where cells cannot ask."""
    inspection: str = ""
    """A name that there is help for; empty where the kernel has none."""


SAMPLES: Mapping[str, Samples] = {
    "python": Samples(
        outputs=(
            "import sys\n"
            "from IPython.display import HTML, display\n"
            "sys.stdout.write('afpub\\n')\n"
            "sys.stderr.write('afpub\\n')\n"
            "display(HTML('<b>afpub</b>'))\n"
            "6 * 7"
        ),
        kinds=frozenset({"stdout", "stderr", "display_data", "execute_result"}),
        completion=("str.isdig", "isdigit"),
        failing="1 / 0",
        question="try:\n    ask = raw_input\nexcept NameError:\n    ask = input\nask('afpub? ')",  # Python 2 and 3
        inspection="len",
    ),
    "c++": Samples(
        outputs='std::cout << "afpub" << std::endl; std::cerr << "afpub" << std::endl;',
        kinds=frozenset({"stdout", "stderr"}),
        completion=("gROOT->GetListOfCanv", "GetListOfCanvases"),
    ),
}
"""By the language of kernel.json, in lower case."""


async def _output(client: AsyncKernelClient, samples: Samples) -> str:
    result = await run_cell(client, samples.outputs, timeout_s=_TIMEOUT_S)
    if missing := samples.kinds - result.kinds:
        return f"a cell that makes {_listed(samples.kinds)} gave no {_listed(missing)}{_came(result)}"
    if samples.failing:
        result = await run_cell(client, samples.failing, timeout_s=_TIMEOUT_S)
        if result.status != "error" or "error" not in result.kinds:
            return f"a cell that must fail ended with {result.status!r}{_came(result)}"
    return ""


async def _stdin(client: AsyncKernelClient, samples: Samples) -> str:
    if not samples.question:
        return ""
    result = await run_cell(client, samples.question, timeout_s=_TIMEOUT_S, answer=_ANSWER)
    if _ANSWER in result.output:
        return ""
    asked = "asked and did not get the answer" if "input_request" in result.kinds else "could not ask"
    return f"a cell that asks for a line {asked}{_came(result)}"


async def _completion(client: AsyncKernelClient, samples: Samples) -> str:
    typed, expected = samples.completion
    content = await _ask(client.complete(typed, reply=True, timeout=_TIMEOUT_S))
    matches = [str(match) for match in content.get("matches", ())]
    if any(match.endswith(expected) for match in matches):
        return ""
    told = f"gave {len(matches)} matches, none of them {expected!r}" if content else "got no answer"
    return f"completing {typed!r} {told}"


async def _inspection(client: AsyncKernelClient, samples: Samples) -> str:
    if not samples.inspection:
        return ""
    content = await _ask(client.inspect(samples.inspection, reply=True, timeout=_TIMEOUT_S))
    if content.get("found"):
        return ""
    return f"asking for help on {samples.inspection!r} {'found nothing' if content else 'got no answer'}"


FEATURES: Mapping[str, Callable[[AsyncKernelClient, Samples], Awaitable[str]]] = {
    "output": _output,
    "stdin": _stdin,
    "completion": _completion,
    "inspection": _inspection,
}
"""Each gives what is wrong, empty for nothing, whatever the kernel does."""


async def debugger(client: AsyncKernelClient) -> str:
    """Why the debugger cannot be used, empty if it can; the kernel says in kernel.json that it has one.

    Source: the Jupyter messaging protocol, debug_request; its content is the Debug Adapter Protocol's initialize.
    """
    content = {
        "type": "request",
        "seq": 1,
        "command": "initialize",
        "arguments": {"clientID": "afpub", "adapterID": "", "pathFormat": "path"},
    }
    message = client.session.msg("debug_request", content)
    client.control_channel.send(message)
    reply = await _control_reply(client, message["header"]["msg_id"])
    if reply is None:
        return f"the debugger does not answer in {_TIMEOUT_S:.0f} s"
    return "" if reply.get("success") else f"the debugger does not start: {str(dict(reply))[:200]}"


async def _control_reply(client: AsyncKernelClient, message: str) -> Mapping[str, Any] | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                try:
                    received = await client.get_control_msg(timeout=_POLL_S)
                except Empty:
                    continue
                if received["parent_header"].get("msg_id") == message:
                    content: Mapping[str, Any] = received["content"]
                    return content
    except TimeoutError:
        return None


async def _ask(reply: Any) -> Mapping[str, Any]:  # noqa: ANN401 - jupyter_client types what comes as text or a coroutine
    """The content of a reply; empty when none came."""
    try:
        message = await reply
    except (TimeoutError, RuntimeError):  # no answer; the kernel is gone
        return {}
    content: Mapping[str, Any] = message["content"]
    return content


def _came(result: CellResult) -> str:
    seen = result.traceback or result.stderr.strip() or result.output.strip() or "(nothing)"
    return f"\n  what came: {seen[-300:]}\n  how the cell ended: {result.status}"


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
