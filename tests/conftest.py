"""Fixtures for every test: a clean environment, and tools that are asked for by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from s3_server import s3, s3_keys  # noqa: F401 - fixtures for all tests
from wanted import wanted

# Time says nothing on a shared machine; continuous integration tries the same examples each time.
settings.register_profile("afpub", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("afpub")


@pytest.fixture(autouse=True)
def _settled_environment(monkeypatch):
    """No test depends on the locale, the umask or the Jupyter and Apptainer settings of whoever runs it."""
    for name in tuple(os.environ):
        if name.startswith(("JUPYTER_", "APPTAINER", "SINGULARITY")) and name != "APPTAINER_TMPDIR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def require_tool() -> Callable[[str], Path]:
    """Gives the path of a program, see :func:`wanted.wanted`."""
    return wanted


@pytest.fixture
def require_root() -> None:
    """Skips the test, with the reason, for an ordinary user."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
