from __future__ import annotations

from pathlib import Path

import pytest

from publisher.errors import BuildError, DiskError
from publisher.images.apptainer import build_failure, own_environment

LOG = Path("/w/x.log")
FATAL = "FATAL:   While performing build: while running engine: while running "


@pytest.mark.parametrize(
    ("fatal", "message"),
    [
        (
            f"{FATAL}%post section: exit status 7",
            "the image x: %post failed with exit code 7",
        ),
        (
            "FATAL:   While performing build: failed to execute %test script: exit status 1",
            "the image x: %test failed with exit code 1",
        ),
        ("FATAL:   no such image", "the image x could not be built: no such image"),
        ("", "the image x could not be built"),
    ],
)
def test_a_failure_says_which_section_failed_and_how(fatal, message):
    error = build_failure("the image x", f"INFO:    Starting\n+ false\nlast words\n{fatal}".rstrip(), log=LOG)
    assert type(error) is BuildError
    assert (error.message, error.hint) == (message, "all of its output: /w/x.log")
    assert error.detail.splitlines()[:2] == ["+ false", "last words"]


@pytest.mark.parametrize("words", ["No space left on device", "write: no space left on device", "Disk quota exceeded"])
def test_a_full_disk_is_called_so(words):
    error = build_failure("the image x", f"dpkg: {words}\nFATAL:   x", log=LOG)
    assert type(error) is DiskError
    assert error.message == "the disk is full: the image x could not be built"


def test_settings_of_the_user_do_not_reach_the_build(monkeypatch):
    for name in (
        "APPTAINERENV_SECRET",
        "SINGULARITY_BIND",
        "APPTAINER_NO_PRIVS",
        "APPTAINER_CACHEDIR",
        "HOME",
    ):
        monkeypatch.setenv(name, "x")
    environment = own_environment({"APPTAINERENV_PIP_CERT": "y"})
    assert environment["APPTAINERENV_PIP_CERT"] == "y"
    assert environment["APPTAINER_CACHEDIR"] == environment["HOME"] == "x"
    assert not {"APPTAINERENV_SECRET", "SINGULARITY_BIND", "APPTAINER_NO_PRIVS"} & set(environment)
