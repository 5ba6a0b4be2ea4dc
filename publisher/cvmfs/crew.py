"""Who packs: this process alone, or a few workers beside it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import publisher
from publisher import tools
from publisher.cvmfs.frames import Trouble, frame, receive
from publisher.cvmfs.packer import Index, Packed, Packer, Part, Plan
from publisher.errors import DiskError, ToolError

_AHEAD = 8
"""Jobs that each worker has: it goes on while a catalog is written."""


@dataclass(slots=True, eq=False)
class Job:
    """Parts that are packed together."""

    parts: tuple[Part, ...]
    packed: list[Packed] | None = None
    """None until it is done."""


class Crew(Protocol):
    """Who packs."""

    def hand_out(self, job: Job) -> list[Job]:
        """Takes a job, waiting while there are enough; the jobs that were done meanwhile.

        Raises:
            DiskError: a file cannot be read, or an object cannot be written.
        """
        ...

    def wait(self) -> list[Job]:
        """Waits until at least one job is done; nothing only when no job is under way."""
        ...


class Alone:
    """This process packs, each job at once: nothing to start, which is best for small trees."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer

    def hand_out(self, job: Job) -> list[Job]:
        """See :class:`Crew`."""
        job.packed = self._packer.pack(job.parts)
        return [job]

    def wait(self) -> list[Job]:
        """See :class:`Crew`."""
        return []


@dataclass(slots=True, eq=False)
class _Worker:
    process: tools.Partner
    jobs: deque[Job] = field(default_factory=deque)
    """Answers come in the order of the jobs."""

    def give(self, what: object) -> list[Job]:
        """Tells it something, and takes its answers meanwhile: pipes are short, and it might wait for us to read."""
        done = []
        view = memoryview(frame(what))
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        poll.register(self.process.stdin, select.POLLOUT)
        while view:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self.process.stdout in ready:
                done.append(self.finish())
            elif ready:
                try:
                    view = view[os.write(self.process.stdin, view[: select.PIPE_BUF]) :]  # so many never block
                except OSError as exc:
                    raise self._gone() from exc
        return done

    def finish(self) -> Job:
        try:
            answer = receive(self.process.stdout)
        except EOFError as exc:
            raise self._gone() from exc
        if isinstance(answer, Trouble):
            if answer.detail:
                raise ToolError(f"a worker failed: {answer.message}", detail=answer.detail)
            raise DiskError(answer.message, hint=answer.hint)
        assert isinstance(answer, list)
        job = self.jobs.popleft()
        job.packed = answer
        return job

    def _gone(self) -> ToolError:
        ending, said = self.process.ended()
        return ToolError(f"a worker that packs objects {ending}", hint="run it again", detail=said)


class Workers:
    """Processes that pack: Python works on one thing at a time in each."""

    def __init__(self, processes: Sequence[tools.Partner], plan: Plan) -> None:
        self._workers = [_Worker(process) for process in processes]
        self._poll = select.poll()
        self._by_descriptor = {worker.process.stdout: worker for worker in self._workers}
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.POLLIN)
        for worker in self._workers:
            worker.give(plan)

    def hand_out(self, job: Job) -> list[Job]:
        """See :class:`Crew`."""
        done = self._ready(0)
        while True:
            worker = min(self._workers, key=lambda each: len(each.jobs))
            if len(worker.jobs) < _AHEAD:
                break
            done += self.wait()
        worker.jobs.append(job)
        return done + worker.give(job.parts)

    def wait(self) -> list[Job]:
        """See :class:`Crew`."""
        if not any(worker.jobs for worker in self._workers):
            return []
        return self._ready(None)

    def _ready(self, timeout_ms: int | None) -> list[Job]:
        return [self._by_descriptor[descriptor].finish() for descriptor, _ in self._poll.poll(timeout_ms)]


@contextlib.contextmanager
def crew_of(workers: int, plan: Plan, index: Index) -> Iterator[Crew]:
    """A crew of so many workers; of none but this process for fewer than two.

    However the context ends, no worker is left, so that nobody writes any more.

    Raises:
        ToolError: a worker cannot be started.
    """
    if workers < 2:
        yield Alone(Packer(plan, index))
        return
    folder = Path(publisher.__file__).parent.parent
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    argv = (sys.executable, "-P", "-m", "publisher.cvmfs.worker", str(os.getpid()))
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(tools.partner(argv, env={**os.environ, "PYTHONPATH": path})) for _ in range(workers)
        ]
        yield Workers(processes, plan)
