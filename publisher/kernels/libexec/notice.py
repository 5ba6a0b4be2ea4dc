"""Shows what the launcher noticed, once: on stderr of the first cell that a user runs. Executed in IPython."""

import os
import sys


def show(*_):
    shell.events.unregister("pre_run_cell", show)
    sys.stderr.write(os.environ.get("AFPUB_NOTICE", "") + "\n")


shell.events.register("pre_run_cell", show)
