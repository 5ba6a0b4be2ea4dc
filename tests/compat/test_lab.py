"""What a notebook user sees: the cards of the published kernels, and notebooks that compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from compat.lab import open_lab
from compat.machine_image import Published, definition
from wanted import wanted

pytestmark = [pytest.mark.images, pytest.mark.browser]

DISPLAY_NAMES = {
    "pyroot2": "PyROOT (Python 2.7, AnalysisBase)",
    "pyroot3": "PyROOT (Python 3)",
    "python3-ml": "Python 3 ML",
    "python3-ml-usersite": "Python 3 ML (with my own packages)",
    "rootcpp": "ROOT C++",
    "without-image": "Kernel without its image",
}
SLIDER = """
import ipywidgets
slider = ipywidgets.IntSlider(value=7, max=10, description="events")
label = ipywidgets.Label()
ipywidgets.dlink((slider, "value"), (label, "value"), lambda value: f"twice is {2 * value}")
ipywidgets.VBox([slider, label])
"""
CANVAS = """
TCanvas c("c", "c", 600, 400);
TH1F h("h", "A Gaussian;x;entries", 50, -4, 4); h.FillRandom("gaus", 5000);
h.Draw(); c.Draw();
"""
KERAS = """
import keras, numpy
keras.utils.set_random_seed(2)
x = numpy.linspace(-1, 1, 128).reshape(-1, 1)
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse")
loss = model.fit(x, x ** 2, epochs=30, verbose=0).history["loss"]
print("loss fell:", loss[-1] < loss[0] / 4)
"""
HISTOGRAM = """
import ROOT
h = ROOT.TH1F("h", "A Gaussian;x;entries", 50, -4, 4)
h.FillRandom("gaus", 5000)
canvas = ROOT.TCanvas("c", "c", 600, 400)
h.Draw()
canvas.Draw()
print("entries", int(h.GetEntries()))
"""


@pytest.fixture(scope="module")
def lab(published_jupyter_path, without_image, tmp_path_factory):
    wanted("chromium")
    both = {"JUPYTER_PATH": f"{published_jupyter_path}:{without_image}"}
    with open_lab(published_jupyter_path, tmp_path_factory.mktemp("lab"), env=both) as opened:
        yield opened


@pytest.fixture(scope="module")
def without_image(tmp_path_factory, pytestconfig) -> Path:
    """Another release, whose only kernel cannot start here: a part of it has not arrived."""
    folder = tmp_path_factory.mktemp("incomplete")
    logo = pytestconfig.rootpath / "kernelspecs/pyroot3/logo-64x64.png"
    name = "without-image"
    kernel = definition(folder, name, display_name=DISPLAY_NAMES[name])
    return Published(prefix=folder).release("1.0", replace(kernel, logos=(logo,))) / "share/jupyter"


@pytest.fixture
def screenshot(lab, request):
    """Keeps a picture of the page under a name, for people to look at."""
    return lambda name: lab.screenshot(request.config.rootpath / "build/test-artifacts" / f"{name}.png")


def test_launcher_shows_every_kernel_with_its_logo(lab, screenshot):
    cards = {card.label: card.logo_width for card in lab.cards()}
    screenshot("launcher")
    assert set(cards) == set(DISPLAY_NAMES.values())
    assert all(width > 0 for width in cards.values()), cards


def test_rootcpp_fills_a_histogram(lab, screenshot):
    notebook = lab.open_notebook(DISPLAY_NAMES["rootcpp"])
    output = notebook.run_cell('TH1F h("h", "h", 10, 0, 1); h.Fill(.25); h.Fill(.5); h.GetEntries()')
    screenshot("rootcpp")
    assert output.text.strip() == "(double) 2.0000000"
    assert not output.error


def test_pyroot3_draws_a_histogram(lab, screenshot):
    notebook = lab.open_notebook(DISPLAY_NAMES["pyroot3"])
    output = notebook.run_cell(HISTOGRAM)
    screenshot("pyroot3")
    assert "entries 5000" in output.text
    assert output.images == 1


def test_rootcpp_draws_a_canvas(lab, screenshot):
    """As a picture, or by JSROOT, which the browser looks for at the server before it asks the internet."""
    notebook = lab.open_notebook(DISPLAY_NAMES["rootcpp"])
    picture = notebook.run_cell("%jsroot off\n" + CANVAS)
    screenshot("rootcpp-picture")
    assert picture.images == 1
    asked = []
    lab.page.on("request", lambda request: asked.append(request.url))
    notebook.run_cell("%jsroot on\n" + CANVAS.replace("h", "g").replace('"c"', '"d"'))
    screenshot("rootcpp-jsroot")
    assert next(url for url in asked if "jsroot" in url) == f"{lab.url}/static/build/jsroot.js"


def test_cell_is_interrupted_and_kernel_restarted(lab, screenshot):
    notebook = lab.open_notebook(DISPLAY_NAMES["pyroot3"])
    notebook.start_cell("x = 1\nprint('begun')\nimport time\nfor _ in range(3000): time.sleep(0.1)", shows="begun")
    stopped = notebook.interrupt(shows="KeyboardInterrupt")
    screenshot("interrupt")
    assert stopped.error
    assert notebook.run_cell("x").text.strip() == "1"
    notebook.restart()
    assert "NameError" in notebook.run_cell("x").text
    screenshot("restart")


def test_widget_answers_to_the_keyboard(lab, screenshot):
    notebook = lab.open_notebook(DISPLAY_NAMES["pyroot3"])
    assert "twice is 14" in notebook.run_cell(SLIDER).text
    notebook.panel.locator(".noUi-handle").press("ArrowRight")
    notebook.panel.get_by_text("twice is 16").wait_for(timeout=30_000)
    screenshot("widget")


def test_kernel_that_cannot_start_says_why_in_the_notebook(lab, screenshot):
    notebook = lab.open_notebook(DISPLAY_NAMES["without-image"])
    output = notebook.run_cell("6 * 7")
    screenshot("message")
    assert output.error
    assert "the image of the kernel 'Kernel without its image' is not there" in output.text


def test_python3_ml_trains_a_network(lab, screenshot):
    notebook = lab.open_notebook(DISPLAY_NAMES["python3-ml"])
    output = notebook.run_cell(KERAS, timeout_s=240)
    screenshot("python3-ml")
    assert "loss fell: True" in output.text


def test_pyroot2_is_python_27(lab, screenshot):
    notebook = lab.open_notebook(DISPLAY_NAMES["pyroot2"])
    output = notebook.run_cell("import sys; sys.version_info[:2] == (2, 7), 7 / 2")
    screenshot("pyroot2")
    assert output.text.strip() == "(True, 3)"


def test_python3_ml_usersite_sees_the_users_own_packages(lab, screenshot):
    own = lab.log.parent / "home/.local/lib/python3.11/site-packages"
    own.mkdir(parents=True)
    (own / "my_own_package.py").write_text("answer = 42\n")
    code = "import importlib.util; importlib.util.find_spec('my_own_package') is not None"
    seen = lab.open_notebook(DISPLAY_NAMES["python3-ml-usersite"]).run_cell(code)
    screenshot("python3-ml-usersite")
    assert seen.text.strip() == "True"
    assert lab.open_notebook(DISPLAY_NAMES["python3-ml"]).run_cell(code).text.strip() == "False"
