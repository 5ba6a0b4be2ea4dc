"""Where a kernel runs: in an image, in the image that the server runs in, nested, on the host, or no more."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from compat.machine_image import IPYKERNEL, PREFIXES, definition, publish
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from publisher import tools
from publisher.kernels.probe import ProbeOptions, probe
from publisher.kernels.processes import left_over
from publisher.kernels.targets import Target
from publisher.project.kernel import SetupStep, SmokeCell

_NOBODY = 65534
_SHOW = ("sh", "-c", 'echo "$AFPUB_WHERE|$APPTAINER_CONTAINER|$LEAK|$PYTHONPATH|$PATH"', "{connection_file}")


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    monkeypatch.setenv("AFPUB_ON_ERROR", "exit")
    monkeypatch.setenv("APPTAINER_BINDPATH", ",".join(("/usr", *PREFIXES)))


@pytest.fixture
def place(require_tool):
    """A folder that an ordinary user may use too, with a release and two more images: ``same`` and ``other``."""
    require_tool("apptainer")
    with tempfile.TemporaryDirectory(prefix="afpub-test-") as name:
        Path(name).chmod(0o755)
        yield _lay_out(Path(name))


def _lay_out(folder):
    published = publish(folder / "af")
    published.release("2026.11.1", definition(folder, "shell", command=_SHOW))
    image = published.prefix / "images/machine/1"
    for name in ("same", "other"):
        shutil.copytree(image, folder / name, symlinks=True)
    (folder / "other/etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (folder / "other/etc/group").write_text("root:x:0:\n")
    for root in (image, folder / "same"):
        (root / ".singularity.d/env").mkdir(parents=True)
        labels = {"maintainer": "me", "org.afpub.inputs-digest": "sha256:0123abcd"}
        (root / ".singularity.d/labels.json").write_text(json.dumps(labels, indent=1))
        (root / ".singularity.d/env/90-environment.sh").write_text("export PATH=/of/the/image:$PATH\n")
        (root / ".singularity.d/env/99-base.sh").write_text(":\n")  # after it the runtime's own variables are set
    if os.geteuid() == 0:
        tools.run(["chown", "-R", f"{_NOBODY}:{_NOBODY}", folder])
    return published


def inside(published, image, *words, binds=()):
    """Runs the launcher as an ordinary user from inside an image, as a server there would: as a child."""
    user = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    bind = [word for path in binds for word in ("--bind", path)]
    launch = published.kernel("shell") / "launch"
    file = published.connection_file(published.prefix.parent)
    return tools.run(
        [
            *(["setpriv", *user] if os.geteuid() == 0 else []),
            *("apptainer", "--silent", "exec", *bind, *words, published.prefix.parent / image),
            *("/bin/sh", "-c", '"$@"; exit $?', "sh", launch, file),
        ],
        env={**os.environ, "LEAK": "1", "PYTHONPATH": "/wrong", "HOME": str(published.prefix.parent)},
        check=False,
        timeout_s=60,
    )


@pytest.mark.parametrize("image", ["af/images/machine/1", "same"])
def test_kernel_runs_in_place_where_the_server_is_in_the_same_image(place, image):
    """By the path of the image, or by the digest in the labels of a copy that is elsewhere."""
    done = inside(place, image)
    where, container, leak, path, search = done.stdout.split("|")
    assert (where, leak, path) == ("same-image", "", ""), done.tail
    assert container == str(place.prefix.parent / image)
    assert search.split(":")[1:3] == ["/of/the/image", "/usr/local/bin"]  # behind the user's own programs


def test_kernel_of_another_image_is_started_nested(place):
    done = inside(place, "other", binds=("/etc/apptainer", "/var/lib/apptainer"))
    *facts, search = done.stdout.split("|")
    assert facts == ["image", f"{place.prefix}/images/machine/1", "", ""], done.tail
    assert search.split(":")[1] == "/of/the/image"


@pytest.mark.parametrize(("has", "starts"), [(("etc", "var"), ["start"]), (("etc",), ["true", "start"])])
def test_nesting_is_tried_by_a_start_only_where_nothing_cheaper_tells(place, has, starts):
    """The runtime is one in a place of its own, which notes what it is asked to run."""
    folder = place.prefix.parent / "opt"
    (folder / "bin").mkdir(parents=True)
    for name, real in (("etc", "/etc/apptainer"), ("var", "/var/lib/apptainer")):
        (folder / name).mkdir()
        if name in has:
            (folder / name / "apptainer").symlink_to(real)
    log = folder / "log"
    log.touch()
    log.chmod(0o666)
    (folder / "bin/apptainer").write_text(f'#!/bin/sh\necho "$*" >>{log}\nexec /usr/bin/apptainer "$@"\n')
    (folder / "bin/apptainer").chmod(0o755)
    search = ("--env", f"PREPEND_PATH={folder}/bin")
    done = inside(place, "other", *search, binds=("/etc/apptainer", "/var/lib/apptainer"))
    assert done.stdout.startswith("image|"), done.tail
    asked = [line.split() for line in log.read_text().splitlines()]
    assert ["true" if words[-1] == "true" else "start" for words in asked] == starts


@pytest.mark.parametrize("binds", [(), ("/etc/apptainer",)])
def test_container_that_allows_no_other_is_told_with_what_to_choose(place, binds):
    done = inside(place, "other", binds=binds)
    assert done.returncode == 70
    assert done.tail.startswith(
        f"afpub: the Jupyter server runs in the container {place.prefix.parent}/other, "
        "and no other can be started there ("
    )
    assert done.tail.endswith(
        f"): the kernel 'The shell kernel' needs the image {place.prefix}/images/machine/1, so start the server in "
        "that image, or outside a container"
    )


def test_container_without_a_runtime_is_told(place):
    done = inside(place, "other", "--env", "PATH=/nowhere")
    assert done.returncode == 70
    assert f"runs in the container {place.prefix.parent}/other, which has no apptainer: the kernel" in done.tail


def test_singularity_is_taken_where_there_is_no_apptainer(place, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "rm", "unshare", "true"):
        (programs / name).symlink_to(shutil.which(name))
    (programs / "singularity").write_text(f'#!/bin/sh\nPATH={os.environ["PATH"]} exec apptainer "$@"\n')
    (programs / "singularity").chmod(0o755)
    launch = place.kernel("shell") / "launch"
    env = {**os.environ, "PATH": str(programs), "HOME": str(tmp_path), "SLURM_JOB_ID": "17"}
    done = tools.run([launch, "--run", "printenv", "SLURM_JOB_ID", "AFPUB_WHERE"], env=env, check=False)
    assert done.stdout.split() == ["17", "image"], done.tail


def test_retired_kernel_says_what_to_take(place, tmp_path):
    place.release("2026.12.1", definition(tmp_path, "old", image=None, retired="take 'Python 3' instead"))
    done = tools.run([place.kernel("old") / "launch", place.connection_file(tmp_path)], check=False)
    assert done.returncode == 68
    sentence = "afpub: the kernel 'The old kernel' of release 2026.12.1 is no more: take 'Python 3' instead"
    assert done.tail == sentence
    with (place.kernel("old") / "kernel.conf").open("a") as conf:
        conf.write("SUCCESSOR=release 2027.01.1\n")  # of a release that is retired as a whole
    done = tools.run([place.kernel("old") / "launch", place.connection_file(tmp_path)], check=False)
    assert done.tail == f"{sentence}; its successor is release 2027.01.1"


# ------------------------------------------------------------------ on the host, after set-up steps


@pytest.fixture
def on_host(place, tmp_path):
    """Runs a shell line in the environment of a kernel of the host with set-up steps; without one, the kernel."""

    def run(line, *steps, **values):
        made = [SetupStep(kind=kind, words=words) for kind, *words in steps]
        kernel = definition(tmp_path, "hosty", image=None, setup=tuple(made), **values)
        shutil.rmtree(place.prefix / "releases/2026.12.1", ignore_errors=True)
        place.release("2026.12.1", kernel)
        env = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LEAK": "1", "MODULEPATH": "/modules"}
        words = ["--run", "sh", "-c", line] if line else [place.connection_file(tmp_path)]
        return tools.run([place.kernel("hosty") / "launch", *words], env=env, check=False)

    return run


def test_kernel_of_the_host_lives_there_with_a_clean_environment(place, tmp_path):
    place.release("2026.12.1", definition(tmp_path, "hosty", image=None))
    cell = SmokeCell(code="import os; print(os.environ['AFPUB_WHERE'], os.environ.get('LEAK'))")
    (result,) = probe(
        [Target(kernel_dir=place.kernel("hosty"), smoke=(cell,))],
        ProbeOptions(scratch=tmp_path / "scratch", env={**os.environ, "LEAK": "1"}),
    )
    assert result.report.ok, result.report
    assert result.cells[0].output == "host None\n"


@pytest.mark.parametrize(("image", "code"), [(None, 0), ("machine", 72)])
def test_colon_in_the_folder_of_the_connection_file_matters_to_a_runtime_only(place, tmp_path, image, code):
    kernel = definition(tmp_path, "odd", image=image, command=("echo", "{connection_file}"))
    place.release("2026.12.1", kernel)
    (tmp_path / "a:b").mkdir()
    file = place.connection_file(tmp_path / "a:b")
    done = tools.run([place.kernel("odd") / "launch", file], env={**os.environ, "HOME": str(tmp_path)}, check=False)
    assert (done.returncode, done.stdout) == (code, "" if code else str(file)), done.tail
    sentence = f"afpub: the folder {tmp_path}/a:b has ':' or ',' in its name, which apptainer cannot bind; set "
    assert done.tail.endswith(f"{sentence}JUPYTER_RUNTIME_DIR to another folder") == bool(code)


def test_set_up_file_of_a_view_with_arguments(on_host, tmp_path):
    (tmp_path / "setup.sh").write_text('echo noise; export VIEW="$# $1"; false\n')
    done = on_host('echo "$VIEW,$LEAK"', ("source", str(tmp_path / "setup.sh"), "--quiet"))
    assert done.stdout == "1 --quiet,"
    assert done.tail.splitlines()[0] == (
        f"afpub: {tmp_path}/setup.sh ended with code 1: the kernel starts all the same"
    )


def test_virtual_environment_and_conda_environment(on_host, tmp_path):
    venv, conda = tmp_path / "venv", tmp_path / "conda"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/activate").write_text(f'export VIRTUAL_ENV={venv} PATH="{venv}/bin:$PATH"\n')
    (conda / "bin").mkdir(parents=True)
    (conda / "etc/conda/activate.d").mkdir(parents=True)
    (conda / "etc/conda/activate.d/a.sh").write_text("export ACTIVATED=yes\n")
    line = 'echo "$VIRTUAL_ENV,$CONDA_PREFIX,$ACTIVATED,$PATH"'
    done = on_host(line, ("venv", str(venv)), ("conda", str(conda)), command=("sh", "{connection_file}"))
    *facts, search = done.stdout.split(",")
    assert facts == [f"{venv}", f"{conda}", "yes"], done.tail
    assert search.split(":")[1:4] == [f"{conda}/bin", f"{venv}/bin", "/usr/local/bin"]  # behind the user's own programs


def test_environment_modules(on_host, tmp_path):
    """A stand-in of the ``module`` function, brought by a set-up file as sites do it."""
    (tmp_path / "init.sh").write_text('module() { [ "$1" = load ] && shift && export LOADED="$* $MODULEPATH"; }\n')
    done = on_host('echo "$LOADED"', ("source", f"{tmp_path}/init.sh"), ("module", "root/6.30", "gcc/13"))
    assert done.stdout == "root/6.30 gcc/13 /modules", done.tail


@pytest.mark.parametrize(
    ("step", "printed"),
    [
        (("source", "/no/setup.sh"), "/no/setup.sh is not there"),
        (("conda", "/no/env"), "/no/env is no environment of conda"),
        (("module", "root"), "module: command not found"),
    ],
)
def test_step_that_fails_stops_the_kernel_with_its_output(on_host, tmp_path, step, printed):
    done = on_host("echo started", step)
    assert done.returncode == 75
    assert done.stdout == ""
    assert printed in done.tail
    what = " ".join(step)
    assert f"afpub: {what} failed (code " in done.tail
    assert "the kernel 'The hosty kernel' was not started; all that it printed is in " in done.tail


@pytest.fixture
def logs(tmp_path):
    """The logs of set-up steps that are there."""

    def find():
        return sorted(tmp_path.glob("afpub-*"))

    return find


def test_log_of_a_set_up_that_printed_nothing_is_removed(on_host, tmp_path, logs, foreign):
    (tmp_path / "quiet.sh").touch()
    (tmp_path / "exits.sh").write_text("exit 3\n")
    done = on_host("echo ${AFPUB_SETUP_LOG:-none}", ("source", f"{tmp_path}/quiet.sh"))
    assert (done.stdout, logs()) == ("none", []), done.tail
    done = on_host("true", ("source", f"{tmp_path}/exits.sh"))
    assert done.tail == (
        f"afpub: {tmp_path}/exits.sh failed (code exit): the kernel 'The hosty kernel' was not started; "
        "it printed nothing"
    )
    assert logs() == []
    assert on_host("", foreign, command=("python3", *IPYKERNEL[1:])).returncode == 76
    assert [log for log in logs() if not log.stat().st_size] == []


def test_log_of_a_session_that_has_ended_makes_place_for_the_next(on_host, tmp_path, logs):
    (tmp_path / "loud.sh").write_text("echo loud; exit 3\n")
    step = ("source", f"{tmp_path}/loud.sh")
    first = on_host("true", step).tail
    (log,) = logs()
    assert f"all that it printed is in {log}\nafpub: try: tail -n 50 {log}" in first
    assert log.read_text() == "loud\n"
    assert log.stat().st_mode & 0o777 == 0o600
    common, _, process = log.name.removeprefix("afpub-").rpartition("-")
    kept = [  # of a session that runs, of another kernel, of another process namespace
        tmp_path / f"afpub-{common}-{os.getpid()}.ABCDEF",
        tmp_path / f"afpub-{common}-{process}".replace("hosty", "hosty-2"),
        tmp_path / f"afpub-{common}7-{process}",
    ]
    for path in kept:
        path.write_text("kept")
    on_host("true", step)
    assert log not in logs()
    assert set(kept) < set(logs())
    assert len(logs()) == len(kept) + 1


def test_log_that_cannot_be_written_is_told(place, on_host, tmp_path):
    on_host("true", ("source", f"{tmp_path}/quiet.sh"))
    env = {**os.environ, "HOME": str(tmp_path), "TMPDIR": "/proc"}
    done = tools.run([place.kernel("hosty") / "launch", "--run", "true"], env=env, check=False)
    assert done.returncode == 75
    assert done.tail.endswith(
        "afpub: /proc cannot be written, which the kernel 'The hosty kernel' needs for the log of its set-up; "
        "make room there, or set TMPDIR to another folder"
    )


# ------------------------------------------------------------------ packages for the Python of a release


@pytest.fixture
def foreign(tmp_path):
    """A set-up file that brings a Python without ipykernel."""
    (tmp_path / "release/bin").mkdir(parents=True)
    (tmp_path / "release/bin/python3").symlink_to("/usr/bin/python3")
    (tmp_path / "release/setup.sh").write_text(f"export PATH={tmp_path}/release/bin:$PATH\n")
    return ("source", f"{tmp_path}/release/setup.sh")


@pytest.mark.parametrize("named", ["machine", None])
def test_python_of_a_release_gets_the_published_overlay(place, on_host, tmp_path, foreign, named):
    version = ".".join(str(part) for part in sys.version_info[:2])
    overlay = place.prefix / f"images/{named or 'kernel-packages'}/1/opt/afpub/overlay" / version
    (overlay / "overlaid").mkdir(parents=True)
    (overlay / "overlaid/__main__.py").write_text("import sys; print(sys.path[0], sys.path[-1], sys.argv[1:])\n")
    command = ("python3", "-m", "overlaid", "{connection_file}")
    done = on_host("", foreign, packages=named, command=command)
    *path, words = done.stdout.split(" ")
    assert (path, words) == (["", f"{overlay}"], f"['{tmp_path}/kernel-1.json']"), done.tail
    outside = on_host('python3 -c "import overlaid"; echo "$PYTHONPATH"', foreign, packages=named, command=command)
    assert (outside.stdout, "No module named 'overlaid'" in outside.tail) == ("", True)


def test_python_of_a_release_for_which_there_is_no_ipykernel(on_host, tmp_path, foreign):
    done = on_host("", foreign, command=("python3", *IPYKERNEL[1:]))
    assert done.returncode == 76
    assert done.tail.startswith(f"afpub: there is no ipykernel for {tmp_path}/release/bin/python3 (Python 3.")
    assert done.tail.endswith(
        "and the release 2026.12.1 brings none; "
        "choose a release of another Python, or ask for this one in the image kernel-packages"
    )
    assert on_host("echo a terminal", foreign, command=("python3", *IPYKERNEL[1:])).stdout == "a terminal"


def test_python_of_a_release_that_does_not_run_here(on_host, tmp_path, foreign):
    """As a Python that is built for a newer C library than that of the image."""
    python = tmp_path / "release/bin/python3"
    python.unlink()
    python.write_text("#!/bin/sh\necho 'version `GLIBC_9.9 not found' >&2\nexit 1\n")
    python.chmod(0o755)
    with (tmp_path / "release/setup.sh").open("a") as file:
        file.write("export AtlasProject=AnalysisBase AtlasVersion=21.2.111\n")
    done = on_host("", foreign, command=("python3", *IPYKERNEL[1:]))
    assert done.returncode == 75
    assert done.tail.startswith(
        f"afpub: {python} does not start here (version `GLIBC_9.9 not found), "
        "and AnalysisBase,21.2.111 is made for CentOS 7, and this is "
    )


# ------------------------------------------------------------------ an image file


def test_killed_kernel_of_an_image_file_leaves_no_mount_behind(place, require_tool, require_root):
    """As an ordinary user, for whom the runtime mounts image files by a process of their own."""
    folder = place.prefix.parent
    if not Path("/dev/fuse").exists() or not Path("/dev/fuse").stat().st_mode & 0o002:
        pytest.skip("ordinary users may not use /dev/fuse here")
    require_tool("squashfuse_ll")
    image = place.prefix / "images/machine/1"
    tools.run(["apptainer", "--silent", "build", f"{image}.sif", image])
    shutil.rmtree(image)
    place.release("2026.12.1", definition(folder, "py"))
    file, _ = write_connection_file(str(folder / "connection.json"))
    os.chown(file, _NOBODY, _NOBODY)
    user = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    token = uuid.uuid4().hex
    env = {**os.environ, "HOME": str(folder), "AFPUB_TEST": token, "JPY_PARENT_PID": str(os.getpid())}
    with tools.spawn([*user, place.kernel("py") / "launch", file], env=env, log=folder / "log") as pid:
        client = BlockingKernelClient(connection_file=file)
        client.load_connection_file()
        client.start_channels(hb=False)
        client.wait_for_ready(timeout=60)
        running = left_over(pid, marker=f"AFPUB_TEST={token}", wait_s=0)
        assert [process for process in running if "squashfuse" in process.command], running
        os.killpg(pid, signal.SIGKILL)
        client.stop_channels()
    assert left_over(pid, marker=f"AFPUB_TEST={token}", wait_s=20) == ()
