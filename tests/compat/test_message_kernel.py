"""The kernel that tells why the real one did not start, as a Jupyter server and its users see it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from compat.machine_image import PREFIXES, definition, publish
from compat.notebook import run_cell, started
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from publisher import tools
from publisher.kernels.processes import left_over
from publisher.project.kernel import SetupStep


@pytest.fixture
def published(tmp_path, require_tool, monkeypatch):
    require_tool("apptainer")
    monkeypatch.setenv("APPTAINER_BINDPATH", ",".join(("/usr", *PREFIXES)))
    monkeypatch.setenv("HOME", str(tmp_path))
    return publish(tmp_path / "af")


@pytest.mark.parametrize(("transport", "encryption"), [("tcp", "disabled"), ("ipc", "disabled"), ("tcp", "required")])
def test_missing_image_is_told_in_the_notebook_until_it_is_mended(published, tmp_path, transport, encryption):
    metadata = '{"supported_encryption": ["curve"]}'
    published.release("2026.11.1", definition(tmp_path, "py", metadata=metadata))
    image = published.prefix / "images/machine/1"
    image.rename(tmp_path / "away")
    sentence = (
        f"the image of the kernel 'The py kernel' is not there ({image}): "
        "what this machine sees of release 2026.11.1 is incomplete"
    )
    with started(published, "py", transport, encryption) as (manager, client):
        pid = manager.provisioner.pid
        info = client.kernel_info(reply=True, timeout=30)["content"]
        assert info["implementation"] == "afpub-message"
        assert info["language_info"]["name"] == "python"
        assert info["banner"] == f"{sentence}\n\n    ls {image}"
        for count in (1, 2):
            shown = run_cell(client, "1 + 1")
            assert shown.reply["ename"] == "KernelNotStarted"
            assert shown.reply["execution_count"] == count
            assert [kind for kind, _ in shown.messages] == ["status", "execute_input", "stream", "error", "status"]
            assert shown.messages[2][1] == {"name": "stderr", "text": f"{sentence}\n\n    ls {image}\n"}
            assert shown.messages[3][1]["evalue"] == sentence
        assert client.complete("impo", reply=True, timeout=30)["content"]["matches"] == []
        manager.interrupt_kernel()
        client.hb_channel.unpause()
        time.sleep(1.5)
        assert client.is_alive()
        assert client.hb_channel.is_beating()
        (tmp_path / "away").rename(image)
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=60)
        assert run_cell(client, "1 + 1").reply["status"] == "ok"
        assert left_over(pid, marker="no such marker", wait_s=5) == ()


def test_runtime_that_fails_is_told_when_the_server_starts_the_kernel_again(published, tmp_path):
    """A server starts a kernel that died anew, with the same connection file (KernelRestarter of jupyter_client)."""
    published.release("2026.11.1", definition(tmp_path, "py"))
    conf = published.kernel("py") / "kernel.conf"
    whole = conf.read_text()
    conf.write_text(f"{whole}BIND=/etc/hostname:/proc/no-such-file\n")
    specs = KernelSpecManager(kernel_dirs=[str(published.kernel("py").parent)])
    manager = KernelManager(
        kernel_name="py", kernel_spec_manager=specs, connection_file=str(tmp_path / "run" / "kernel-1.json")
    )
    (tmp_path / "run/kernel-0.json.starting").parent.mkdir()
    (tmp_path / "run/kernel-0.json.starting").touch()  # of a kernel that is no more
    with (tmp_path / "log").open("w") as log:
        manager.start_kernel(stderr=log)
        assert manager.provisioner.process.wait(60) == 255
        assert "/proc/no-such-file" in (tmp_path / "log").read_text()
        assert [path.name for path in (tmp_path / "run").glob("*.starting")] == ["kernel-1.json.starting"]
        manager.restart_kernel(now=True, newports=True)
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        shown = run_cell(client, "1 + 1")
        assert shown.reply["ename"] == "KernelNotStarted"
        assert shown.reply["evalue"].startswith("apptainer cannot start the image of the kernel 'The py kernel' (")
        assert "/proc/no-such-file" in shown.reply["evalue"]
        assert shown.streams[0][1].endswith(f"\n\n    {published.kernel('py').resolve()}/launch --run true\n")
        conf.write_text(whole)
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=60)
        assert run_cell(client, "1 + 1").reply["status"] == "ok"
        assert list((tmp_path / "run").glob("*.starting")) == []
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_failed_set_up_is_told_by_the_images_python(published, tmp_path):
    step = SetupStep(kind="source", words=("/no/setup.sh",))
    published.release("2026.11.1", definition(tmp_path, "py", setup=(step,)))
    with started(published, "py") as (manager, client):
        reply = run_cell(client, "1 + 1").reply
        assert reply["ename"] == "KernelNotStarted"
        assert reply["evalue"].startswith(
            "source /no/setup.sh failed (code 1): the kernel 'The py kernel' was not started; "
            "all that it printed is in "
        )
        pid = manager.provisioner.pid
        manager.shutdown_kernel()
        assert left_over(pid, marker="no such marker", wait_s=5) == ()


def test_message_that_is_not_signed_with_the_key_is_dropped(published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "old", image=None, retired="take another"))
    with started(published, "old") as (_, client):
        client.session.key = b"another key"
        client.kernel_info()
        time.sleep(1)
        assert not client.shell_channel.msg_ready()


def test_message_kernel_ends_with_its_server(published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "old", image=None, retired="take another"))
    code = (
        "import os, subprocess, sys, time\n"
        "from jupyter_client.connect import write_connection_file as write\n"
        f"file, _ = write({str(tmp_path / 'connection.json')!r})\n"
        f"p = subprocess.Popen([{str(published.kernel('old') / 'launch')!r}, file], start_new_session=True)\n"
        "time.sleep(2); print('pid', p.pid, flush=True); os._exit(0)"
    )
    done = tools.run([sys.executable, "-c", code], timeout_s=60)
    assert left_over(int(done.stdout.split()[1]), marker="no such marker", wait_s=10) == ()


def test_without_any_python_the_sentence_is_on_stderr(published, tmp_path):
    published.release("2026.11.1", definition(tmp_path, "old", image=None, retired="take another"))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "readlink"):
        (programs / name).symlink_to(shutil.which(name))
    hidden = "mount -t tmpfs none /usr/libexec; mount --bind /dev/null /usr/bin/python3; exec"
    if os.geteuid() != 0:
        pytest.skip("only root can play a machine without Python")
    launch = Path(os.path.abspath(published.kernel("old") / "launch"))  # noqa: PTH100 - links must stay
    argv = ["unshare", "--mount", "sh", "-c", f'{hidden} env PATH={programs} "$0" "$1"', launch]
    done = tools.run([*argv, published.connection_file(tmp_path)], check=False)
    assert done.returncode == 68
    assert done.tail.endswith("afpub: the kernel 'The old kernel' of release 2026.11.1 is no more: take another")
