"""The user's own packages, and the same environment in notebooks, terminals and batch jobs; with the real images."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from compat.lab import open_server, type_into_terminal
from compat.real_images import RELEASES, open_facility, wheel
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from wanted import wanted

from publisher import tools
from publisher.kernels.probe import ProbeOptions, Target, probe
from publisher.names import ChannelName, Fqrn, RepoPath
from publisher.project.kernel import SmokeCell
from publisher.release.retire import retired_conf
from publisher.sites.shell import shell_site

pytestmark = [pytest.mark.images, pytest.mark.filterwarnings("ignore:Passing unrecognized arguments")]
OLD, NEW = RELEASES


@pytest.fixture(scope="module")
def site(tmp_path_factory, pytestconfig):
    """The tree; each test gets a home folder of its own."""
    wanted("apptainer")
    return open_facility(pytestconfig.rootpath, tmp_path_factory.mktemp("site"), "pyroot2", "pyroot3", "rootcpp")


@pytest.fixture
def facility(site, tmp_path):
    home = tmp_path / "home of the user"
    home.mkdir()
    return type(site)(prefix=site.prefix, home=home)


@pytest.fixture
def mini(tmp_path):
    return wheel(tmp_path, "mini", command="say-mini")


def install(facility, kernel, *wheels, release=NEW, **more):
    facility.out(release, kernel, "--", "sh", "-c", '"$AFPUB_PYTHON" -m pip install "$@"', "sh", *wheels, **more)


@contextlib.contextmanager
def started(facility, kernel_dir, encryption="disabled", **more):
    """A kernel as a server starts it, and its client."""
    manager = KernelManager(
        kernel_name=kernel_dir.name,
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernel_dir.parent)]),
        transport_encryption=encryption,
    )
    manager.connection_file = str(facility.home / "connection.json")
    manager.start_kernel(env=facility.environment(**more), cwd=str(facility.home))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()


def shown(client, code):
    """What a cell prints."""
    texts = []
    client.execute_interactive(
        code, timeout=120, output_hook=lambda message: texts.append(message["content"].get("text", ""))
    )
    return "".join(texts)


@pytest.mark.parametrize("kernel", ["pyroot3", "rootcpp"])
def test_kernels_that_claim_to_encrypt_do(facility, kernel):
    with started(facility, facility.kernel(kernel), encryption="required") as client:
        assert client.curve_publickey
        code = "print(6 * 7)" if kernel == "pyroot3" else "std::cout << 6 * 7 << std::endl;"
        assert "42" in shown(client, code)


# ------------------------------------------------------------------ installing


@pytest.mark.parametrize(("kernel", "python"), [("pyroot3", "python3.11"), ("pyroot2", "python2.7")])
def test_a_package_is_seen_at_once_and_by_terminal_and_batch_and_nobody_else(facility, mini, kernel, python):
    magic = f"get_ipython().run_line_magic('pip', 'install {mini}')" if kernel == "pyroot3" else ""
    by_hand = f"import subprocess, sys; subprocess.check_call([sys.executable, '-m', 'pip', 'install', '{mini}'])"
    with started(facility, facility.kernel(kernel)) as client:
        shown(client, magic or by_hand)
        place = shown(client, "import mini; print(mini.__file__)").strip()
    image = {"pyroot3": "root", "pyroot2": "python27"}[kernel]
    tree = str(facility.prefix)[1:].replace("/", "_")
    own = f"{facility.home}/.local/share/afpub/{tree}/{NEW}/{image}/default/lib/{python}/site-packages"
    assert place.rpartition("/")[0] == own
    assert facility.out("stable", kernel, "--", "say-mini") == "mini 1.0"
    for words in ((OLD, kernel), ("--image", image, OLD), (NEW, "pyroot2" if kernel == "pyroot3" else "pyroot3")):
        assert facility.run(*words, "--", "say-mini").returncode == 127


def test_packages_in_the_home_folder_are_still_hidden(facility):
    own = facility.home / ".local/lib/python3.11/site-packages"
    own.mkdir(parents=True)
    (own / "leaked.py").write_text("")
    assert not facility.run("pyroot3", "--", "python3", "-c", "import leaked").ok


def test_kernels_of_one_image_share_packages_and_the_users_version_wins(facility, tmp_path):
    install(facility, "pyroot3", wheel(tmp_path, "uproot", version="99.0"))
    assert facility.out("rootcpp", "--", "python3", "-c", "import uproot; print(uproot.version)") == "99.0"
    assert facility.out("pyroot3", "--", "afpub-env", "list").splitlines()[-1].split() == ["uproot", "99.0"]


def test_a_kernel_starts_without_packages_that_would_stop_it(facility, tmp_path):
    install(facility, "pyroot3", wheel(tmp_path, "zmq", code="raise ImportError('not for this Python')\n"))
    kernel = facility.kernel("pyroot3")
    options = ProbeOptions(scratch=tmp_path / "scratch", env=facility.environment())
    (tmp_path / "scratch/pyroot3").mkdir(parents=True)
    (tmp_path / "scratch/pyroot3/home").symlink_to(facility.home)
    cell = SmokeCell(
        code="!afpub-env path", expect="(?s)break the kernel.*/root/default", allow_stderr="break the kernel"
    )
    (result,) = probe([Target(kernel_dir=kernel, smoke=(cell,))], options)
    assert result.report.ok, result.report
    place = facility.out("pyroot3", "--", "afpub-env", "path").replace(
        f"{facility.home}", f"{options.scratch}/pyroot3/home"
    )
    told = (
        f"afpub: your own packages in {place} break the kernel (ImportError: not for this Python): it started without "
        "them. 'afpub-env remove NAME' takes one away, 'afpub-env clear' all of them; then restart the kernel"
    )
    assert told in result.stderr
    assert "Successfully uninstalled zmq-1.0" in facility.out("pyroot3", "--", "afpub-env", "remove", "zmq")
    (result,) = probe([Target(kernel_dir=kernel, smoke=(SmokeCell(code="!afpub-env list"),))], options)
    assert "break the kernel" not in result.stderr


def test_a_session_without_packages_of_ones_own(facility, mini):
    install(facility, "pyroot3", mini)
    assert facility.run("pyroot3", "--", "say-mini", AFPUB_PACKAGES="none").returncode == 127
    done = facility.run("pyroot3", "--", "afpub-env", "list", AFPUB_PACKAGES="none")
    assert done.tail == "afpub-env: this session was started without your own packages (AFPUB_PACKAGES=none)"


def test_packages_can_be_kept_outside_the_home_folder(facility, mini, request):
    with outside(request, "test-own-packages") as folder:
        install(facility, "pyroot3", mini, AFPUB_PACKAGES=str(folder))
        assert facility.out("pyroot3", "--", "say-mini", AFPUB_PACKAGES=str(folder)) == "mini 1.0"
    assert facility.run("pyroot3", "--", "say-mini").returncode == 127


@contextlib.contextmanager
def outside(request, name):
    """A folder that the runtime does not bind by itself."""
    folder = request.config.rootpath / "build" / name
    tools.run(["rm", "-rf", folder])
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        tools.run(["rm", "-rf", folder])


def test_no_place_for_packages_is_a_sentence_and_no_failure(facility, tmp_path):
    file = tmp_path / "file"
    file.touch()
    done = facility.run("pyroot3", "--", "echo", "runs", AFPUB_PACKAGES=str(file))
    assert done.stdout == "runs"
    assert (
        "afpub: there is no place for packages of your own, pip cannot install any: "
        f"{file}/{str(facility.prefix)[1:].replace('/', '_')}/{NEW}/root/default cannot be made (Not a directory); "
        "free space there, or set AFPUB_PACKAGES to another folder" in done.tail
    )


@pytest.fixture
def small_disk(tmp_path, require_root):
    folder = tmp_path / "small"
    folder.mkdir()
    tools.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder])
    yield folder
    tools.run(["umount", "--lazy", folder])


@pytest.mark.parametrize("kernel", ["rootcpp", "pyroot3", "pyroot2"])
def test_every_kernel_starts_with_a_full_home_folder_and_its_first_cell_says_so(facility, small_disk, kernel):
    done = tools.run(["dd", "if=/dev/zero", f"of={small_disk}/notebook", "bs=4k"], check=False)
    assert "No space left on device" in done.tail
    with started(facility, facility.kernel(kernel), HOME=f"{small_disk}") as client:
        assert shown(client, "1;").startswith(
            f"your home folder {small_disk} is full: notebooks cannot be saved until "
        )
        assert shown(client, "1;") == ""


def test_a_full_disk_is_told_in_a_sentence(facility, small_disk, tmp_path):
    install(facility, "pyroot3", wheel(tmp_path, "large", code="#" * 100_000), release=OLD)
    text = facility.out(OLD, "pyroot3", "--", "afpub-env", "export")
    own = {"AFPUB_PACKAGES": str(small_disk)}
    place = facility.out("pyroot3", "--", "afpub-env", "path", **own)
    copied = small_disk / place.removeprefix(f"{small_disk}/").replace(NEW, OLD)
    copied.parent.mkdir(parents=True)
    copied.symlink_to(facility.out(OLD, "pyroot3", "--", "afpub-env", "path"))
    done = facility.run("pyroot3", "--", "afpub-env", "copy", "--from", OLD, **own)
    assert text.startswith("large @ file:///")
    assert done.returncode == 1
    assert done.tail.splitlines()[-1] == (
        f"afpub-env: {place} cannot be written: the disk is full, your quota is used up, or it is read-only. "
        "afpub-env list --all shows what can go; AFPUB_PACKAGES=FOLDER keeps packages elsewhere"
    )


# ------------------------------------------------------------------ afpub-env


def env(facility, *words, kernel="pyroot3", release=NEW):
    return facility.run(release, kernel, "--", "afpub-env", *words)


@pytest.mark.parametrize("kernel", ["pyroot3", "pyroot2"])
def test_packages_go_to_the_next_release_and_are_cleared(facility, mini, kernel):
    install(facility, kernel, mini, release=OLD)
    told = env(facility, "list", kernel=kernel)
    hint = f"you have packages of your own for release {OLD}, and none yet for {NEW}: 'afpub-env copy --from {OLD}'"
    assert hint in told.tail
    assert env(facility, "copy", "--from", OLD, kernel=kernel).ok
    assert facility.out(kernel, "--", "say-mini") == "mini 1.0"
    assert env(facility, "export", kernel=kernel).stdout == f"mini @ file://{mini}"
    assert env(facility, "export", facility.home / "wanted.txt", kernel=kernel).ok
    assert (facility.home / "wanted.txt").read_text() == f"mini @ file://{mini}\n"
    every = env(facility, "list", "--all", kernel=kernel).stdout.splitlines()
    assert [row.split()[:3] for row in every if " 1 packages" in row] == [
        [f"{release}/{'root' if kernel == 'pyroot3' else 'python27'}/default", "1", "packages,"] for release in RELEASES
    ]
    assert env(facility, "clear", kernel=kernel).ok
    assert facility.run(kernel, "--", "say-mini").returncode == 127
    assert facility.out(OLD, kernel, "--", "say-mini") == "mini 1.0"
    (kept,) = facility.home.glob(f".local/share/afpub/*/{NEW}/*/default-*.txt")
    assert kept.read_text() == f"mini @ file://{mini}\n"
    assert env(facility, "clear", "--release", OLD, kernel=kernel).ok
    assert facility.run(OLD, kernel, "--", "say-mini").returncode == 127


def test_what_cannot_be_installed_again_is_told_and_the_list_kept(facility, mini):
    install(facility, "pyroot3", mini, release=OLD)
    mini.unlink()
    done = env(facility, "copy", "--from", OLD)
    wanted = f"{env(facility, 'path').stdout}/copied-from-{OLD}.txt"
    assert done.returncode == 1
    assert done.tail.splitlines()[-1] == (
        "afpub-env: pip could not install all of it (see above); "
        f"the list is in {wanted}: mend it, then pip install -r '{wanted}'"
    )
    assert Path(wanted).read_text() == f"mini @ file://{mini}\n"
    assert facility.out(OLD, "pyroot3", "--", "say-mini") == "mini 1.0"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("lsit",), 64, "there is no command 'lsit', see afpub-env --help"),
        (("copy",), 64, "copy needs --from RELEASE, see afpub-env --help"),
        (
            ("copy", "--from", "1.0"),
            1,
            (
                "you have no packages for release 1.0 in the image root (environment default); "
                "afpub-env list --all shows what there is"
            ),
        ),
        (("remove",), 64, "remove needs the name of a package, see afpub-env --help"),
        (("clear", "--release", "../.."), 64, "--release needs a release, see afpub-env --help"),
        (("--env", "../x", "path"), 64, "--env needs a name, see afpub-env --help"),
        (("kernel", "mine", "yours"), 64, "kernel needs one NAME, see afpub-env --help"),
        (("kernel", "mine", "--from"), 64, "--from needs a release, see afpub-env --help"),
        (("kernel", "mine", "--display-name"), 64, "--display-name needs a text, see afpub-env --help"),
        (("kernel", "mine", "--other"), 64, "kernel does not know --other, see afpub-env --help"),
        (("kernel", "python3"), 1, "the name 'python3' is taken"),
        (("kernel", "rootcpp"), 1, "'rootcpp' is a kernel of the release, which would hide yours; choose another name"),
    ],
)
def test_wrong_use_is_a_sentence(facility, words, code, told):
    done = env(facility, *words)
    assert (done.returncode, done.tail) == (code, f"afpub-env: {told}")


def test_afpub_env_outside_a_session_says_where_it_works(facility):
    script = facility.afpub_run.with_name("afpub-env")
    done = tools.run([script, "list"], env=facility.environment(), check=False)
    assert done.tail.startswith("afpub-env: this works inside a session only: in a notebook (!afpub-env list)")
    assert tools.run([script, "--help"], env=facility.environment()).stdout.startswith("afpub-env COMMAND - ")


def test_a_kernel_card_of_ones_own(facility, mini, tmp_path):
    install(facility, "pyroot2", mini)
    assert env(facility, "kernel", "mine", "--display-name", 'My "two"', kernel="pyroot2").ok
    env(facility, "clear", kernel="pyroot2")
    card = facility.home / ".local/share/jupyter/kernels/mine"
    spec = json.loads((card / "kernel.json").read_text())
    assert spec["display_name"] == 'My "two"'
    assert sorted(path.name for path in card.glob("logo-*.png")) == ["logo-32x32.png", "logo-64x64.png"]
    with started(facility, card) as client:
        assert shown(client, "import mini; print(mini.version)") == "1.0\n"
    with started(facility, facility.kernel("pyroot2")) as client:
        assert shown(client, "try:\n    import mini\nexcept ImportError as e: print(e)") == "No module named mini\n"
    assert facility.out("--env", "mine", "pyroot2", "--", "say-mini") == "mini 1.0"
    done = env(facility, "kernel", "--remove", "mine", kernel="pyroot2")
    gone = "afpub-env: the card 'mine' is gone, its packages are not: 'afpub-env --env mine clear' removes them"
    assert done.tail.splitlines()[-1] == gone
    assert not card.exists()


def test_a_card_that_somebody_else_made_is_left_alone(facility):
    card = facility.home / ".local/share/jupyter/kernels/mine"
    card.mkdir(parents=True)
    (card / "kernel.json").write_text("{}")
    assert env(facility, "kernel", "mine").tail == f"afpub-env: {card} is there already and was not made by afpub-env"
    assert env(facility, "kernel", "--remove", "mine").tail == f"afpub-env: {card} was not made by afpub-env"
    assert (card / "kernel.json").read_text() == "{}"


def told(facility, card):
    """The sentence of a card that does not start, and the command that it names."""
    with started(facility, card) as client:
        text = shown(client, "1")
        reply = client.execute("1", reply=True, timeout=30)["content"]
    assert (reply["status"], reply["ename"]) == ("error", "KernelNotStarted")
    sentence, _, command = text.strip().partition("\n\n    ")
    assert reply["evalue"] == sentence
    return sentence, command


@contextlib.contextmanager
def retired(facility):
    """The older release, taken out of use as ``afpub retire`` does it."""
    conf = facility.kernel("pyroot3", release=OLD) / "kernel.conf"
    before = conf.read_bytes()
    conf.write_bytes(retired_conf(before, successor=NEW, reason="a wrong geometry"))
    yield
    conf.write_bytes(before)


@contextlib.contextmanager
def removed(facility):
    """The older release, removed by hand."""
    folder = facility.prefix / "releases" / OLD
    folder.rename(facility.prefix / "gone")
    yield
    (facility.prefix / "gone").rename(folder)


IS_RETIRED = (
    f"the kernel 'PyROOT (Python 3)' of release {OLD} is no more: a wrong geometry; its successor is release {NEW}; "
    "your card 'mine' goes there, with its packages, by the command below"
)
IS_REMOVED = (
    f"your card 'mine' is for the kernel 'pyroot3' of release {OLD}, which is no longer published; "
    f"the command below makes it anew on release {NEW}, with its packages"
)


@pytest.mark.parametrize(
    ("end", "expected", "run"),
    [(retired, IS_RETIRED, f"releases/{NEW}"), (removed, IS_REMOVED, "channels/stable")],
    ids=["retired", "removed"],
)
def test_a_card_of_a_release_that_is_no_more_goes_to_the_next_one(facility, mini, end, expected, run):
    """By the very command that its notebook shows, with its packages and no others."""
    assert env(facility, "kernel", "mine", release=OLD).ok
    install(facility, "pyroot3", mini, release=OLD, AFPUB_ENV="mine")
    card = facility.home / ".local/share/jupyter/kernels/mine"
    with end(facility):
        sentence, command = told(facility, card)
        assert sentence == expected
        assert command == f"{facility.prefix}/{run}/bin/afpub-run pyroot3 -- afpub-env kernel mine --from {OLD}"
        tools.run(command.split(), env=facility.environment(), cwd=facility.home)
        with started(facility, card) as client:
            code = "import os, mini; print(os.environ['AFPUB_RELEASE'], mini.version)"
            assert shown(client, code) == f"{NEW} 1.0\n"
    assert json.loads((card / "kernel.json").read_text())["display_name"] == f"mine (release {NEW})"
    assert facility.run("pyroot3", "--", "say-mini").returncode == 127


def test_a_card_whose_repository_is_not_on_the_machine(facility):
    assert env(facility, "kernel", "mine").ok
    card = facility.home / ".local/share/jupyter/kernels/mine"
    spec = (card / "kernel.json").read_text().replace(f'"{facility.prefix}/', '"/cvmfs/none.example.org/')
    (card / "kernel.json").write_text(spec)
    assert told(facility, card) == (
        (
            "/cvmfs/none.example.org is not on this machine: "
            f"your card 'mine' is for the kernel 'pyroot3' of release {NEW} there"
        ),
        "ls /cvmfs/none.example.org",
    )


def test_a_card_goes_where_the_server_looks(facility, request):
    with outside(request, "test-jupyter-data") as data:
        facility.out("pyroot3", "--", "afpub-env", "kernel", "mine", JUPYTER_DATA_DIR=str(data))
        assert (data / "kernels/mine/kernel.json").exists()


# ------------------------------------------------------------------ afpub-run


def test_the_command_gets_its_words_and_its_stdin_and_gives_its_exit_code(facility):
    line = 'printf "%s|" "$@"; exit 7'
    done = facility.run("pyroot3", "--", "sh", "-c", line, "sh", "a b", "", "--", "*")
    assert (done.returncode, done.stdout) == (7, "a b||--|*|")
    fed = tools.filtered([facility.afpub_run, "rootcpp", "--", "cat"], b"fed", timeout_s=60)
    assert fed == b"fed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 9), (signal.SIGUSR1, 10), (signal.SIGHUP, 11)])
def test_signals_of_the_batch_system_reach_the_command(facility, number, code):
    line = 'trap "exit 9" TERM; trap "exit 10" USR1; trap "exit 11" HUP; echo ready; while :; do sleep 0.1; done'
    with subprocess.Popen(
        [facility.afpub_run, "pyroot3", "--", "sh", "-c", line], env=facility.environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == code


def test_a_command_that_is_killed_by_a_signal(facility):
    assert facility.run("pyroot3", "--", "sh", "-c", "kill -KILL $$").returncode in {137, -signal.SIGKILL}
    with subprocess.Popen(
        [facility.afpub_run, "pyroot3", "--", "sleep", "98.7"], env=facility.environment(), stdout=subprocess.PIPE
    ) as process:
        time.sleep(1.0)
        process.terminate()
        assert process.wait(timeout=20) in {143, -signal.SIGTERM}


def test_a_job_stays_on_its_release_when_the_channel_moves(facility):
    channel = facility.prefix / "channels/stable"
    line = f'ln -sfn ../releases/{OLD} "{channel}" && "$AFPUB_RELEASE_DIR/bin/afpub-run" --help | head -n 1; env'
    try:
        out = facility.out("stable", "pyroot3", "--", "sh", "-c", line, APPTAINER_BIND=str(facility.prefix))
        assert os.readlink(channel) == f"../releases/{OLD}"
    finally:
        channel.unlink()
        channel.symlink_to(f"../releases/{NEW}")
    variables = dict(row.split("=", 1) for row in out.splitlines() if "=" in row)
    assert variables["AFPUB_RELEASE_DIR"] == f"{facility.prefix}/releases/{NEW}"
    assert variables["AFPUB_RUN"] == f"{facility.prefix}/releases/{NEW}/bin/afpub-run"


def test_what_a_notebook_submits_runs_in_the_same_environment(facility, mini):
    """The path in AFPUB_RUN is called outside, by a batch system, with a clean environment and without HOME."""
    install(facility, "pyroot3", mini)
    with started(facility, facility.kernel("pyroot3")) as client:
        program = shown(client, "import os; print(os.environ['AFPUB_RUN'])").strip()
    done = tools.run([program, "pyroot3", "--", "say-mini"], env=facility.environment(), cwd=facility.home)
    assert done.stdout == "mini 1.0"
    done = tools.run([program, "pyroot3", "--", "sh", "-c", "echo $HOME"], env={"PATH": os.environ["PATH"]})
    assert done.stdout == pwd.getpwuid(os.getuid()).pw_dir


def test_an_image_is_entered_without_a_kernel(facility):
    out = facility.out("stable", "root", "--", "sh", "-c", 'echo "$AFPUB_KERNEL $AFPUB_IMAGE"')
    assert out == f"root {facility.prefix}/images/root/1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "usage: afpub-run [RELEASE] NAME [-- COMMAND [ARGUMENT...]]"),
        (("stable", "root", "ls"), "write -- before the command: afpub-run root ... -- COMMAND"),
        (("../x", "root"), "'../x' is neither a release, a kernel nor an image"),
        (("next", "root"), f"there is no release or channel 'next' in {{prefix}}; there are: stable {OLD} {NEW}"),
        (
            ("stable", "roto", "--", "ls"),
            f"release {NEW} has no kernel or image 'roto'; there are: pyroot2 pyroot3 rootcpp python27 root",
        ),
    ],
)
def test_wrong_words_are_told(facility, words, told):
    done = facility.run(*words)
    assert (done.returncode, done.tail) == (64, f"afpub-run: {told.format(prefix=facility.prefix)}")


def test_an_interactive_shell_shows_where_one_is(facility, require_tool):
    script = require_tool("script")
    line = f"'{facility.afpub_run}' stable pyroot3"
    typed = b"echo kernel=$AFPUB_KERNEL shell=$SHELL\nexit\n"
    os.environ["HOME"], before = str(facility.home), os.environ["HOME"]
    try:
        seen = tools.filtered([script, "-qec", line, "/dev/null"], typed, timeout_s=60).decode()
    finally:
        os.environ["HOME"] = before
    assert f"[pyroot3 {NEW}]" in seen
    assert "kernel=pyroot3 shell=/usr/bin/bash" in seen


@pytest.fixture
def site_files(tmp_path, facility):
    """What a site includes, for a mount below which the repository is, or is not."""
    mount = tmp_path / "cvmfs"
    mount.mkdir()
    made = shell_site(Fqrn("af.example.org"), RepoPath(""), ChannelName("stable"), name="pyroot3", mount=f"{mount}")
    for path, text in made.files():
        (tmp_path / "etc" / path).parent.mkdir(parents=True)
        (tmp_path / "etc" / path).write_text(text)
    config = tmp_path / "etc/jupyter"
    (config / "jupyter_server_config.py").write_text(f"load_subconfig('{config}/afpub-terminal.py')\n")

    def mounted():
        (mount / "af.example.org").symlink_to(facility.prefix)
        return f"{mount}/af.example.org/channels/stable/bin"

    return mounted


def test_the_terminal_of_jupyterlab_starts_in_the_environment_of_a_kernel(facility, tmp_path, site_files):
    folder = site_files()
    env = {"JUPYTER_CONFIG_PATH": f"{tmp_path}/etc/jupyter"}
    with open_server(tmp_path / "none", tmp_path, env=env) as url:
        seen = type_into_terminal(url, 'echo "is:$AFPUB_KERNEL:"', until="is:pyroot3:")
    assert f"[pyroot3 {NEW}]" in seen
    found = tools.run(["sh", "-c", f". {tmp_path}/etc/profile.d/afpub.sh; command -v afpub-run"])
    assert found.stdout == f"{folder}/afpub-run"


def test_where_the_repository_is_not_mounted_a_terminal_is_still_a_terminal(tmp_path, site_files):
    line = (tmp_path / "etc/jupyter/afpub-terminal.py").read_text().splitlines()[-1]
    command = json.loads(line.partition(" = ")[2])["shell_command"]
    done = tools.run(command, env={"PATH": os.environ["PATH"], "SHELL": "/bin/pwd"}, cwd=tmp_path)
    assert done.stdout == str(tmp_path)
    assert f"afpub: {tmp_path}/cvmfs/af.example.org/channels/stable/bin is not on this machine." in done.tail


# ------------------------------------------------------------------ the examples of the documentation


@pytest.fixture
def job(facility, tmp_path, pytestconfig):
    """A folder of a job with the example's files."""
    for file in (pytestconfig.rootpath / "docs/examples").iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path


def test_the_slurm_example_runs(facility, job):
    env = facility.environment(AFPUB_RUN=str(facility.afpub_run), SLURM_ARRAY_TASK_ID="1")
    done = tools.run(["bash", job / "fill.slurm"], env=env, cwd=job)
    assert done.stdout == "job 1: 1000 entries"
    assert (job / "fill-1.root").exists()


def test_the_condor_example_runs(facility, job):
    """HTCondor's own syntax is little used: words are separated by blanks, macros are filled in."""
    rows = [line.partition("=") for line in (job / "fill.sub").read_text().splitlines() if not line.startswith("#")]
    submit = {key.strip(): value.strip() for key, _, value in rows if value}
    assert submit["executable"] == "$ENV(AFPUB_RUN)"
    assert submit["environment"] == '"HOME=$ENV(HOME)"'
    words = submit["arguments"].strip('"').replace("$(Process)", "0").split()
    env = {"HOME": str(facility.home), "PATH": os.environ["PATH"], "_CONDOR_SCRATCH_DIR": str(job)}
    done = tools.run([facility.afpub_run, *words], env=env, cwd=job)
    assert done.stdout == "job 0: 1000 entries"
    assert (job / "fill-0.root").exists()
