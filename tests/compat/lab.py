"""Drives a real JupyterLab in a headless Chromium, as a user does: click a card, type, read the page."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PageTimeoutError
from tornado.websocket import websocket_connect

from publisher import tools

TOKEN = "only-on-this-machine"
_CARD = '.jp-LauncherCard[data-category="Notebook"]'
_NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"
_CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
_IDLE = "item => item.dataset.status === 'idle'"
_NOT_IDLE = "item => item.dataset.status !== 'idle'"
_NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A card of the launcher."""

    label: str
    logo_width: int
    """Natural width of the logo in pixels; 0 if it could not be loaded or there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What a cell shows on the page."""

    text: str
    images: int
    """Pictures that were loaded."""
    error: bool
    """The output of stderr or of an error is there."""


@dataclass(frozen=True, slots=True)
class Lab:
    """An open JupyterLab."""

    page: Page
    url: str
    log: Path

    def cards(self) -> list[Card]:
        """The launcher's notebook cards in the order of the page."""
        self._open_launcher()
        found = []
        for card in self.page.locator(_CARD).all():
            logo = card.locator("img")
            width = 0
            if logo.count():
                self.page.wait_for_function("image => image.complete", arg=logo.element_handle())
                width = logo.evaluate("image => image.naturalWidth")
            found.append(Card(label=card.locator(".jp-LauncherCard-label").inner_text(), logo_width=width))
        return found

    def open_notebook(self, display_name: str, *, timeout_s: float = 120) -> Notebook:
        """A new notebook, opened by its card, whose kernel is ready."""
        self._open_launcher()
        label = self.page.locator(".jp-LauncherCard-label").get_by_text(display_name, exact=True)
        self.page.locator(_CARD).filter(has=label).click()
        panel = self.page.locator(_NOTEBOOK)
        panel.locator(".jp-Cell .cm-content").first.wait_for(timeout=60_000)
        self._wait_for_kernel(time.monotonic() + timeout_s)
        return Notebook(page=self.page, panel=panel)

    def screenshot(self, path: Path) -> None:
        """Writes a picture of the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(path))

    def _wait_for_kernel(self, deadline: float) -> None:
        """Until the page is connected to an idle kernel.

        The page itself shows "Idle" before there is a kernel, and a cell that is run then is silently not run.
        """
        while not any(_is_ready(session["kernel"]) for session in self._sessions()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the kernel did not start; the log of the server:\n{self.log.read_text()}")
            time.sleep(0.2)

    def _sessions(self) -> list[dict]:
        return json.loads(_ask(f"{self.url}/api/sessions?token={TOKEN}"))

    def _open_launcher(self) -> None:
        """A page with nothing but the launcher; notebooks that were open are shut down."""
        self.page.goto("about:blank")  # a page that is open would start their kernels anew
        for session in self._sessions():
            _ask(f"{self.url}/api/sessions/{session['id']}?token={TOKEN}", method="DELETE")
        self.page.goto(f"{self.url}/lab?reset&token={TOKEN}")
        self.page.locator(_CARD).first.wait_for(timeout=60_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Notebook:
    """An open notebook."""

    page: Page
    panel: Locator

    def run_cell(self, code: str, *, timeout_s: float = 120) -> Output:
        """What the last cell shows after ``code`` was typed into it and run."""
        cells = self.panel.locator(".jp-CodeCell")
        number = cells.count() - 1
        cell = cells.nth(number)
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(code.strip())
        self.page.keyboard.press("Shift+Enter")
        prompt = cell.locator(".jp-InputPrompt")
        deadline = time.monotonic() + timeout_s
        while not prompt.inner_text().strip("[]: \n").isdecimal():
            if time.monotonic() > deadline:
                state = self.page.locator("#jp-main-statusbar").inner_text()
                raise TimeoutError(f"the cell did not end in {timeout_s:.0f} s ({state!r}): {code}")
            time.sleep(0.2)
        time.sleep(0.5)  # the prompt can be there before the last output is drawn
        return _output(cell)

    def start_cell(self, code: str, *, shows: str, timeout_s: float = 120) -> None:
        """Types and runs ``code`` in the last cell, and waits until it shows a text while it goes on."""
        cell = self.panel.locator(".jp-CodeCell").last
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(code.strip())
        self.page.keyboard.press("Control+Enter")
        cell.locator(".jp-OutputArea-output").get_by_text(shows).first.wait_for(timeout=1000 * timeout_s)

    def interrupt(self, *, shows: str) -> Output:
        """What the running last cell shows after the stop button was pressed, once the text is there."""
        self.panel.locator('[data-jp-item-name="interrupt"]').click()
        cell = self.panel.locator(".jp-CodeCell").last
        cell.locator(".jp-OutputArea-output").get_by_text(shows).first.wait_for(timeout=30_000)
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("b")  # a new cell below
        return _output(self.panel.locator(".jp-CodeCell").nth(-2))

    def restart(self) -> None:
        """Presses the restart button, says yes, and waits for the kernel that comes."""
        state = self.panel.locator(".jp-Notebook-ExecutionIndicator")
        self.panel.locator('[data-jp-item-name="restart"]').click()
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        with contextlib.suppress(PageTimeoutError):  # it may be idle again before anybody looks
            self.page.wait_for_function(_NOT_IDLE, arg=state.element_handle(), timeout=5_000)
        self.page.wait_for_function(_IDLE, arg=state.element_handle(), timeout=120_000)


def _output(cell: Locator) -> Output:
    area = cell.locator(".jp-OutputArea-output")
    images = area.locator("img").evaluate_all("found => found.filter(image => image.naturalWidth > 0).length")
    bad = cell.locator('[data-mime-type="application/vnd.jupyter.stderr"], [data-mime-type$="error"]')
    return Output(text="\n".join(area.all_inner_texts()), images=images, error=bad.count() > 0)


@contextlib.contextmanager
def open_server(jupyter_path: Path, work: Path, *, env: dict[str, str] | None = None) -> Iterator[str]:
    """The address of a JupyterLab without a browser; its arguments are those of :func:`open_lab`."""
    port, log = _free_port(), work / "jupyterlab.log"
    environment = _environment(jupyter_path, work, env or {})
    with tools.spawn(_command(port, environment["JUPYTER_PATH"], work), env=environment, log=log):
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/api/status?token={TOKEN}", log)
        yield url


def type_into_terminal(url: str, line: str, *, until: str, timeout_s: float = 60) -> str:
    """What a new terminal of the server shows, up to a text, after a line was typed into it."""
    name = json.loads(_ask(f"{url}/api/terminals?token={TOKEN}", method="POST"))["name"]
    address = f"{url.replace('http', 'ws', 1)}/terminals/websocket/{name}?token={TOKEN}"

    async def talk() -> str:
        shown = ""
        socket = await websocket_connect(address)
        await socket.write_message(json.dumps(["stdin", f"{line}\r"]))
        try:
            async with asyncio.timeout(timeout_s):
                while until not in shown and (message := await socket.read_message()) is not None:
                    kind, *content = json.loads(message)
                    shown += content[0] if kind == "stdout" else ""
        except TimeoutError:
            raise TimeoutError(f"{until!r} was not shown, but: {shown}") from None
        finally:
            socket.close()
            while await socket.read_message() is not None:
                pass  # until the other side has closed it too
        return shown

    return asyncio.run(talk())


@contextlib.contextmanager
def open_lab(jupyter_path: Path, work: Path, *, env: dict[str, str] | None = None) -> Iterator[Lab]:
    """JupyterLab with the kernels of ``jupyter_path`` only, open in a browser.

    Args:
        jupyter_path: what a site puts into JUPYTER_PATH.
        work: folder for the server's settings, the user's home and the notebooks.
        env: variables to be added to the server's environment.
    """
    with open_server(jupyter_path, work, env=env) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(tools.which("chromium")), headless=True, args=list(_CHROMIUM_OPTIONS)
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        try:
            yield Lab(page=page, url=url, log=work / "jupyterlab.log")
        finally:
            browser.close()


def _command(port: int, jupyter_path: str, work: Path) -> list[str]:
    notebooks = work / "home/notebooks"
    notebooks.mkdir(parents=True, exist_ok=True)
    places = map(Path, jupyter_path.split(os.pathsep))
    names = [file.parent.name for place in places for file in sorted(place.glob("kernels/*/kernel.json"))]
    return [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", "--allow-root", f"--ServerApp.root_dir={notebooks}"),
        *(f"--IdentityProvider.token={TOKEN}", "--LabApp.extension_manager=readonly"),
        "--LabApp.news_url=None",
        *(f"--KernelSpecManager.allowed_kernelspecs={name}" for name in names),
    ]


def _environment(jupyter_path: Path, work: Path, more: dict[str, str]) -> dict[str, str]:
    settings = work / "config/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(_NO_NEWS))
    foreign = ("JUPYTER_", "APPTAINER", "SINGULARITY", "PYTHON")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
        "HOME": str(work / "home"),
        "JUPYTER_PATH": str(jupyter_path),
        "JUPYTER_CONFIG_DIR": str(work / "config"),
        "JUPYTER_DATA_DIR": str(work / "data"),
        "JUPYTER_RUNTIME_DIR": str(work / "runtime"),
        **more,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, log: Path, *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _ask(url)
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise TimeoutError(f"JupyterLab does not answer; its log:\n{log.read_text()}") from None
            time.sleep(0.2)
        else:
            return


def _is_ready(kernel: dict | None) -> bool:
    return bool(kernel and kernel["execution_state"] == "idle" and kernel["connections"])


def _ask(url: str, *, method: str = "GET") -> bytes:
    """What the server answers; proxies of the environment are not for loopback."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method), timeout=30) as answer:
        return answer.read()
