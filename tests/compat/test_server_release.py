"""Releases through a site's server: every command that a release manager and a site use."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from pathlib import Path

import pytest
from compat import small_project
from compat.small_project import FQRN
from server_standin import StandIn

from publisher import tools

pytestmark = [pytest.mark.images, pytest.mark.usefixtures("apptainer")]


@pytest.fixture
def apptainer(require_tool):
    require_tool("apptainer")


@pytest.fixture
def server(tmp_path):
    made = StandIn(tmp_path / "server", FQRN)
    made.create(user=pwd.getpwuid(os.geteuid()).pw_name)
    return made


@pytest.fixture
def project(tmp_path, server):
    made = small_project.make(tmp_path / "project")
    shutil.rmtree(made.repository)
    shutil.rmtree(made.root / "keys")
    text = f'fqrn = "{FQRN}"\nprefix = "/af"\nwork = "work"\nbackend = "cvmfs-server"\n'
    made.write("afpub.toml", f'{text}[server]\nconfig = "{server.root}/etc"\nprogram = "{server.program()}"\n')
    return made


def test_the_life_of_two_releases(project, server, tmp_path):
    done = project.release()
    assert (done["release"], done["revision"], done["new"], done["published"]["notes"]) == ("1.0", 2, True, [])
    assert done["repository"] == f"{server.storage}"
    assert 0 < done["published"]["open_seconds"] < done["published"]["seconds"]
    assert project.release()["new"] is False
    project.describe(version="1.1", channel="testing", content="1.1", image="1.1")
    assert project.json("plan", project.manifest)["images"][0]["action"] == "build"
    assert project.release()["revision"] == 3
    assert {row["version"] for row in project.json("list")["releases"]} == {"1.0", "1.1"}
    assert project.json("show", "testing")["version"] == "1.1"
    assert project.json("verify")["ok"]
    assert project.json("promote", "1.1", "stable")["revision"] == 4
    assert project.json("rollback", "stable")["release"] == "1.0"
    project.json("export", "testing", tmp_path / "copy")
    assert (tmp_path / "copy/channels/testing/release.json").is_file()
    assert [row["name"] for row in project.json("repo", "tag")["tags"] if row["name"].startswith("afpub")] == [
        "afpub-1.0",
        "afpub-1.1",
    ]
    assert (server.union / "af/channels/stable").readlink() == Path("../releases/1.0")
    assert not server.lock.exists()


def test_what_a_server_lacks_is_told_before_anything_is_built(project, server):
    assert tools.run([server.program(), "transaction", FQRN], check=False).ok
    answer = json.loads(project.run("release", project.manifest, "--json", ok=False).stdout)
    text = json.dumps(answer)
    assert "a transaction is open: opened by user" in text
    assert not (project.root / "work/images").exists()
    doctor = json.loads(project.run("doctor", "--json", ok=False).stdout)
    assert "a transaction is open: opened by user" in json.dumps(doctor)


def test_what_belongs_to_the_server_is_left_to_it(project):
    done = project.run("repo", "gc", ok=False)
    assert "belongs to cvmfs_server, which does this itself" in done.tail
