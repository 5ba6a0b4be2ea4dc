"""Programs that tests need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from publisher import tools

_SET_UP = {"apache2", "apptainer", "busybox", "chromium", "nginx", "weed"}
"""What ``.ci/setup`` sees to: with these missing, continuous integration would only look as if it tested."""


def wanted(name: str, found: Path | None = None) -> Path:
    """The path of a program; where it is not installed the test is skipped, with the reason, or fails if it must be.

    Args:
        name: the program.
        found: where it is, if that is not a matter of ``PATH``.
    """
    found = found or tools.which(name)
    if found is None:
        missing(name, f"the program {name} is not installed")
    return found


def missing(name: str, reason: str) -> NoReturn:
    """Skips the test for want of a program, or fails it where the program must be there."""
    if os.environ.get("CI") and name in _SET_UP:
        pytest.fail(f"{reason}, and .ci/setup should have seen to it")
    pytest.skip(reason)
