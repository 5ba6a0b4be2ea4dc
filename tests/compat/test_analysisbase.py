"""AnalysisBase for Python 2.7 in the image ``python27``: a made-up /cvmfs/atlas.cern.ch, and the real Python 2.7.

The look-alike does as ATLASLocalRootBase does: ``asetup`` is an alias, and the release brings a Python of its own, with
a module that only it has and without a kernel.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from compat.machine_image import Published, write
from compat.notebook import run_cell, started

from publisher import tools
from publisher.kernels.render import render_release
from publisher.names import ImageName, ImageVersion, KernelName, ReleaseVersion
from publisher.project.load import load_project

pytestmark = pytest.mark.images

SETUP = "alias asetup='source $ATLAS_LOCAL_ROOT_BASE/asetup.sh'\n"
ASETUP = """
echo "Using $1"
[ "$1" = AnalysisBase,21.2.111 ] || { echo "no release $1"; return 2; }
export AtlasProject=AnalysisBase AnalysisBase_DIR=/cvmfs/atlas.cern.ch/release
export PATH=$AnalysisBase_DIR/bin:$PATH JUPYTER_CONFIG_DIR=$AnalysisBase_DIR/etc
"""


@pytest.fixture(scope="module")
def rootfs(request):
    """The root file system of the image ``python27``, built if need be."""
    if tools.which("apptainer") is None:
        pytest.skip("the program apptainer is not installed")
    images = request.config.rootpath / "build/afpub/images/python27"
    if not images.is_dir():
        request.getfixturevalue("demo")
    return next(path for path in images.glob("*/rootfs"))


@pytest.fixture
def atlas(tmp_path, rootfs):
    """What is bound as /cvmfs/atlas.cern.ch."""
    root = tmp_path / "atlas"
    alrb, release = root / "repo/ATLASLocalRootBase", root / "release"
    (alrb / "user").mkdir(parents=True)
    (alrb / "user/atlasLocalSetup.sh").write_text(SETUP)
    (alrb / "asetup.sh").write_text(ASETUP)
    (release / "bin").mkdir(parents=True)
    shutil.copy(rootfs / "usr/bin/python2.7", release / "bin/python2.7")
    (release / "lib").mkdir()
    (release / "lib/python2.7").symlink_to("/usr/lib/python2.7")
    own = release / "local/lib/python2.7/dist-packages"
    own.mkdir(parents=True)
    (own / "only_in_atlas.py").write_text("WHAT = 'AnalysisBase'\n")
    return root


@pytest.fixture
def published(tmp_path, rootfs, atlas, pytestconfig, monkeypatch):
    """The project's own PyROOT kernel for Python 2.7, at a site that has the look-alike."""
    (tmp_path / "site.conf").write_text(f"BIND={atlas}:/cvmfs/atlas.cern.ch\n")
    monkeypatch.setenv("AFPUB_SITE_CONF", str(tmp_path / "site.conf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    kernel = load_project(pytestconfig.rootpath).kernel(KernelName("pyroot2"))
    release, prefix = ReleaseVersion("2026.11.1"), tmp_path / "af"
    versions = {ImageName("python27"): ImageVersion("1")}
    write(render_release([kernel], images=versions, release=release), prefix / "releases" / release)
    (prefix / "images/python27").mkdir(parents=True)
    (prefix / "images/python27/1").symlink_to(rootfs.resolve())
    (prefix / "channels").mkdir()
    (prefix / "channels/stable").symlink_to(f"../releases/{release}")
    return Published(prefix=prefix)


def printed(client, code):
    shown = run_cell(client, code)
    assert shown.reply["status"] == "ok", shown.messages
    return "".join(text for _, text in shown.streams)


def test_kernel_runs_in_the_python_of_the_release(published, tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/.user_setups").write_text("export MINE=$PYTHON_VER\n")
    with started(published, "pyroot2") as (_, client):
        code = "import sys, os, only_in_atlas, metakernel, ipykernel; print sys.prefix, only_in_atlas.WHAT"
        assert printed(client, code) == "/cvmfs/atlas.cern.ch/release AnalysisBase\n"
        code = "print os.environ['MINE'], os.environ.get('JUPYTER_CONFIG_DIR'), ipykernel.__file__.split('/')[1:3]"
        assert printed(client, code) == "2 None ['usr', 'local']\n"
        assert printed(client, "print open(os.environ['AFPUB_ASETUP_LOG']).read()").startswith(
            "Using AnalysisBase,21.2.111\n"
        )
        assert "release 2026.11.1." in client.kernel_info(reply=True, timeout=30)["content"]["banner"]


def test_asetup_that_fails_is_told_by_the_images_python27(published, monkeypatch):
    monkeypatch.setenv("AFPUB_ASETUP", "AnalysisBase,99.9")
    with started(published, "pyroot2") as (_, client):
        assert client.kernel_info(reply=True, timeout=30)["content"]["implementation"] == "afpub-message"
        shown = run_cell(client, "1")
        assert shown.reply["evalue"].startswith(
            "asetup AnalysisBase,99.9 failed (code 2): the kernel 'PyROOT (Python 2.7, AnalysisBase)' was not started; "
            "all that it printed is in "
        )
        log = Path(shown.reply["evalue"].rpartition(" ")[2])
        assert log.read_text() == "Using AnalysisBase,99.9\nno release AnalysisBase,99.9\n"


def test_without_atlas_the_kernel_starts_in_the_images_python(published, tmp_path):
    (tmp_path / "site.conf").write_text("")
    with started(published, "pyroot2") as (_, client):
        assert printed(client, "import sys; print sys.prefix") == "/usr\n"
