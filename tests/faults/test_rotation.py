"""A key rotation that is killed anywhere leaves a repository that clients trust, and is finished by the next one."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import cvmfs_repository as repository
from cvmfs_repository import file, graft

from publisher import tools

HERE = Path(__file__).parent
BETWEEN = ["the digest of the reflog is not that in the manifest"]


def test_killed_at_every_step(tmp_path):
    repo = repository.make(tmp_path / "repo")
    repo.publish(graft("/sw/two", file("f", b"two"), catalogs=("",)))
    shutil.copytree(repo.keys, tmp_path / "keys")
    path = os.pathsep.join((str(HERE.parent), str(HERE.parent.parent)))
    argv = [sys.executable, HERE / "rotation_killer.py", tmp_path]
    lines = tools.run(argv, env={**os.environ, "PYTHONPATH": path}, timeout_s=500).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    assert [result["killed"] for result in results] == [True] * (len(results) - 1) + [False]
    assert len(results) > 15
    for result in results:
        assert result["after"]["errors"] in ([], BETWEEN), result["steps"]
        assert result["right"], result["steps"]
        assert (result["end"]["errors"], result["end"]["revision"]) == ([], 3), result["steps"]
        suffixes = [name.removeprefix(repository.FQRN) for name in result["keys"]]
        assert suffixes == [".crt", ".key", ".masterkey", ".pub"], result["steps"]
