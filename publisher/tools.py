"""Other people's programs; the only user of subprocess: no shell, stdin closed, nothing left running."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from publisher.errors import ToolError

_TAIL_LINES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """What a finished program left."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    """All of stdout."""
    tail: str
    """The last lines of stdout and stderr as they came."""

    @property
    def ok(self) -> bool:
        """True when the program exited with 0."""
        return self.returncode == 0


def which(program: str, *, path: str | None = None) -> Path | None:
    """The absolute path of a program, or None where it is not installed."""
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def require(program: str, *, hint: str) -> Path:
    """The absolute path of a program.

    Raises:
        ToolError: it is not installed; ``hint`` says how to install it.
    """
    found = which(program)
    if found is None:
        raise ToolError(f"the program {program!r} is not installed", hint=hint)
    return found


def run(  # noqa: PLR0913 - one call with everything a child process can be given
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout_s: float | None = None,
    check: bool = True,
    log: Path | None = None,
) -> Completed:
    """What a program printed and how it ended; both streams are drained as they come.

    The program runs in its own process group with stdin closed. When afpub is interrupted or the time is
    up the whole group is ended (SIGTERM, then SIGKILL after five seconds).

    Args:
        argv: program and arguments; never a shell line.
        env: the whole environment of the child; None hands on ours.
        cwd: its working folder.
        on_line: called with each line of either stream, without its newline.
        timeout_s: seconds after which the program is ended.
        check: raise when the program fails.
        log: file that gets every line of both streams.

    Raises:
        ToolError: the program is not there, ran out of time, or failed while ``check`` is set.
    """
    words = tuple(str(word) for word in argv)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    out: list[str] = []
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
        lock = threading.Lock()

        def take(line: str, *, keep: bool) -> None:
            with lock:
                tail.append(line)
                if keep:
                    out.append(line)
                if sink:
                    sink.write(line + "\n")
                if on_line:
                    on_line(line)

        with _started(words, env=env, cwd=cwd) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            readers = [_drain(process.stdout, take, keep=True), _drain(process.stderr, take, keep=False)]
            try:
                process.wait(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise ToolError(
                    f"{words[0]} did not finish in {timeout_s:.0f} s", detail="\n".join(tail)
                ) from None
            for reader in readers:
                reader.join(timeout=5)
    done = Completed(argv=words, returncode=process.returncode, stdout="\n".join(out), tail="\n".join(tail))
    if check and not done.ok:
        raise ToolError(f"{Path(words[0]).name} failed with exit code {done.returncode}", detail=done.tail)
    return done


def _drain(stream: IO[str], take: Callable[..., None], *, keep: bool) -> threading.Thread:
    def loop() -> None:
        for line in stream:
            take(line.rstrip("\n"), keep=keep)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def _started(
    words: tuple[str, ...], *, env: Mapping[str, str] | None, cwd: Path | None
) -> Iterator[subprocess.Popen[str]]:
    try:
        process = subprocess.Popen(  # noqa: S603 - argv is a list, there is no shell
            words,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as exc:
        raise ToolError(f"cannot start {words[0]}: {exc.strerror}") from exc
    try:
        yield process
    finally:
        if process.poll() is None:
            end_group(process)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def end_group(process: subprocess.Popen[str]) -> None:
    """Ends a process group that ``run`` or ``spawn`` started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def spawn(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, log: Path
) -> Iterator[int]:
    """The process id of a server that runs while the context is open; its output goes to ``log``.

    Raises:
        ToolError: the program cannot be started.
    """
    words = tuple(str(word) for word in argv)
    with log.open("ab") as sink:
        try:
            process = subprocess.Popen(  # noqa: S603 - argv is a list, there is no shell
                words,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                text=True,
                start_new_session=True,
            )
        except OSError as exc:
            raise ToolError(f"cannot start {words[0]}: {exc.strerror}") from exc
        try:
            yield process.pid
        finally:
            if process.poll() is None:
                end_group(process)
