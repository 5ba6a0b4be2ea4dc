"""The launcher and the probe with a real container runtime; the image is this machine (machine_image.py)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from compat.machine_image import IPYKERNEL, PREFIXES, definition, publish
from compat.notebook import run_cell, started

from publisher import tools
from publisher.kernels.probe import ProbeOptions, probe
from publisher.kernels.processes import left_over
from publisher.kernels.session import Depth
from publisher.kernels.targets import Target
from publisher.names import ImageName
from publisher.project.kernel import SmokeCell

LAUNCHER = Path("publisher/kernels/libexec")
PRINT_ENV = ("sh", "-c", "env -0 >&1", "{connection_file}")


@pytest.fixture(autouse=True)
def _no_message_kernel(monkeypatch):
    """A failed start ends with a code; what a user sees instead is tested on its own."""
    monkeypatch.setenv("AFPUB_ON_ERROR", "exit")


@pytest.fixture
def binds(require_tool, monkeypatch):
    """What makes the empty image this machine; skips where there is no runtime."""
    require_tool("apptainer")
    monkeypatch.setenv("APPTAINER_BINDPATH", ",".join(("/usr", *PREFIXES)))


@pytest.fixture
def published(tmp_path):
    return publish(tmp_path / "af")


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home of the user"
    folder.mkdir()
    return folder


@pytest.fixture
def launch(published, tmp_path, home):
    """Runs the launcher of a kernel whose command is a shell line, and gives what it did."""

    def run(line="env -0", *, env=None, cwd=None, connection_file=None, **values):
        kernel = definition(
            tmp_path, "shell", command=("sh", "-c", line, "{connection_file}"), display_name="Shell", **values
        )
        if not published.kernel("shell").exists():
            published.release("2026.11.1", kernel)
        given = {**os.environ, "HOME": str(home), "TMPDIR": str(tmp_path), **(env or {})}
        return tools.run(
            [published.kernel("shell") / "launch", connection_file or published.connection_file(tmp_path)],
            env={key: value for key, value in given.items() if value is not None},
            cwd=cwd or tmp_path,
            check=False,
            timeout_s=60,
        )

    return run


def variables(done):
    assert done.ok, done.tail
    return dict(row.split("=", 1) for row in done.stdout.split("\0") if "=" in row)


# ------------------------------------------------------------------ a kernel's life


def test_kernel_starts_runs_cells_is_interrupted_and_leaves_nothing_behind(binds, published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "py"))
    cells = (SmokeCell(code="6 * 7", expect="^42$"), SmokeCell(code="print('a'); 'b'", expect=r"a\n'b'"))
    done = []
    (result,) = probe(
        [Target(kernel_dir=published.kernel("py"), smoke=cells)],
        ProbeOptions(scratch=tmp_path / "scratch"),
        on_done=done.append,
    )
    assert result.report.ok, result.report
    assert [cell.output for cell in result.cells] == ["42\n", "a\n'b'\n"]
    assert 0 < result.start_s < 60
    assert 0 < result.interrupt_s < 20
    assert done == [result]


def test_connection_file_in_a_folder_that_the_runtime_does_not_bind(binds, published, tmp_path, request):
    runtime = request.config.rootpath / "build/test-runtime"
    shutil.rmtree(runtime, ignore_errors=True)
    published.release("2026.11.1", definition(tmp_path, "py"))
    (result,) = probe(
        [Target(kernel_dir=published.kernel("py"))],
        ProbeOptions(scratch=tmp_path / "scratch", runtime_dir=runtime),
    )
    shutil.rmtree(runtime)
    assert result.report.ok, result.report


def test_failures_are_told_with_cell_code_and_output(binds, published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "py"))
    cells = (
        SmokeCell(code="print('six')", expect="seven"),
        SmokeCell(code="1/0"),
        SmokeCell(code="import sys; print('oh', file=sys.stderr)"),
        SmokeCell(code="print('warned', file=sys.stderr)", allow_stderr="^warned$"),
        SmokeCell(code="import os; os._exit(3)"),
    )
    (result,) = probe(
        [Target(kernel_dir=published.kernel("py"), smoke=cells)],
        ProbeOptions(scratch=tmp_path / "scratch"),
    )
    none = "\n  last lines of the kernel's stderr: (nothing)"
    assert [finding.message for finding in result.report.errors] == [
        "cell 1 did not print what is expected\n  code: print('six')\n  expected: seven\n  printed: six" + none,
        "cell 2 ended with ZeroDivisionError: division by zero\n  code: 1/0\n  printed: (nothing)" + none,
        "cell 3 wrote on stderr\n  code: import sys; print('oh', file=sys.stderr)\n  stderr: oh" + none,
        "the kernel died in cell 5\n  code: import os; os._exit(3)\n  printed: (nothing)" + none,
    ]


def test_kernel_that_cannot_start_is_told_with_the_launchers_sentence(binds, published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "py"))
    shutil.rmtree(published.prefix / "images/machine/1")
    (result,) = probe([Target(kernel_dir=published.kernel("py"))], ProbeOptions(scratch=tmp_path / "scratch"))
    (finding,) = result.report.errors
    assert finding.check == "kernel-start"
    assert "the kernel did not start: it ended after" in finding.message
    assert finding.message.endswith(
        f"stderr: afpub: the image of the kernel 'The py kernel' is not there "
        f"({published.prefix}/images/machine/1): what this machine sees of release 2026.11.1 is incomplete\n"
        f"    afpub: try: ls {published.prefix}/images/machine/1"
    )


def test_kernel_without_its_launcher_is_told(published, tmp_path):
    folder = published.release("2026.11.1", definition(tmp_path, "py"))
    (folder / "libexec/launch").unlink()
    (result,) = probe([Target(kernel_dir=published.kernel("py"))], ProbeOptions(scratch=tmp_path / "scratch"))
    (finding,) = result.report.errors
    assert "launch cannot be run: No such file or directory" in finding.message


BROKEN = """
import ipykernel.ipkernel as module, os, sys
from ipykernel.kernelapp import launch_new_instance

class Broken(module.IPythonKernel):
    implementation = "broken"

    def do_complete(self, code, cursor_pos):
        return {"status": "ok", "matches": ["else"], "cursor_start": 0, "cursor_end": 1, "metadata": {}}

    def do_inspect(self, code, cursor_pos, detail_level=0, omit_sections=()):
        return {"status": "ok", "found": False, "data": {}, "metadata": {}}

    async def do_execute(self, code, *args, **kwargs):
        return await super().do_execute(code.replace("display(", "str("), *args, **kwargs)

    def raw_input(self, prompt=""):
        return "not what was typed"

    async def do_debug_request(self, msg):
        return {"success": False, "message": "no debugpy here"}

open(os.environ["AFPUB_RELEASE_DIR"] + "/made.pyc", "w").close()
launch_new_instance(kernel_class=Broken)
"""


def test_every_feature_that_does_not_work_is_told(binds, published, tmp_path):
    (tmp_path / "af/broken.py").write_text(BROKEN)
    command = (sys.executable, str(tmp_path / "af/broken.py"), "-f", "{connection_file}")
    folder = published.release("2026.11.1", definition(tmp_path, "py", command=command, debugger=True))
    (result,) = probe(
        [Target(kernel_dir=published.kernel("py"))],
        ProbeOptions(scratch=tmp_path / "scratch", depth=Depth.ALL),
    )
    told = {finding.check: finding.message for finding in result.report.errors}
    assert "\n  what came: 'not what was typed'\n  how the cell ended: ok\n" in told["stdin"]
    assert [(finding.check, finding.message.splitlines()[0]) for finding in result.report.errors] == [
        (
            "output",
            "a cell that makes display_data, execute_result, stderr, stdout gave no display_data",
        ),
        ("stdin", "a cell that asks for a line could not ask"),
        ("completion", "completing 'str.isdig' gave 1 matches, none of them 'isdigit'"),
        ("inspection", "asking for help on 'len' found nothing"),
        ("debugger", "the debugger does not start: {'success': False, 'message': 'no debugpy here'}"),
        ("writes", f"{folder} was written while the kernel, or another of the same release, ran: it must not change"),
        (
            "writes",
            f"{folder}/made.pyc was written while the kernel, or another of the same release, ran: it must not change",
        ),
    ]
    assert all(finding.hint for finding in result.report.errors)


def doctor(published, *words):
    return tools.run(
        [Path(sys.executable).with_name("afpub"), "doctor", "--kernels", *words],
        env={**os.environ, "JUPYTER_PATH": str(published.prefix / "channels/stable/share/jupyter")},
        check=False,
    )


def test_doctor_tries_what_a_server_would_list(binds, published, tmp_path):
    smoke = (SmokeCell(code="print('smoke')", expect="fire"),)
    published.release("2026.11.1", definition(tmp_path, "good"), definition(tmp_path, "bad", smoke=smoke))
    good = doctor(published, "good", "--json")
    assert good.ok, good.tail
    (row,) = json.loads(good.stdout)["kernels"]
    assert (row["name"], row["ok"]) == ("good", True)
    assert set(row["seconds"]) >= {"start", "output", "stdin", "completion", "inspection", "interrupt", "restart"}
    bad = doctor(published, "bad", "-q")
    assert bad.returncode == 1
    assert "error bad: cell 1 did not print what is expected\n  code: print('smoke')\n  expected: fire" in bad.tail
    assert bad.tail.endswith("error: not every kernel works: 1 problem, shown above")


def test_doctor_wants_kernels_for_names(published):
    done = tools.run([Path(sys.executable).with_name("afpub"), "doctor", "py"], check=False)
    assert done.returncode == 2
    assert "error: names of kernels and --jupyter-path need --kernels" in done.tail


ABORTING = """
import ipykernel.ipkernel as module
from ipykernel.kernelapp import launch_new_instance

class Aborting(module.IPythonKernel):
    def _abort_queues(self, subshell_id=None):
        self._aborting = True
        self.io_loop.call_later(1, self.finish)

    def finish(self):
        self._aborting = False

launch_new_instance(kernel_class=Aborting)
"""


def test_cells_after_one_that_fails_are_run_by_a_kernel_that_is_slow_to_take_cells_again(binds, published, tmp_path):
    (tmp_path / "af/aborting.py").write_text(ABORTING)
    command = (sys.executable, str(tmp_path / "af/aborting.py"), "-f", "{connection_file}")
    published.release("2026.11.1", definition(tmp_path, "py", command=command))
    (result,) = probe(
        [Target(kernel_dir=published.kernel("py"), smoke=(SmokeCell(code="1/0"), SmokeCell(code="6*7")))],
        ProbeOptions(scratch=tmp_path / "scratch"),
    )
    assert [finding.check for finding in result.report.errors] == ["smoke-cell"]
    assert [cell.status for cell in result.cells] == ["error", "ok"]


def test_process_that_a_kernel_leaves_behind_is_told(binds, published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "py"))
    leave = SmokeCell(code="import subprocess; p = subprocess.Popen(['setsid', 'sleep', '86']); p.pid")
    (result,) = probe(
        [Target(kernel_dir=published.kernel("py"), smoke=(leave,))],
        ProbeOptions(scratch=tmp_path / "scratch"),
    )
    os.kill(int(result.cells[0].output), signal.SIGKILL)
    (finding,) = result.report.errors
    assert finding.check == "shutdown"
    assert f"the process {result.cells[0].output.strip()} is left behind: sleep 86" in finding.message


@pytest.mark.parametrize("image", [ImageName("machine"), None], ids=["image", "host"])
def test_kernel_ends_when_its_server_is_killed(binds, published, tmp_path, home, image):
    """The server is a process that starts the kernel and is then killed without a word."""
    published.release("2026.11.1", definition(tmp_path, "py", image=image))
    code = (
        "import sys, time\n"
        "from jupyter_client.manager import KernelManager as K\n"
        "from jupyter_client.kernelspec import KernelSpecManager as S\n"
        f"specs = S(kernel_dirs=[{str(published.kernel('py').parent)!r}])\n"
        "k = K(kernel_name='py', kernel_spec_manager=specs)\n"
        "k.start_kernel(); c = k.client(); c.start_channels(); c.wait_for_ready(timeout=60)\n"
        "print('ready', k.provisioner.pid, flush=True); time.sleep(300)"
    )
    log = tmp_path / "server.log"
    with tools.spawn([sys.executable, "-c", code], env={**os.environ, "HOME": str(home)}, log=log) as server:
        deadline = time.monotonic() + 60
        while "ready" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        kernel = int(log.read_text().split("ready ")[1].split()[0])
        assert left_over(kernel, marker="no such marker", wait_s=0)
        os.kill(server, signal.SIGKILL)
        assert left_over(kernel, marker="no such marker", wait_s=30) == ()


def test_nothing_of_ours_is_in_the_kernels_process_group(binds, published, tmp_path):
    """ipykernel ends the children in its group before itself, and would wait in vain for one that nobody reaps."""
    published.release("2026.11.1", definition(tmp_path, "py"))
    children = "import os, psutil; found = psutil.Process().children(recursive=True)"
    cells = (
        SmokeCell(code=f"{children}; [child.cmdline()[1] for child in found]", expect="libexec/watch"),
        SmokeCell(code="[child.pid for child in found if os.getpgid(child.pid) == os.getpgrp()]", expect=r"^\[\]$"),
    )
    (result,) = probe(
        [Target(kernel_dir=published.kernel("py"), smoke=cells)], ProbeOptions(scratch=tmp_path / "scratch")
    )
    assert result.report.ok, result.report


def test_history_is_kept_in_memory_unless_asked_for(binds, published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "py"), definition(tmp_path, "keeps", history=True))
    probe(
        [Target(kernel_dir=published.kernel(name), smoke=(SmokeCell(code="1"),)) for name in ("py", "keeps")],
        ProbeOptions(scratch=tmp_path / "scratch"),
    )
    found = sorted(path.relative_to(tmp_path / "scratch") for path in (tmp_path / "scratch").rglob("history.sqlite"))
    assert found == [Path("keeps/home/.ipython/profile_default/history.sqlite")]


# ------------------------------------------------------------------ environment


def test_only_what_a_kernel_needs_passes_into_the_image(binds, launch, home):
    seen = variables(
        launch(
            env={
                "PYTHONPATH": "/wrong",
                "LD_LIBRARY_PATH": "/wrong",
                "JUPYTERHUB_API_TOKEN": "secret",
                "XDG_RUNTIME_DIR": "/run/user/1",
                "SLURM_JOB_ID": "17",
                "_CONDOR_SCRATCH_DIR": "/scratch",
                "http_proxy": "http://proxy:3128,a=b",
                "MINE": "1",
                "MY_LIST": "one\nSLURM_FAKE=two",
                "AFPUB_PASS": "MINE MY_*",
            }
        )
    )
    leaked = {"PYTHONPATH", "JUPYTERHUB_API_TOKEN", "XDG_RUNTIME_DIR", "SLURM_FAKE"} & seen.keys()
    assert not leaked
    assert "/wrong" not in seen.get("LD_LIBRARY_PATH", "")
    assert seen["SLURM_JOB_ID"] == "17"
    assert seen["_CONDOR_SCRATCH_DIR"] == "/scratch"
    assert seen["http_proxy"] == "http://proxy:3128,a=b"
    assert seen["MINE"] == "1"
    assert seen["MY_LIST"] == "one\nSLURM_FAKE=two"
    assert seen["HOME"] == str(home)
    assert "PYTHONNOUSERSITE" not in seen
    assert seen["PYTHONUSERBASE"].startswith(f"{home}/.local/share/afpub/")
    assert seen["PYTHONDONTWRITEBYTECODE"] == "1"
    assert seen["AFPUB_KERNEL"] == "shell"
    assert seen["AFPUB_RELEASE"] == "2026.11.1"


@pytest.mark.parametrize("locale", [{"LC_ALL": None, "LANG": None}, {"LC_ALL": "xx_YY.UTF-8"}])
def test_locale_is_utf8_even_where_none_or_an_unknown_one_is_set(binds, launch, locale):
    done = launch("locale charmap", env=locale)
    assert done.stdout == "UTF-8", done.tail


def test_session_stays_on_the_release_that_it_was_started_from(binds, published, launch, tmp_path):
    line = f"ln -sfn ../releases/2026.12.1 {shlex.quote(str(published.prefix))}/channels/stable; env -0"
    seen = variables(launch(line, env={"APPTAINER_BIND": str(published.prefix)}))
    assert (published.prefix / "channels/stable").readlink() == Path("../releases/2026.12.1")
    assert seen["AFPUB_RELEASE_DIR"] == str(published.prefix / "releases/2026.11.1")


def test_kernel_starts_without_a_home_folder(binds, launch, tmp_path):
    done = launch('echo "$HOME"; touch "$HOME/x"', env={"HOME": str(tmp_path / "gone")})
    assert done.ok, done.tail
    assert f"afpub: your home folder ({tmp_path}/gone) cannot be written: this session uses" in done.tail
    first = Path(done.stdout.strip())
    assert first.name.startswith(f"afpub-home@{os.uname().nodename}-")
    assert (first / "x").exists()
    second = Path(launch(env={"HOME": str(tmp_path / "gone")}).stdout.strip())
    assert list(tmp_path.glob("afpub-*")) == [second]  # nothing piles up


@pytest.mark.parametrize("image", [ImageName("machine"), None], ids=["image", "host"])
def test_home_folder_of_a_session_goes_with_its_kernel(binds, published, tmp_path, monkeypatch, image):
    published.release("2026.11.1", definition(tmp_path, "py", image=image))
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with started(published, "py") as (_, client):
        streams = dict(run_cell(client, "%cd -q ~\n!touch mine; ls -d ~/mine").streams)
        assert "cannot be written: this session uses" in streams["stderr"]
        made = Path(streams["stdout"].strip()).parent
        assert list(tmp_path.glob("afpub-home@*")) == [made]
    deadline = time.monotonic() + 30
    while made.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_home_folder_that_is_full_is_told(binds, require_root, published, tmp_path, home):
    published.release("2026.11.1", definition(tmp_path, "shell"))
    mount = 'mount -t tmpfs -o size=8k none "$HOME"; head -c 100000 /dev/zero >"$HOME/x" 2>/dev/null; exec "$@"'
    program = [published.kernel("shell") / "launch", "--run", "printenv", "AFPUB_NOTICE"]
    done = tools.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", *program], env={**os.environ, "HOME": str(home)}, check=False
    )
    assert done.stdout == (
        f"your home folder {home} is full: notebooks cannot be saved until you make room "
        f"(du -sh {home}/* shows what is large)"
    ), done.tail


def test_kernel_starts_with_home_not_set(binds, launch):
    done = launch('echo "$HOME"', env={"HOME": None})
    assert done.ok, done.tail
    assert "afpub: your home folder (not set) cannot be written" in done.tail


def test_tmpdir_and_credentials_outside_home_are_bound(binds, launch, request, tmp_path):
    outside = request.config.rootpath / "build/test-credentials"
    outside.mkdir(parents=True, exist_ok=True)
    (outside / "token").write_text("secret")
    try:
        done = launch(
            'cat "$BEARER_TOKEN_FILE"; test -w "$TMPDIR" && echo " writable"',
            env={"BEARER_TOKEN_FILE": str(outside / "token"), "TMPDIR": str(outside)},
        )
    finally:
        shutil.rmtree(outside)
    assert done.stdout == "secret writable", done.tail


def test_folder_that_the_runtime_cannot_bind_is_told(binds, launch, request):
    folder = request.config.rootpath / "build/test-a,b"
    folder.mkdir(parents=True, exist_ok=True)
    done = launch("echo kernel", env={"BEARER_TOKEN_FILE": str(folder / "token")})
    folder.rmdir()
    assert done.stdout == "kernel"
    assert f"afpub: {folder} is not seen by the kernel: it has ':' or ',' in its name" in done.tail


def test_own_packages_are_seen_by_the_usersite_twin_only(binds, published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "py"), definition(tmp_path, "twin", user_site=True))
    own = f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for name in ("py", "twin"):
        folder = tmp_path / "scratch" / name / "home" / own
        folder.mkdir(parents=True)
        (folder / "myown.py").write_text("")
    # This image's Python is a virtual environment, which never sees ~/.local: what decides is where it would look.
    cell = SmokeCell(code="import site, os; os.path.relpath(site.getuserbase(), os.path.expanduser('~'))")
    plain, twin = probe(
        [Target(kernel_dir=published.kernel(name), smoke=(cell,)) for name in ("py", "twin")],
        ProbeOptions(scratch=tmp_path / "scratch"),
    )
    tree = f"{published.prefix}"[1:].replace("/", "_")
    assert plain.cells[0].output == f"'.local/share/afpub/{tree}/2026.11.1/machine/default'\n"
    assert twin.cells[0].output == "'.local'\n"


# ------------------------------------------------------------------ any program in a kernel's environment


@pytest.fixture
def run_program(published, tmp_path, home):
    """Runs a program in the environment of a kernel, as terminals and batch jobs do."""
    published.release("2026.11.1", definition(tmp_path, "shell", user_setup="~/setups"))

    def run(*words, **values):
        given = {"env": {**os.environ, "HOME": str(home)}, "cwd": tmp_path, "timeout_s": 60, **values}
        redirected = ["sh", "-c", 'exec "$0" "$@" <"$IN"', published.kernel("shell") / "launch", "--run"]
        (tmp_path / "in").write_text("in")
        given["env"]["IN"] = str(tmp_path / "in")
        return tools.run([*redirected, *words], check=False, **given)

    return run


def test_any_program_runs_where_the_kernel_would(binds, published, run_program, home, tmp_path):
    (home / "setups").write_text("export MINE=yes; cat\n")
    work = tmp_path / "work here"
    work.mkdir()
    done = run_program(
        *("sh", "-c", 'cat; printf "%s|" "$PWD" "$MINE" "$AFPUB_RUN" "$@"; exit 7', "sh", "a b", "*", ""),
        cwd=work,
    )
    program = published.prefix / "releases/2026.11.1/bin/afpub-run"
    assert done.stdout == f"in{work}|yes|{program}|a b|*||", done.tail
    assert done.returncode == 7


def test_program_that_is_not_in_the_environment(binds, published, run_program):
    done = run_program("nope")
    assert done.returncode == 127
    assert done.tail == (
        "afpub: the program 'nope' is not in the environment of the kernel 'The shell kernel' "
        f"(image {published.prefix}/images/machine/1)"
    )


def test_signal_ends_the_program(binds, published, run_program, tmp_path):
    log = tmp_path / "log"
    argv = [published.kernel("shell") / "launch", "--run", "sh", "-c", "echo up; exec sleep 88"]
    with tools.spawn(argv, env=os.environ, log=log) as pid:
        deadline = time.monotonic() + 60
        while "up" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)
        assert left_over(pid, marker="no such marker", wait_s=30) == ()


def test_users_packages_are_set_when_all_else_is(binds, published, run_program):
    (published.prefix / "releases/2026.11.1/libexec/packages.sh").write_text(
        'set_user_packages() { export SEEN="$PYTHONNOUSERSITE,$program,$AFPUB_KERNEL"; }\n'
    )
    done = run_program("printenv", "SEEN")
    assert done.stdout == f"1,{sys.executable},shell", done.tail


@pytest.mark.parametrize("shell", [("dash",), ("bash", "--posix"), ("busybox", "sh")])
def test_launcher_runs_in_every_shell_that_is_sh_somewhere(binds, require_tool, published, run_program, shell):
    require_tool(shell[0])
    home = published.prefix.parent
    launch = published.kernel("shell") / "launch"
    env = {**os.environ, "HOME": str(home), "SLURM_JOB_ID": "17", "LEAK": "a SLURM_FAKE=1\nexport SLURM_FALSE=2"}
    done = tools.run([*shell, launch, "--run", "env"], env=env, check=False)
    rows = [row for row in done.stdout.splitlines() if row.startswith(("SLURM", "LEAK", "AFPUB_KERNEL", "HOME"))]
    assert sorted(rows) == ["AFPUB_KERNEL=shell", f"HOME={home}", "SLURM_JOB_ID=17"], done.tail


@pytest.mark.parametrize("words", [(), ("--run",), ("--help",), ("a", "b")])
def test_launcher_that_is_called_wrongly(published, run_program, tmp_path, words):
    launch = published.kernel("shell") / "launch"
    done = tools.run([launch, *words], check=False)
    assert done.returncode == 64
    assert done.tail == f"afpub: usage: {launch} CONNECTION_FILE, or {launch} --run PROGRAM [ARGUMENT...]"


# ------------------------------------------------------------------ set-up of users and experiments


def test_user_setup_is_sourced_with_python_ver(binds, launch, home):
    (home / "notebooks").mkdir()
    (home / "notebooks/.user_setups").write_text('echo "for Python $PYTHON_VER"; export MINE=yes; false\n')
    done = launch('echo "kernel $MINE"', python_ver="2", user_setup="~/notebooks/.user_setups")
    assert done.stdout == "kernel yes"
    assert "for Python 2" in done.tail
    assert f"afpub: {home}/notebooks/.user_setups ended with code 1: the kernel starts all the same" in done.tail


def test_user_setup_that_exits_is_told(binds, launch, home):
    (home / "setups").write_text("exit 4\n")
    done = launch("echo kernel", user_setup="~/setups")
    assert done.returncode == 75
    assert done.tail == f"afpub: {home}/setups ended the session with exit; use return there"


ASETUP = """
asetup() {
    echo "asetup got: $*"
    [ "$1" = Good,1 ] || { echo "no such release"; return 1; }
    export AtlasProject=Good JUPYTER_CONFIG_DIR=/wrong JUPYTER_PATH=/wrong PATH={bin}:$PATH
}
"""


@pytest.fixture
def alrb(tmp_path):
    """A look-alike of ATLASLocalRootBase; its release has a Python without a kernel."""
    folder = tmp_path / "alrb"
    (folder / "user").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin/python3").symlink_to("/usr/bin/python3")
    (folder / "user/atlasLocalSetup.sh").write_text(ASETUP.replace("{bin}", str(folder / "bin")))
    return folder


def test_analysisbase_is_set_up_quietly_and_jupyter_left_as_it_was(binds, launch, alrb, tmp_path):
    seen = launch(
        'p=${PATH#*:}; echo "$AtlasProject,$JUPYTER_CONFIG_DIR,$JUPYTER_PATH,${p%%:*}"; cat "$AFPUB_ASETUP_LOG"',
        analysisbase="Good,1",
        env={"ATLAS_LOCAL_ROOT_BASE": str(alrb)},
    )
    assert seen.stdout.splitlines() == [f"Good,,,{alrb}/bin", "asetup got: Good,1"], seen.tail
    assert f"afpub: asetup Good,1 is done (its output: {tmp_path}/afpub-setup-shell@" in seen.tail


def test_python_of_the_release_gets_the_images_kernel(binds, published, tmp_path, home, alrb):
    """The image's python3 has ipykernel, that of the release has not, and wins."""
    kernel = definition(tmp_path, "py2", command=("python3", *IPYKERNEL[1:]), analysisbase="Good,1", python_ver="3")
    published.release("2026.11.1", kernel)
    cell = SmokeCell(code="import os, sys; print(sys.executable, os.environ.get('JUPYTER_CONFIG_DIR'))")
    (result,) = probe(
        [Target(kernel_dir=published.kernel("py2"), smoke=(cell,))],
        ProbeOptions(
            scratch=tmp_path / "scratch",
            env={
                **os.environ,
                "ATLAS_LOCAL_ROOT_BASE": str(alrb),
                "TMPDIR": str(tmp_path),
                "APPTAINERENV_PREPEND_PATH": f"{sys.prefix}/bin",
            },
        ),
    )
    assert result.report.ok, result.report
    assert result.cells[0].output == f"{alrb}/bin/python3 None\n"


def test_asetup_that_fails_stops_the_kernel_with_its_output(binds, launch, alrb, tmp_path):
    done = launch(
        "echo kernel",
        analysisbase="Good,1",
        env={"ATLAS_LOCAL_ROOT_BASE": str(alrb), "AFPUB_ASETUP": "Bad,2 here"},
    )
    assert done.returncode == 75
    assert done.stdout == ""
    asked, told, sentence, help_line = done.tail.splitlines()
    assert (asked, told) == ("asetup got: Bad,2 here", "no such release")
    assert sentence.startswith(
        "afpub: asetup Bad,2 here failed (code 1): the kernel 'Shell' was not started; "
        f"all that it printed is in {tmp_path}/afpub-setup-shell@"
    )
    assert help_line == f"afpub: try: tail -n 50 {sentence.rpartition(' ')[2]}"


def test_analysisbase_is_left_out_where_it_is_not_there_or_not_wanted_or_done(binds, launch, alrb, home):
    line = 'echo "kernel $AtlasProject"'
    missing = launch(line, analysisbase="Good,1", user_setup="~/setups", env={"ATLAS_LOCAL_ROOT_BASE": "/none"})
    assert missing.stdout == "kernel "
    sentence = "afpub: /none is not on this machine: the kernel starts without Good,1"
    assert sentence in missing.tail.splitlines()
    unwanted = launch(env={"ATLAS_LOCAL_ROOT_BASE": str(alrb), "AFPUB_ASETUP": "none"})
    assert unwanted.tail == "kernel "
    (home / "setups").write_text("export AtlasProject=Mine\n")
    done = launch(env={"ATLAS_LOCAL_ROOT_BASE": str(alrb)})
    assert done.tail == "kernel Mine"


def test_nothing_of_atlas_happens_for_other_kernels(binds, launch, alrb):
    seen = variables(launch(env={"ATLAS_LOCAL_ROOT_BASE": str(alrb), "RUCIO_ACCOUNT": "me"}))
    assert not {"AtlasProject", "ATLAS_LOCAL_ROOT_BASE", "RUCIO_ACCOUNT"} & seen.keys()


# ------------------------------------------------------------------ preflight


def test_missing_runtime(launch, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "uname", "id", "env", "sed"):
        (programs / name).symlink_to(shutil.which(name))
    done = launch(env={"PATH": str(programs)})
    assert done.returncode == 69
    assert done.tail == (
        f"afpub: neither apptainer nor singularity is installed on {os.uname().nodename}, but the kernel "
        "'Shell' runs in an image; ask the facility to install Apptainer"
    )


def test_missing_image(require_tool, published, launch):
    require_tool("apptainer")
    shutil.rmtree(published.prefix / "images")
    done = launch()
    assert done.returncode == 66
    assert "what this machine sees of release 2026.11.1 is incomplete" in done.tail


def test_user_namespaces_that_are_switched_off(require_tool, launch, published, tmp_path):
    require_tool("apptainer")
    launch(env={"AFPUB_SHOW": "1"})
    script = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$1"'
    done = tools.run(
        [
            *("unshare", "--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "sh", "-c", script),
            *(published.kernel("shell") / "launch", published.connection_file(tmp_path)),
        ],
        check=False,
    )
    assert done.returncode == 71, done.tail
    assert done.tail == (
        "afpub: this machine does not allow user namespaces (/proc/sys/user/max_user_namespaces is 0), so "
        "apptainer cannot run the kernel 'Shell'; ask the facility to allow them or to install apptainer "
        "with its set-user-id starter\nafpub: try: unshare --user true"
    )


def test_connection_file_that_is_missing(require_tool, launch, tmp_path):
    require_tool("apptainer")
    done = launch(connection_file=tmp_path / "none.json")
    assert done.returncode == 72
    assert done.tail == f"afpub: the connection file {tmp_path}/none.json cannot be read"


def test_kernel_copied_out_of_its_release(published, launch, tmp_path):
    launch(env={"AFPUB_SHOW": "1"})
    copy = tmp_path / "copies/share/jupyter/kernels/shell"
    shutil.copytree(published.kernel("shell"), copy)
    done = tools.run([copy / "launch", "x"], check=False)
    assert done.returncode == 65
    assert done.tail == (
        f"afpub: {tmp_path}/copies/libexec is missing; a kernel must stay in its release, "
        "point JUPYTER_PATH there instead of copying it"
    )


def test_data_file_of_another_format(published, launch):
    launch(env={"AFPUB_SHOW": "1"})
    conf = published.kernel("shell") / "kernel.conf"
    conf.write_text(conf.read_text().replace("FORMAT=1", "FORMAT=2"))
    done = launch()
    assert done.returncode == 65
    assert done.tail.endswith("kernel.conf is not of format 1: it does not belong to this launcher")


def test_unknown_run_mode(published, launch):
    launch(env={"AFPUB_SHOW": "1"})
    conf = published.kernel("shell") / "kernel.conf"
    conf.write_text(conf.read_text().replace("MODE=image", "MODE=moon"))
    done = launch()
    assert done.returncode == 65
    assert done.tail == "afpub: the run mode 'moon' is not known to this launcher"


def test_program_that_is_not_in_the_image(binds, published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "py", command=("nope", "{connection_file}")))
    done = tools.run([published.kernel("py") / "launch", published.connection_file(tmp_path)], check=False)
    assert done.returncode == 76
    assert done.tail == (
        "afpub: the program 'nope' of the kernel 'The py kernel' is not in the image "
        f"{published.prefix}/images/machine/1"
    )


def test_exit_code_of_the_kernel_is_handed_on(binds, launch):
    assert launch("exit 7").returncode == 7


# ------------------------------------------------------------------ what the runtime is asked for


def test_driver_is_bound_only_where_there_is_a_device(require_tool, launch, published):
    require_tool("apptainer")
    present = Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists()
    shown = launch(env={"AFPUB_SHOW": "1"}, gpu="auto")
    assert ("--nv" in shown.stdout.splitlines()) == present
    if os.geteuid() != 0:
        pytest.skip("only root can play a machine with another /dev")
    script = 'mount -t tmpfs none /dev && touch /dev/nvidiactl && : >/dev/null && AFPUB_SHOW=1 exec "$0" "$1"'
    argv = ["unshare", "--mount", "sh", "-c", script, published.kernel("shell") / "launch"]
    for gpu, expected in (("auto", True), ("none", False)):
        conf = published.kernel("shell") / "kernel.conf"
        conf.write_text(conf.read_text().replace("GPU=auto", f"GPU={gpu}"))
        done = tools.run([*argv, published.connection_file(published.prefix)], check=False)
        assert ("--nv" in done.stdout.splitlines()) == expected, done.tail


def test_site_binds_are_made_where_they_exist(require_tool, launch, published, tmp_path):
    require_tool("apptainer")
    launch(env={"AFPUB_SHOW": "1"})
    (tmp_path / "data").mkdir()
    with (published.kernel("shell") / "kernel.conf").open("a") as conf:
        conf.write(f"BIND={tmp_path}/data:/data:ro\nBIND=/no/such/folder\n")
    words = launch(env={"AFPUB_SHOW": "1"}).stdout.splitlines()
    binds = words[words.index("--bind") + 1].split(",")
    assert f"{tmp_path}/data:/data:ro" in binds
    assert "/no/such/folder" not in binds


@pytest.mark.parametrize("name", ["launch", "start", "watch", "common.sh"])
def test_shellcheck_finds_nothing(require_tool, request, name):
    folder = request.config.rootpath / LAUNCHER
    done = tools.run(
        [
            Path(sys.prefix) / "bin/shellcheck"
            if (Path(sys.prefix) / "bin/shellcheck").exists()
            else require_tool("shellcheck"),
            "-x",
            "-P",
            folder,
            folder / name,
        ],
        check=False,
    )
    assert done.ok, done.stdout


@pytest.mark.parametrize("name", ["launch", "start", "common.sh"])
def test_scripts_are_in_the_grammar_of_a_plain_sh(require_tool, request, name):
    assert tools.run([require_tool("dash"), "-n", request.config.rootpath / LAUNCHER / name]).ok


def test_kernel_json_is_what_a_server_lists(published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "py", gpu="auto"))
    text = json.loads((published.kernel("py") / "kernel.json").read_text())
    assert text["argv"] == ["{resource_dir}/launch", "{connection_file}"]
