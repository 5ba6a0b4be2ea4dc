"""The Jupyter project's own test suite for kernels, on every published Python and C++ kernel."""

from __future__ import annotations

import os
from queue import Empty
from typing import ClassVar

import jupyter_kernel_test as peer
import pytest
from jupyter_kernel_test.msgspec_v5 import validate_message

pytestmark = pytest.mark.images
_PATIENCE_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def _server(published_jupyter_path, tmp_path_factory):
    """What a Jupyter server finds kernels by, and a home folder of its own; set before a class starts its kernel."""
    with pytest.MonkeyPatch.context() as patch:
        for name in tuple(os.environ):
            if name.startswith(("JUPYTER_", "APPTAINER", "SINGULARITY")) and name != "APPTAINER_TMPDIR":
                patch.delenv(name)
        patch.setenv("JUPYTER_PATH", str(published_jupyter_path))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


class Suite(peer.KernelTests):
    """The suite gives a message 0.1 s to come, which says nothing on a busy machine."""

    __test__ = False
    unsupported: ClassVar[dict[str, str]] = {}
    """Tests that the kernel cannot pass, and why."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        channel = cls.kc.iopub_channel
        cls.at_once = staticmethod(peer.ensure_sync(channel.get_msg))
        channel.get_msg = lambda timeout: cls.at_once(timeout=max(timeout, _PATIENCE_S))

    def setUp(self):
        if reason := self.unsupported.get(self._testMethodName):
            self.skipTest(reason)

    def flush_channels(self):
        for get_msg in (peer.ensure_sync(self.kc.shell_channel.get_msg), self.at_once):
            while True:
                try:
                    validate_message(get_msg(timeout=0.1))
                except Empty:
                    break


class Python(Suite):
    __test__ = False
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "import sys; sys.stdout.write('hello, world\\n') and None"
    code_stderr = "import sys; sys.stderr.write('test\\n') and None"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]  # noqa: RUF012 - as the suite wants it
    complete_code_samples = ["1", "print('hello')", "def f(x):\n  return x*2\n\n\n"]  # noqa: RUF012
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]  # noqa: RUF012
    invalid_code_samples = ["import = 7q"]  # noqa: RUF012
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('no')"
    code_execute_result = [  # noqa: RUF012
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data = [  # noqa: RUF012
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")  # IPython gives the running session the number 0 in a range
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class TestPyroot3(Python):
    __test__ = True
    kernel_name = "pyroot3"


class TestPython3Ml(Python):
    __test__ = True
    kernel_name = "python3-ml"


class TestPyroot2(Python):
    __test__ = True
    kernel_name = "pyroot2"


class TestRootcpp(Suite):
    __test__ = True
    kernel_name = "rootcpp"
    language_name = "c++"
    file_extension = ".C"
    code_hello_world = 'std::cout << "hello, world" << std::endl;'
    code_stderr = 'std::cerr << "test" << std::endl;'
    completion_samples = [{"text": "gROOT->GetListOfCanv", "matches": {"gROOT->GetListOfCanvases"}}]  # noqa: RUF012
    code_display_data = [  # noqa: RUF012
        {"code": 'TCanvas c("c"); TH1F h("h", "h", 9, 0, 1); h.Draw(); c.Draw();', "mime": "text/html"}
    ]
    unsupported = {  # noqa: RUF012
        "test_clear_output": "C++ code cannot clear a cell's output",
        "test_error": "cling tells errors on stderr and answers ok",
        "test_execute_result": "cling prints results on stdout",
        "test_history": "ROOT's kernel keeps no history",
        "test_inspect": "ROOT's kernel knows no inspection",
        "test_is_complete": "ROOT's kernel calls all code incomplete",
        "test_pager": "ROOT's kernel has no pager",
    }


class Welcome(peer.IopubWelcomeTests):
    """Servers need not guess when the kernel's output channel is open."""

    __test__ = False
    support_iopub_welcome = True

    @classmethod
    def setUpClass(cls):
        """The suite wants the welcome to be first; what a kernel logs while it starts may come before it."""
        super().setUpClass()
        ask = cls.kc.get_iopub_msg

        def without_log():
            while True:
                message = ask(timeout=_PATIENCE_S)
                if message["msg_type"] != "stream":
                    return message

        cls.kc.get_iopub_msg = without_log


class TestWelcomeOfPyroot3(Welcome):
    __test__ = True
    kernel_name = "pyroot3"


class TestWelcomeOfRootcpp(Welcome):
    __test__ = True
    kernel_name = "rootcpp"
