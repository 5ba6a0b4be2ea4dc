import socket
import subprocess

import pytest

from publisher import tools


def test_a_unit_test_cannot_start_a_program():
    with pytest.raises(AssertionError, match="move it to tests/compat"):
        subprocess.run(["true"], check=False)
    with pytest.raises(AssertionError, match="move it to tests/compat"):
        tools.run(["true"])


def test_a_unit_test_cannot_open_a_connection():
    with pytest.raises(AssertionError, match="move it to tests/compat"):
        socket.create_connection(("127.0.0.1", 9))
    with socket.socket() as one, pytest.raises(AssertionError, match="move it to tests/compat"):
        one.bind(("127.0.0.1", 0))
