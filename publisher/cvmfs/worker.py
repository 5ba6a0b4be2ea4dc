"""A process that packs: gets jobs on stdin and answers on stdout until stdin ends.

Both ways go frames; the first one is the plan.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import traceback
from typing import cast

from publisher.cvmfs.content_index import StoredIndex
from publisher.cvmfs.frames import Trouble, receive, send
from publisher.cvmfs.packer import Packer, Plan, Task
from publisher.errors import DiskError

_PR_SET_PDEATHSIG = 1


def _answer(packer: Packer, task: Task) -> list[tuple[object, ...]] | Trouble:
    try:
        return list(map(tuple, task.pack(packer)))  # plain tuples are pickled three times faster
    except DiskError as exc:
        return Trouble(message=exc.message, hint=exc.hint)
    except Exception as exc:  # noqa: BLE001 - raised again by whoever gave the job
        return Trouble(message=f"{type(exc).__name__}: {exc}", detail=traceback.format_exc())


def main(parent: int) -> None:
    """Works until there is nothing more to do.

    Args:
        parent: the process to die with, however it ends: nobody else would remove what is written.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    gc.disable()  # nothing here refers to itself, and looking for what does takes time
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    try:
        plan = receive(source)
        assert isinstance(plan, Plan)
        with StoredIndex(plan.index) as index:
            packer = Packer(plan, index)
            while True:
                task = cast("Task", receive(source))
                send(sink, _answer(packer, task))
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
