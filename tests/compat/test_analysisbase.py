"""AnalysisBase in the image ``python27``: a made-up /cvmfs/atlas.cern.ch, and the real Python 2.7 and 3.

The look-alike does as ATLASLocalRootBase does: ``asetup`` is an alias, and a release brings a Python of its own, with
a module that only it has and without a kernel: 21.2.111 Python 2.7, 25.2.2 Python 3 alone.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from compat.machine_image import Published, write
from compat.notebook import run_cell, started
from compat.real_images import wheel
from wanted import wanted

from publisher import tools
from publisher.kernels.render import render_release
from publisher.names import ImageName, ImageVersion, KernelName, ReleaseVersion
from publisher.project.load import load_project
from publisher.project.manifest import load_manifest

pytestmark = pytest.mark.images

SETUP = "alias asetup='source $ATLAS_LOCAL_ROOT_BASE/asetup.sh'\n"
ASETUP = """
echo "Using $1"
case $1 in
AnalysisBase,21.2.111) python=2.7 ;;
AnalysisBase,25.2.2) python=3 ;;
*) echo "no release $1"; return 2 ;;
esac
export AtlasProject=AnalysisBase AnalysisBase_DIR=/cvmfs/atlas.cern.ch/$python AtlasVersion=${1#*,}
export PATH=$AnalysisBase_DIR/bin:$PATH PYTHONPATH=$AnalysisBase_DIR/python JUPYTER_CONFIG_DIR=$AnalysisBase_DIR/etc
"""
DEBIAN = "Debian GNU/Linux 12 (bookworm)"
KERNEL = KernelName("pyroot2")


def root_file_system(request, image):
    """The root file system of an image of the project, built if need be."""
    wanted("apptainer")
    images = request.config.rootpath / "build/afpub/images" / image
    if not images.is_dir():
        request.getfixturevalue("demo")
    return next(path for path in images.glob("*/rootfs")).resolve()


@pytest.fixture(scope="module")
def rootfs(request):
    """The image that the kernel runs in."""
    return root_file_system(request, "python27")


@pytest.fixture(scope="module")
def root_packages(request):
    """ipykernel for Python 3.11, as the image ``kernel-packages`` has it: the same packages."""
    return root_file_system(request, "root") / "usr/local/lib/python3.11/dist-packages"


@pytest.fixture
def atlas(tmp_path, rootfs):
    """What is bound as /cvmfs/atlas.cern.ch."""
    root = tmp_path / "atlas"
    alrb = root / "repo/ATLASLocalRootBase"
    (alrb / "user").mkdir(parents=True)
    (alrb / "user/atlasLocalSetup.sh").write_text(SETUP)
    (alrb / "asetup.sh").write_text(ASETUP)
    for python, program, folder in (("2.7", "python2.7", "python2.7"), ("3", "python3", "python3.11")):
        for name in ("bin", "lib", "python"):
            (root / python / name).mkdir(parents=True)
        shutil.copy(rootfs / "usr/bin" / folder, root / python / "bin" / program)
        (root / python / "lib" / folder).symlink_to(f"/usr/lib/{folder}")
        (root / python / "python/only_in_atlas.py").write_text("WHAT = 'AnalysisBase'\n")
    return root


@pytest.fixture
def site(tmp_path, rootfs, atlas, monkeypatch):
    """A site that has the look-alike, with nothing published yet."""
    (tmp_path / "site.conf").write_text(f"BIND={atlas}:/cvmfs/atlas.cern.ch\n")
    monkeypatch.setenv("AFPUB_SITE_CONF", str(tmp_path / "site.conf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    prefix = tmp_path / "af"
    add_image(prefix, "python27", rootfs)
    (prefix / "channels").mkdir()
    (prefix / "channels/stable").symlink_to("../releases/2026.11.1")
    return Published(prefix=prefix)


def add_image(prefix, name, rootfs):
    (prefix / "images" / name).mkdir(parents=True)
    (prefix / "images" / name / "1").symlink_to(rootfs)


@pytest.fixture
def published(site, pytestconfig):
    """The project's own PyROOT kernel for Python 2.7."""
    return publish(site, load_project(pytestconfig.rootpath).kernel(KERNEL))


def publish(site, kernel):
    versions = {ImageName(path.name): ImageVersion("1") for path in (site.prefix / "images").iterdir()}
    release = ReleaseVersion("2026.11.1")
    write(render_release([kernel], images=versions, release=release), site.prefix / "releases" / release)
    return site


@pytest.fixture
def kernel_packages(site, tmp_path, root_packages):
    """The folder with ipykernel for Python 3.11 of the image ``kernel-packages``, which is published."""
    overlay = tmp_path / "kernel-packages/opt/afpub/overlay"
    overlay.mkdir(parents=True)
    (overlay / "3.11").symlink_to(root_packages)
    add_image(site.prefix, "kernel-packages", tmp_path / "kernel-packages")
    return f"{site.prefix}/images/kernel-packages/1/opt/afpub/overlay/3.11"


@pytest.fixture
def newer(site, pytestconfig, tmp_path, kernel_packages):
    """The same, after the one line with the release has been changed."""
    project, manifest = tmp_path / "project", "manifests/demo.toml"
    for name in ("afpub.toml", "kernelspecs/pyroot2", manifest):
        source = pytestconfig.rootpath / name
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, project / name)
    lines = (project / "kernelspecs/pyroot2/kernel.toml").read_text()
    assert lines.count("AnalysisBase,21.2.111") == 1
    changed = lines.replace("AnalysisBase,21.2.111", "AnalysisBase,25.2.2")
    (project / "kernelspecs/pyroot2/kernel.toml").write_text(changed)
    released = replace(load_manifest(project / manifest), kernels=(KERNEL,))
    (kernel,) = load_project(project).kernels_of(released)
    return publish(site, kernel)


def printed(client, code):
    shown = run_cell(client, code)
    assert shown.reply["status"] == "ok", shown.messages
    return "".join(text for _, text in shown.streams)


def test_kernel_runs_in_the_python_of_the_release(published, tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/.user_setups").write_text("export MINE=$PYTHON_VER\n")
    with started(published, "pyroot2") as (_, client):
        code = "import sys, os, only_in_atlas, metakernel, ipykernel; print sys.prefix, only_in_atlas.WHAT"
        assert printed(client, code) == "/cvmfs/atlas.cern.ch/2.7 AnalysisBase\n"
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


def test_another_release_with_python_3_is_one_line(newer, kernel_packages):
    with started(newer, "pyroot2") as (manager, client):
        assert manager.kernel_spec.display_name == "PyROOT (Python 3, AnalysisBase)"
        code = "import sys, os, only_in_atlas, metakernel, ipykernel; print(sys.prefix, only_in_atlas.WHAT)"
        assert printed(client, code) == "/cvmfs/atlas.cern.ch/3 AnalysisBase\n"
        assert printed(client, "print(ipykernel.__file__)") == f"{kernel_packages}/ipykernel/__init__.py\n"
        assert printed(client, "print(os.environ['PYTHON_VER'])") == "3\n"


def test_a_release_with_python_3_that_the_users_own_file_sets_up(published, kernel_packages, tmp_path):
    (tmp_path / "notebooks").mkdir()
    alrb = "export ATLAS_LOCAL_ROOT_BASE=/cvmfs/atlas.cern.ch/repo/ATLASLocalRootBase"
    lines = (alrb, "shopt -s expand_aliases", ". $ATLAS_LOCAL_ROOT_BASE/user/atlasLocalSetup.sh", "asetup {}", "")
    for release, python in (("AnalysisBase,21.2.111", "2.7"), ("AnalysisBase,25.2.2", "3")):
        (tmp_path / "notebooks/.user_setups").write_text("\n".join(lines).format(release))
        with started(published, "pyroot2") as (_, client):
            code = "import sys, only_in_atlas, ipykernel; print('%s %s' % (sys.prefix, ipykernel.__file__))"
            prefix, file = printed(client, code).split()
            assert prefix == f"/cvmfs/atlas.cern.ch/{python}"
            assert file.startswith(kernel_packages if python == "3" else "/usr/local/lib/python2.7/")


def test_a_release_that_cannot_be_set_up_tells_which_system_it_is_made_for(published, atlas):
    (atlas / "repo/ATLASLocalRootBase/asetup.sh").write_text("echo no platform; return 3\n")
    with started(published, "pyroot2") as (_, client):
        assert (
            run_cell(client, "1")
            .reply["evalue"]
            .startswith(
                "asetup AnalysisBase,21.2.111 failed (code 3; AnalysisBase,21.2.111 is made for CentOS 7, "
                f"and this is {DEBIAN}): the kernel 'PyROOT (Python 2.7, AnalysisBase)' was not started; "
            )
        )


def test_without_atlas_a_kernel_for_python_3_starts_in_that_of_the_image(newer, tmp_path, kernel_packages):
    (tmp_path / "site.conf").write_text("")
    with started(newer, "pyroot2") as (_, client):
        code = "import sys, ipykernel; print(sys.prefix, ipykernel.__file__)"
        assert printed(client, code) == f"/usr {kernel_packages}/ipykernel/__init__.py\n"


def test_release_comes_before_the_users_packages_and_they_before_the_kernels(newer, atlas, tmp_path):
    launch = newer.kernel("pyroot2") / "launch"
    for name in ("ptyprocess", "only_in_atlas"):
        own = wheel(tmp_path, name, version="99.0")
        tools.run([launch, "--run", "/usr/bin/python3.11", "-m", "pip", "install", "--user", own], env=dict(os.environ))
    with started(newer, "pyroot2") as (_, client):
        code = "import ptyprocess, only_in_atlas; print(ptyprocess.version, only_in_atlas.__file__)"
        assert printed(client, code) == "99.0 /cvmfs/atlas.cern.ch/3/python/only_in_atlas.py\n"
        outside = "import subprocess, sys; print(subprocess.call([sys.executable, '-c', 'import {}'], stderr=-3))"
        assert [printed(client, outside.format(name)) for name in ("ptyprocess", "ipykernel")] == ["0\n", "1\n"]
