"""Who packs: this process alone, or a few workers beside it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import publisher
from publisher import tools
from publisher.cvmfs.frames import Trouble, frame, receive
from publisher.cvmfs.packer import Index, Packed, Packer, Plan, Task
from publisher.errors import DiskError, ToolError
from publisher.tree import Entry

_AHEAD = 8
"""Jobs that each worker has: it goes on while this process does something else."""
_MOST_HANDS = 8
_ALONE_FILES = 1_000
_ALONE_BYTES = 32 << 20
"""What one process packs in the time that workers take to start."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be packed, and who is told when it is."""

    task: Task
    done: Callable[[list[Packed]], None]
    """Called while somebody gives the crew a job, or waits for it; it must not give it jobs itself."""


@dataclass(slots=True, eq=False)
class _Worker:
    process: tools.Partner
    jobs: deque[tuple[Job, int]] = field(default_factory=deque)
    """Each with the descriptor that stays open until its answer comes, or -1; answers come in the order of the jobs."""

    def give(self, job: Job) -> None:
        """Gives it a job."""
        words, kept = frame(job.task)
        self.jobs.append((job, kept))
        self.tell(words)

    def tell(self, words: bytes) -> None:
        """Says something, and takes answers meanwhile: pipes are short, and it might wait for us to read."""
        view = memoryview(words)
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        poll.register(self.process.stdin, select.POLLOUT)
        while view:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self.process.stdout in ready:
                self.finish()
            elif ready:
                try:
                    view = view[os.write(self.process.stdin, view[: select.PIPE_BUF]) :]  # so many never block
                except OSError as exc:
                    raise self._gone() from exc

    def finish(self) -> None:
        """Takes the answer to its first job."""
        try:
            answer = receive(self.process.stdout)
        except EOFError as exc:
            raise self._gone() from exc
        if isinstance(answer, Trouble):
            if answer.detail:
                raise ToolError(f"a worker failed: {answer.message}", detail=answer.detail)
            raise DiskError(answer.message, hint=answer.hint)
        assert isinstance(answer, list)
        job = self._pop()
        job.done(list(map(Packed._make, answer)))

    def _pop(self) -> Job:
        job, kept = self.jobs.popleft()
        if kept >= 0:
            os.close(kept)
        return job

    def forget(self) -> None:
        """Forgets all jobs: there will be no answers."""
        while self.jobs:
            self._pop()

    def _gone(self) -> ToolError:
        ending, said = self.process.ended()
        return ToolError(f"a worker that packs objects {ending}", hint="run it again", detail=said)


class Hands:
    """Processes that can pack: Python works on one thing at a time in each.

    To start one takes as long as looking at 10,000 files, so they may be started before there is anything to pack.
    However the context ends, none is left, so that nobody writes any more.
    """

    def __init__(self, count: int = 0) -> None:
        """Starts nothing yet.

        Args:
            count: how many; 0 is what suits this machine. One is of no use, and never started.
        """
        self._count = count or usual_hands()
        self._stack = contextlib.ExitStack()
        self.processes: list[tools.Partner] = []
        """Those that are there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            process.hang_up()  # so that they end at the same time
        self.processes.clear()
        self._stack.__exit__(*exc)  # type: ignore[arg-type]

    def start(self) -> None:
        """Starts them, unless they are there.

        Raises:
            ToolError: one cannot be started.
        """
        if self.processes or self._count < 2:
            return
        folder = Path(publisher.__file__).parent.parent
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        argv = (sys.executable, "-P", "-m", "publisher.cvmfs.worker", str(os.getpid()))
        for _ in range(self._count):
            process = self._stack.enter_context(tools.partner(argv, env={**os.environ, "PYTHONPATH": path}))
            self.processes.append(process)

    def start_behind(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries; with so many that the processes will be needed, they start meanwhile."""
        for number, entry in enumerate(entries):
            if number == _ALONE_FILES:
                self.start()
            yield entry


def usual_hands() -> int:
    """How many processes pack on this machine, unless somebody says otherwise."""
    return min(_MOST_HANDS, len(os.sched_getaffinity(0)))


class Crew:
    """Packs what it is given: this process at once, or others once there is enough to do.

    However the context ends, nobody packs any more.
    """

    def __init__(self, hands: Hands, plan: Plan, index: Index) -> None:
        """Gets ready.

        Args:
            hands: pack, if they are there or get started.
            plan: how things are packed.
            index: what the store has, for this process; others read what the plan names.
        """
        self.packer = Packer(plan, index)
        """For what is packed here."""
        self._plan = plan
        self._hands = hands
        self._workers: list[_Worker] = []
        self._poll = select.poll()
        self._by_descriptor: dict[int, _Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.forget()
        self._workers.clear()
        self._hands.__exit__(*exc)

    def expect(self, *, files: int, size_bytes: int) -> None:
        """Has others pack if so much, or more, makes it worth while.

        Raises:
            ToolError: a worker cannot be started.
        """
        if self._workers or (files < _ALONE_FILES and size_bytes < _ALONE_BYTES):
            return
        self._hands.start()
        for process in self._hands.processes:
            worker = _Worker(process)
            self._workers.append(worker)
            self._by_descriptor[process.stdout] = worker
            self._poll.register(process.stdout, select.POLLIN)
        for worker in self._workers:
            worker.tell(frame(self._plan)[0])

    def hand_out(self, job: Job) -> None:
        """Takes a job, waiting while there are enough.

        Raises:
            DiskError: a file cannot be read, or an object cannot be written.
        """
        if not self._workers:
            job.done(job.task.pack(self.packer))
            return
        self._take(0)
        while True:
            worker = min(self._workers, key=lambda each: len(each.jobs))
            if len(worker.jobs) < _AHEAD:
                break
            self.wait()
        worker.give(job)

    def wait(self) -> None:
        """Waits until at least one job is done.

        Raises:
            DiskError: as for :meth:`hand_out`.
        """
        assert any(worker.jobs for worker in self._workers)
        self._take(None)

    def _take(self, timeout_ms: int | None) -> None:
        for descriptor, _ in self._poll.poll(timeout_ms):
            self._by_descriptor[descriptor].finish()
