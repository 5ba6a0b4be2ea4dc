"""A missing program must not make continuous integration look as if it tested."""

from __future__ import annotations

import pytest
import wanted as helper
from wanted import wanted


@pytest.fixture(autouse=True)
def _nothing_is_installed(monkeypatch):
    monkeypatch.setattr(helper.tools, "which", lambda _: None)


def test_what_the_set_up_installs_must_be_there(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"chromium is not installed, and \.ci/setup should"):
        wanted("chromium")


@pytest.mark.parametrize(("name", "ci"), [("chromium", ""), ("cvmfs2", "true")])
def test_elsewhere_the_reason_is_told(monkeypatch, name, ci):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.skip.Exception, match=f"the program {name} is not installed"):
        wanted(name)
