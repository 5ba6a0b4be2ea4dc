"""Programs that tests need."""

from __future__ import annotations

import os
from pathlib import Path

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
        reason = f"the program {name} is not installed"
        if os.environ.get("CI") and name in _SET_UP:
            pytest.fail(f"{reason}, and .ci/setup should have seen to it")
        pytest.skip(reason)
    return found
