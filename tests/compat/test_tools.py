import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from publisher import tools
from publisher.errors import DiskError, ToolError


def python(code, **options):
    return tools.run([sys.executable, "-c", code], **options)


def alive(pid):
    """Whether a process still runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def gone(pid, *, within_s=8.0):
    end = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_both_streams_are_kept_apart_and_together():
    done = python("import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)")
    assert done.ok
    assert done.stdout == "out"
    assert sorted(done.tail.splitlines()) == ["err", "out"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_more_output_than_a_pipe_holds_does_not_stop_the_program(stream):
    done = python(f"import sys; sys.{stream}.write(('x' * 99 + '\\n') * 20000); print('end')", timeout_s=30)
    assert done.stdout.endswith("end")
    assert len(done.stdout.splitlines()) == (20001 if stream == "stdout" else 1)


def test_a_line_of_any_length_and_any_bytes_arrives():
    done = python("import sys; sys.stdout.buffer.write(b'a' * 1000000 + b'\\xff\\n')", timeout_s=30)
    assert len(done.stdout) == 1_000_001
    assert done.stdout.endswith("\N{REPLACEMENT CHARACTER}")


def test_lines_are_handed_on_while_the_program_runs():
    arrived = []
    code = "import sys, time; print('first', flush=True); time.sleep(1.5); print('second')"
    python(code, on_line=lambda line: arrived.append((line, time.monotonic())))
    (first, first_s), (second, second_s) = arrived
    assert (first, second) == ("first", "second")
    assert second_s - first_s > 1


def test_a_log_gets_every_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n", encoding="utf-8")
    python("import sys; print('one'); print('two', file=sys.stderr)", log=log)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert sorted(lines[1:]) == ["one", "two"]


def test_stdin_is_closed():
    assert python("import sys; print(repr(sys.stdin.read()))", timeout_s=10).stdout == "''"


def test_no_shell_reads_the_words():
    done = tools.run([sys.executable, "-c", "import sys; print(sys.argv[1])", "$(id); `id` 'a  b'"])
    assert done.stdout == "$(id); `id` 'a  b'"


def test_environment_and_folder(tmp_path):
    code = "import os; print(os.environ.get('HOME'), os.environ['ONLY'], os.getcwd())"
    done = python(code, env={"ONLY": "this"}, cwd=tmp_path)
    assert done.stdout == f"None this {tmp_path}"


def test_a_failure_says_which_program_and_shows_its_last_lines():
    with pytest.raises(ToolError) as caught:
        python("import sys; [print(n) for n in range(100)]; sys.exit(7)")
    assert caught.value.message == f"{Path(sys.executable).name} failed with exit code 7"
    assert caught.value.detail.splitlines() == [str(number) for number in range(60, 100)]
    assert python("raise SystemExit(7)", check=False).returncode == 7


def test_a_program_ended_by_a_signal_is_named_so():
    with pytest.raises(ToolError, match=r"was ended by SIGKILL$"):
        python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(ToolError) as caught:
        tools.run([tmp_path / "nowhere"])
    assert caught.value.message == f"cannot start {tmp_path}/nowhere: No such file or directory"
    with pytest.raises(ToolError) as caught:
        tools.require("no-such-program", hint="install it")
    assert (caught.value.message, caught.value.hint) == (
        "the program 'no-such-program' is not installed",
        "install it",
    )


def test_time_is_up_for_a_program_and_its_children(tmp_path):
    pids = tmp_path / "pids"
    script = f'sleep 300 & echo "$$ $!" >{pids}; echo started; wait'
    started = time.monotonic()
    with pytest.raises(ToolError) as caught:
        tools.run(["sh", "-c", script], timeout_s=0.5)
    assert caught.value.message == "sh did not finish in 0.5 s"
    assert caught.value.detail == "started"
    assert time.monotonic() - started < 5
    assert all(gone(int(pid)) for pid in pids.read_text(encoding="utf-8").split())


def test_a_program_that_ignores_sigterm_is_killed():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"did not finish in 1 s"):
        python(code, timeout_s=1.0)
    assert 5 <= time.monotonic() - started < 15


def test_an_interrupt_ends_the_program(tmp_path):
    pid = tmp_path / "pid"

    def interrupt(line):
        pid.write_text(line, encoding="utf-8")
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        python("import os, time; print(os.getpid(), flush=True); time.sleep(300)", on_line=interrupt)
    assert gone(int(pid.read_text(encoding="utf-8")))


def test_what_a_program_leaves_running_is_ended():
    started = time.monotonic()
    done = tools.run(["sh", "-c", "sleep 300 & echo $!"])
    assert done.ok
    assert time.monotonic() - started < 15
    assert gone(int(done.stdout))


def test_an_error_in_the_listener_reaches_the_caller_and_stops_no_output():
    def listener(line):
        raise ValueError(line)

    with pytest.raises(ValueError, match=r"^x+$"):
        python("print(('x' * 99 + '\\n') * 5000)", on_line=listener, timeout_s=30)


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_full_disk_under_the_log_is_said(size):
    with pytest.raises(DiskError, match=r"^cannot write /dev/full: No space left on device$"):
        python(f"print('x' * {size})", log=Path("/dev/full"))


def test_a_log_that_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(DiskError) as caught:
        python("print()", log=tmp_path / "nowhere" / "log")
    assert caught.value.message == f"cannot write {tmp_path}/nowhere/log: No such file or directory"


def test_runs_in_several_threads_do_not_mix():
    results = {}

    def work(number):
        results[number] = python(f"[print({number}) for _ in range(500)]").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: "\n".join([str(number)] * 500) for number in range(4)}


def test_a_server_runs_while_its_context_is_open(tmp_path):
    log = tmp_path / "log"
    with tools.spawn(["sh", "-c", "echo up; exec sleep 300"], log=log) as pid:
        time.sleep(0.3)
        assert alive(pid)
    assert gone(pid)
    assert log.read_text(encoding="utf-8") == "up\n"


def test_a_partner_is_talked_to_and_ends_with_its_context():
    with tools.partner(["sh", "-c", "echo $$; exec cat"]) as partner:
        pid = int(os.read(partner.stdout, 100))
        os.write(partner.stdin, b"hello")
        assert os.read(partner.stdout, 100) == b"hello"
        assert os.getsid(pid) == pid
        assert alive(pid)
    assert gone(pid)


def test_a_partner_that_does_not_listen_is_killed_when_the_context_fails():
    pids = []

    def fail():
        with tools.partner(["sh", "-c", "trap '' TERM INT; echo $$; sleep 300"]) as partner:
            pids.append(int(os.read(partner.stdout, 100)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert gone(pids[0])


def test_a_partner_that_fails_tells_why():
    with tools.partner(["sh", "-c", "echo no luck >&2; exit 3"]) as partner:
        assert os.read(partner.stdout, 100) == b""
        assert partner.ended() == ("failed with exit code 3", "no luck\n")


def test_a_partner_that_is_not_there():
    with pytest.raises(ToolError) as caught, tools.partner(["/no/such"]):
        pass
    assert caught.value.message == "cannot start /no/such: No such file or directory"
