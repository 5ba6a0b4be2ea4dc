"""The life of published kernels under a real Jupyter server: interrupts, restarts, deaths, and what is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from publisher import tools
from publisher.kernels.processes import left_over, now_s
from publisher.kernels.session import SLEEPERS

pytestmark = pytest.mark.images
_TOKEN = "only-on-this-machine"
_WAIT_S = 90.0


class Server:
    """A Jupyter server without a browser; kernels are its children, as JupyterLab's are."""

    def __init__(self, url, pid, runtime, marker):
        self.url, self.pid, self.runtime, self.marker = url, pid, runtime, marker
        self.since_s = now_s()

    def ask(self, path, *, method="GET", body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/{path}", data=data, method=method)
        request.add_header("Authorization", f"token {_TOKEN}")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def start(self, name):
        return Kernel(self, self.ask("kernels", method="POST", body={"name": name})["id"])

    def left(self, wait_s):
        """What runs with this server's marker, the server itself left out."""
        found = left_over(-1, marker=self.marker, wait_s=wait_s, since_s=self.since_s - 30)
        return [process for process in found if process.pid != self.pid]


class Kernel:
    """A kernel of the server, talked to over its own sockets."""

    def __init__(self, server, identity):
        self.server, self.path = server, f"kernels/{identity}"
        self.file = server.runtime / f"kernel-{identity}.json"
        self.client = None

    def connect(self):
        """A client of the kernel as it is now, which has answered."""
        if self.client:
            self.client.stop_channels()
        self.client = BlockingKernelClient(connection_file=str(self.file))
        self.client.load_connection_file()
        self.client.start_channels(hb=False)
        self.client.wait_for_ready(timeout=_WAIT_S)
        return self

    def run(self, code):
        texts = []

        def take(message):
            content = message["content"]
            texts.append(content.get("text") or content.get("data", {}).get("text/plain", ""))

        reply = self.client.execute_interactive(
            code, timeout=_WAIT_S, allow_stdin=False, stop_on_error=False, output_hook=take
        )
        return reply["content"]["status"], "".join(texts).strip()

    def reply(self, message):
        while True:
            answer = self.client.get_shell_msg(timeout=_WAIT_S)
            if answer["parent_header"].get("msg_id") == message:
                return answer

    def pid(self, code):
        return int(self.run(code)[1].split()[-1])


def runs(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def server(published_jupyter_path, tmp_path_factory):
    work = tmp_path_factory.mktemp("server")
    home, token = work / "home", uuid.uuid4().hex
    home.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    foreign = ("JUPYTER_", "APPTAINER", "SINGULARITY", "PYTHON")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
        "HOME": str(home),
        "JUPYTER_PATH": str(published_jupyter_path),
        "JUPYTER_RUNTIME_DIR": str(work / "runtime"),
        "AFPUB_PROBE": token,
    }
    words = [sys.executable, "-m", "jupyter_server", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    words += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={_TOKEN}", f"--ServerApp.root_dir={home}"]
    log = work / "server.log"
    with tools.spawn(words, env=environment, log=log, cwd=home) as pid:
        made = Server(f"http://127.0.0.1:{port}", pid, work / "runtime", f"AFPUB_PROBE={token}")
        wait_until(lambda: made.ask("status"), log.read_text)
        yield made


def wait_until(what, why=str):
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            if what():
                return
        except OSError:  # no answer yet, or one that says no
            pass
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)


@pytest.mark.parametrize("name", ["pyroot3", "pyroot2", "rootcpp"])
def test_kernel_is_interrupted_restarted_killed_and_shut_down(server, name):
    kernel = server.start(name).connect()
    cling = name == "rootcpp"
    set_answer = "int answer = 42; answer" if cling else "answer = 42\nanswer"
    own_pid = "gSystem->GetPid()" if cling else "import os; os.getpid()"
    assert "42" in kernel.run(set_answer)[1]
    if not cling:  # cling cannot be interrupted
        message = kernel.client.execute(SLEEPERS["python"], stop_on_error=False)
        wait_until(lambda: "asleep" in str(kernel.client.get_iopub_msg(timeout=_WAIT_S)["content"].get("text")))
        server.ask(f"{kernel.path}/interrupt", method="POST")
        assert kernel.reply(message)["content"]["status"] == "error"
    server.ask(f"{kernel.path}/restart", method="POST")
    kernel.connect()
    if not cling:
        assert kernel.run("answer")[0] == "error"
    first = kernel.pid(own_pid)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not runs(first))
    wait_until(lambda: kernel.connect().pid(own_pid) != first)
    kernel.client.stop_channels()
    server.ask(kernel.path, method="DELETE")
    assert server.left(20) == []


def test_nothing_is_left_when_the_server_is_killed(server):
    kernels = [server.start(name) for name in ("pyroot3", "pyroot2", "rootcpp")]
    for kernel in kernels:
        kernel.connect().client.stop_channels()
    assert len(server.left(0)) >= 3
    os.kill(server.pid, signal.SIGKILL)
    assert server.left(30) == []
