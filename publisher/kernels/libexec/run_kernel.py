"""run_kernel.py PACKAGES ARGUMENT... - becomes the kernel that `python ARGUMENT...` would be, with two things more.

PACKAGES is a folder, or empty: the ipykernel that the Python of a release lacks. It comes last in the search path, behind
the release's packages and the user's own, and what the kernel starts does not see it. And what the launcher noticed is
shown once, on stderr of the first cell that is run, by every kernel that is built on ipykernel, whatever its language.
Runs in any Python from 2.7 on; what it is called with begins with -m, -c or the name of a file.
"""

import importlib
import os
import runpy
import sys

sys.path[0] = ""  # as it is for -m and -c, not the folder of this file
sys.path += sys.argv[1:2] if sys.argv[1] else []
try:
    Kernel = importlib.import_module("ipykernel.kernelbase").Kernel
except ImportError:
    Kernel = None  # of another make


def show(notice):
    """Shows a text when the first cell is run."""
    execute = Kernel.execute_request
    waiting = [notice]

    def execute_request(self, stream, ident, parent):
        if waiting and not parent["content"].get("silent"):
            self.send_response(self.iopub_socket, "stream", {"name": "stderr", "text": waiting.pop() + "\n"})
        return execute(self, stream, ident, parent)

    Kernel.execute_request = execute_request


def become(words):
    """Runs what Python is called with."""
    if words[0] == "-c":
        sys.argv = ["-c"] + words[2:]
        exec(words[1], {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if Kernel and os.environ.get("AFPUB_NOTICE"):
    show(os.environ["AFPUB_NOTICE"])
become(sys.argv[2:])
