"""What the probe has kernels do."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from publisher.kernels.session import SLEEPERS

HEARS_IT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
OTHER_THREAD_GETS_IT = f"""
{HEARS_IT}import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
"""
"""As if the signal came just before the main thread falls asleep: Python knows of it, but nothing wakes that thread."""


@pytest.mark.parametrize("before", [HEARS_IT, OTHER_THREAD_GETS_IT], ids=["asleep", "about to sleep"])
def test_an_interrupt_is_never_slept_through(before):
    with subprocess.Popen(
        [sys.executable, "-c", before + SLEEPERS["python"]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "asleep\n"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert "KeyboardInterrupt" in said
