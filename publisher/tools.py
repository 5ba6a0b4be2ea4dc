"""Other people's programs; the only user of subprocess: no shell, stdin closed, nothing left running."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, NoReturn

from publisher.errors import DiskError, ToolError

_TAIL_LINES = 40
_GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""
_LAST_LINES_S = 5.0
"""Seconds that the last lines may take once a program has ended."""


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
    feed: Callable[[BinaryIO], None] | None = None,
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
        feed: writes what the program reads from stdin; it may stop reading at any time. What ``feed`` raises
            is raised when the program, which sees its input end there, has ended.

    Raises:
        ToolError: the program is not there, ran out of time, or failed while ``check`` is set.
        DiskError: the log cannot be written.
    """
    words = tuple(str(word) for word in argv)
    with contextlib.ExitStack() as stack:
        output = _Output(sink=stack.enter_context(_log(log)) if log else None, on_line=on_line)
        process = stack.enter_context(_started(words, env=env, cwd=cwd, stdin=bool(feed)))
        assert process.stdout is not None
        assert process.stderr is not None
        readers = (output.drain(process.stdout, keep=True), output.drain(process.stderr, keep=False))
        feeder = _Feeder(process, feed) if feed else None
        try:
            process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise ToolError(f"{Path(words[0]).name} did not finish in {timeout_s:g} s", detail=output.tail) from None
        _finish(readers, process)
        if feeder:
            feeder.finish()
        if output.trouble:
            raise output.trouble
    done = Completed(argv=words, returncode=process.returncode, stdout=output.stdout, tail=output.tail)
    if check and not done.ok:
        raise ToolError(f"{Path(words[0]).name} {_ending(done.returncode)}", detail=done.tail)
    return done


def filtered(argv: Sequence[str | Path], data: bytes, *, timeout_s: float) -> bytes:
    """What a program writes to stdout when it gets the bytes on stdin; its stderr is the caller's.

    Raises:
        ToolError: the program is not there, ran out of time, or failed.
    """
    words = tuple(str(word) for word in argv)
    name = Path(words[0]).name
    try:
        done = subprocess.run(  # noqa: S603 - argv is a list, there is no shell
            words, input=data, stdout=subprocess.PIPE, timeout=timeout_s, check=False
        )
    except OSError as exc:
        raise ToolError(f"cannot start {words[0]}: {exc.strerror}") from exc
    except subprocess.TimeoutExpired:
        raise ToolError(f"{name} did not finish in {timeout_s:g} s") from None
    if done.returncode:
        raise ToolError(f"{name} {_ending(done.returncode)}")
    return done.stdout


def become(argv: Sequence[str | Path]) -> NoReturn:
    """Makes this process another program: the terminal, signals and the exit code are that program's from now on.

    Raises:
        ToolError: the program cannot be started.
    """
    words = [str(word) for word in argv]
    try:
        os.execv(words[0], words)  # noqa: S606 - argv is a list, there is no shell
    except OSError as exc:
        raise ToolError(f"cannot start {words[0]}: {exc.strerror}") from exc


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"failed with exit code {returncode}"


@contextlib.contextmanager
def _log(path: Path) -> Iterator[IO[str]]:
    try:
        with path.open("a", encoding="utf-8", buffering=1) as sink:
            yield sink
    except OSError as exc:
        raise DiskError(f"cannot write {path}: {exc.strerror}") from exc


class _Output:
    """The lines of both streams of a program, taken as they come by one thread each."""

    def __init__(self, *, sink: IO[str] | None, on_line: Callable[[str], None] | None) -> None:
        self._sink = sink
        self._on_line = on_line
        self._lock = threading.Lock()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._kept: list[str] = []
        self.trouble: Exception | None = None
        """Why a line could not be handed on; reading goes on, as a full pipe would stop the program."""

    @property
    def stdout(self) -> str:
        with self._lock:
            return "\n".join(self._kept)

    @property
    def tail(self) -> str:
        with self._lock:
            return "\n".join(self._tail)

    def drain(self, stream: IO[str], *, keep: bool) -> threading.Thread:
        """A started thread that reads a stream to its end."""
        thread = threading.Thread(target=self._read, args=(stream,), kwargs={"keep": keep}, daemon=True)
        thread.start()
        return thread

    def _read(self, stream: IO[str], *, keep: bool) -> None:
        with stream:  # closed by its only reader: closing from outside would wait for the pending read
            for line in stream:
                self._take(line.rstrip("\n"), keep=keep)

    def _take(self, line: str, *, keep: bool) -> None:
        with self._lock:
            self._tail.append(line)
            if keep:
                self._kept.append(line)
            if self.trouble is None:
                try:
                    if self._sink:
                        self._sink.write(line + "\n")
                    if self._on_line:
                        self._on_line(line)
                except Exception as exc:  # noqa: BLE001 - raised again by run, in the caller's thread
                    self.trouble = exc


class _Feeder:
    """Writes to a program's stdin from a thread of its own, so that its output is read meanwhile."""

    def __init__(self, process: subprocess.Popen[str], feed: Callable[[BinaryIO], None]) -> None:
        assert process.stdin is not None
        self._sink: BinaryIO = process.stdin.buffer  # type: ignore[attr-defined] # a text stream has its bytes there
        self._feed = feed
        self._trouble: Exception | None = None
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        try:
            with self._sink as sink:
                self._feed(sink)
        except BrokenPipeError:
            pass  # the program did not want the rest; its exit code says why
        except Exception as exc:  # noqa: BLE001 - raised again by run, in the caller's thread
            self._trouble = exc

    def finish(self) -> None:
        """Raises what went wrong while writing."""
        self._thread.join()
        if self._trouble:
            raise self._trouble


def _finish(readers: Sequence[threading.Thread], process: subprocess.Popen[str]) -> None:
    """Waits for the last lines; what a program left running in its group and holds the pipes is ended."""
    if _still_reading(readers):
        end_group(process)
        _still_reading(readers)


def _still_reading(readers: Sequence[threading.Thread]) -> bool:
    deadline = time.monotonic() + _LAST_LINES_S
    for reader in readers:
        reader.join(timeout=max(0.0, deadline - time.monotonic()))
    return any(reader.is_alive() for reader in readers)


@contextlib.contextmanager
def _started(
    words: tuple[str, ...], *, env: Mapping[str, str] | None, cwd: Path | None, stdin: bool = False
) -> Iterator[subprocess.Popen[str]]:
    try:
        process = subprocess.Popen(  # noqa: S603 - argv is a list, there is no shell
            words,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
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


def end_group(process: subprocess.Popen[str]) -> None:
    """Ends a process group that ``run`` or ``spawn`` started: politely first, then for good."""
    with contextlib.suppress(ProcessLookupError):  # the group is empty
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
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


@dataclass(frozen=True, slots=True)
class Partner:
    """A program that is talked to through its stdin and stdout."""

    stdin: int
    """Descriptor to write to."""
    stdout: int
    """Descriptor to read from."""
    _process: subprocess.Popen[bytes]
    _errors: IO[bytes]

    def hang_up(self) -> None:
        """Says that nothing more will come, which ends it; ``stdin`` is closed then."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def ended(self) -> tuple[str, str]:
        """How the program ended, as words, and what it wrote to stderr; waits for its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_GRACE_S)
        self._errors.seek(0)
        code = self._process.poll()
        return "does not answer" if code is None else _ending(code), self._errors.read().decode(errors="replace")


@contextlib.contextmanager
def partner(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> Iterator[Partner]:
    """A program that runs while the context is open, and is talked to; it ends when its stdin does.

    It is in a session of its own, so that Ctrl-C ends it through us. A failure inside the context kills it at once.

    Raises:
        ToolError: the program cannot be started.
    """
    words = tuple(str(word) for word in argv)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - argv is a list, there is no shell
                words,
                env=dict(env) if env is not None else None,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as exc:
            raise ToolError(f"cannot start {words[0]}: {exc.strerror}") from exc
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            try:
                yield Partner(process.stdin.fileno(), process.stdout.fileno(), process, errors)
                process.stdin.close()
                select.select([process.stdout], [], [], _GRACE_S)  # its end, or a last word that nobody waits for
            finally:
                process.kill()
                process.wait()
