"""A tree that was published by hand, taken over, replaced by a release, and still there for who knows its old paths."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from compat import machine_image, small_project
from compat.machine_image import IPYKERNEL
from compat.small_project import FQRN, SmallProject

from publisher import tools
from publisher.cvmfs.check import check
from publisher.cvmfs.export import export
from publisher.cvmfs.reader import open_repository
from publisher.names import RepoPath
from publisher.progress import Silent

pytestmark = pytest.mark.images

OLD = "jupyter/t3s"
LAUNCH = """\
#!/bin/bash
export PYTHON_VER=$1; shift
test -e ~/notebooks/.user_setups && . ~/notebooks/.user_setups
exec apptainer exec --bind /tmp {image} "$@"
"""


@pytest.fixture
def by_hand(tmp_path, require_tool):
    """What somebody has put together: an unpacked image, a kernelspec, and the script between them."""
    require_tool("apptainer")
    tree = tmp_path / "t3s"
    image = machine_image.publish(tmp_path / "made").prefix / "images/machine/1"
    (image / ".singularity.d").mkdir()
    shutil.copytree(image, tree / "slac/singularity/analysis", symlinks=True)
    launch = tree / "common/launch/python.sh"
    launch.parent.mkdir(parents=True)
    launch.write_text(LAUNCH.format(image=tree / "slac/singularity/analysis"))
    launch.chmod(0o755)
    for name, argv in (
        ("python", [f"{launch}", "3", *IPYKERNEL]),
        ("broken", ["/no/such/python", "{connection_file}"]),
    ):
        folder = tree / "common/kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": argv, "display_name": f"By hand: {name}", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
    return tree


@pytest.fixture
def project(tmp_path, by_hand):
    """The adopted project; the tree is in its repository, as it was put there by hand."""
    made = SmallProject(root=tmp_path / "project")
    made.root.mkdir()
    made.run("repo", "create", FQRN, "--at", "repository", "--keys", "keys")
    made.run("repo", "publish", by_hand, f"/{OLD}", "--repo", "repository", "--keys", "keys")
    made.run("adopt", by_hand, "--fqrn", FQRN, "--at", f"/{OLD}", "--prefix", "/af")
    return made


def test_adopting_says_what_is_wrong_and_what_becomes_of_everything(project, by_hand):
    again = project.root / "again"
    words = ("adopt", by_hand, "--fqrn", FQRN, "--at", f"/{OLD}", "--into", again)
    document = project.json(*words)
    assert [(row["check"], row["where"]) for row in document["findings"] if row["severity"] == "error"] == [
        ("program", "common/kernels/broken"),
        ("image-shell", "slac/singularity/analysis"),
    ]
    shown = project.run(*words[:-1], project.root / "shown")
    assert "error common/kernels/broken: argv begins with /no/such/python, which is not there" in shown.tail
    assert "kernelspecs/python" in shown.stdout
    assert project.run(*words, ok=False).returncode == 2, "nothing is overwritten"


def overwritten_alias_is_found(project, tmp_path):
    (tmp_path / "other").mkdir()
    project.run(
        "repo", "publish", tmp_path / "other", f"/{OLD}/common/kernels/python", "--repo", "repository", "--keys", "keys"
    )
    found = project.json("verify", ok=False)["findings"]
    assert [(row["check"], row["where"]) for row in found if row["severity"] == "error"] == [
        ("alias", f"/{OLD}/common/kernels/python")
    ]


def test_a_release_takes_the_place_of_the_tree_and_the_old_paths_stay(project, tmp_path):
    assert project.json("check")["ok"]
    done = project.json("release", "manifests/adopted.toml")
    assert (done["kernels"], done["new"]) == (["python"], True)
    with open_repository(project.repository, public_key=project.public_key.read_bytes()) as reader:
        kernel = reader.lookup(f"/{OLD}/common/kernels/python")
        image = reader.lookup(f"/{OLD}/slac/singularity/analysis")
        assert kernel.entry.target == "../../../../af/channels/testing/share/jupyter/kernels/python"
        assert image.entry.target.startswith("../../../../af/images/analysis/")
        assert reader.lookup(f"/{OLD}/common/kernels/broken/kernel.json") is not None, "what was not taken over stays"
        export(reader, RepoPath(""), tmp_path / "mount", progress=Silent())
    assert check(project.repository, public_key=project.public_key.read_bytes()).ok
    assert project.json("verify")["ok"]

    old = tmp_path / "mount" / OLD / "common/kernels/python"
    assert json.loads((old / "kernel.json").read_text())["display_name"] == "By hand: python"
    (tmp_path / "kernel-1.json").write_text("{}")
    shown = tools.run([old / "launch", tmp_path / "kernel-1.json"], env={**os.environ, "AFPUB_SHOW": "1"}).stdout
    assert f"{tmp_path}/mount/af/images/analysis/" in shown

    assert project.json("release", "manifests/adopted.toml")["new"] is False
    overwritten_alias_is_found(project, tmp_path)


def test_a_path_that_gives_away_its_repository(project, tmp_path):
    """Below /cvmfs the repository and the place in it are read from the path."""
    done = project.run("adopt", "/cvmfs/atlas.example.org/none", ok=False)
    assert "/cvmfs/atlas.example.org/none is no folder" in done.tail
    (tmp_path / "elsewhere").mkdir()
    done = tools.run([small_project._AFPUB, "adopt", tmp_path / "elsewhere"], cwd=tmp_path / "elsewhere", check=False)
    assert "which repository is the tree in?" in done.tail
