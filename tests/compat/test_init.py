"""A new project, as `afpub init` writes it, releases unchanged."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from publisher import tools
from publisher.cvmfs.reader import open_repository

pytestmark = pytest.mark.images
AFPUB = Path(sys.executable).with_name("afpub")


def test_a_new_project_releases_as_it_is(require_tool, tmp_path):
    require_tool("apptainer")
    root = tmp_path / "kernels"

    def afpub(*words):
        done = tools.run([AFPUB, *words], cwd=root, env=dict(os.environ), check=False, timeout_s=900)
        assert done.ok, done.tail
        return done

    tools.run([AFPUB, "init", root, "--fqrn", "kernels.example.org"], cwd=tmp_path)
    assert json.loads(afpub("check", "--json").stdout)["ok"] is True
    afpub("repo", "create", "kernels.example.org", "--at", "repository", "--keys", "keys")
    done = json.loads(afpub("release", "manifests/first.toml", "--json").stdout)
    assert (done["kernels"], done["channel"], done["new"]) == (["analysis"], "testing", True)
    with open_repository(root / "repository") as reader:
        record = b"".join(reader.read(f"/jupyter/releases/{done['release']}/release.json")).decode()
        published = {stored.path for stored in reader.walk(f"/jupyter/releases/{done['release']}")}
    assert "atlas" not in record.lower()
    assert any(path.endswith("kernels/analysis/kernel.json") for path in published)
