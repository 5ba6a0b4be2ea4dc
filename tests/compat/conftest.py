"""The demonstration, released once for all tests that look at it."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.demo import Demo, release_demo
from wanted import wanted

from publisher.cvmfs.serve import serving


@pytest.fixture(scope="session")
def demo(tmp_path_factory, pytestconfig) -> Demo:
    """A repository with the demonstration release, made by the real program from the real recipes."""
    wanted("apptainer")
    return release_demo(pytestconfig.rootpath, tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def demo_url(demo):
    """The address at which the demonstration's repository is served."""
    with serving({demo.fqrn: demo.repository}) as url:
        yield f"{url}/cvmfs/{demo.fqrn}"


@pytest.fixture(scope="session")
def published_jupyter_path(demo, demo_url, tmp_path_factory) -> Path:
    """What a site without a CVMFS client puts into JUPYTER_PATH: a copy that came over HTTP."""
    folder = tmp_path_factory.mktemp("site") / "copy"
    place = ["--from", demo_url, "--key", demo.public_key]
    return Path(demo.json("export", demo.outcome["channel"], folder, *place)["jupyter_path"])
