"""One line of a kernel names a release of ATLAS; everything else follows from it."""

from __future__ import annotations

import shutil

import pytest
from unit.project.test_load import complaint, edit

from publisher.names import ImageName, KernelName
from publisher.project.atlas import AtlasRelease
from publisher.project.load import load_project, needed_images
from publisher.project.manifest import load_manifest
from publisher.report import Severity
from publisher.validation.systems import check_systems

DEBIAN = "Debian GNU/Linux 12 (bookworm)"
PYROOT2 = KernelName("pyroot2")


@pytest.mark.parametrize(
    ("text", "series", "python", "system"),
    [
        ("AnalysisBase,21.2.111", "21.2", "2.7", "CentOS 7"),
        ("21.2.111,AnalysisBase,here", "21.2", "2.7", "CentOS 7"),
        ("AnalysisBase,22.2.110", "22.2", "3", "CentOS 7"),
        ("AnalysisBase,24.2.40", "24.2", "3", "Enterprise Linux 9"),
        ("Athena 25.0.3", "25.0", "3", "Enterprise Linux 9"),
        ("AnalysisBase,main,latest", "", "3", "Enterprise Linux 9"),
    ],
)
def test_what_a_name_tells(text, series, python, system):
    release = AtlasRelease(text=text)
    assert (release.series, release.python, release.system) == (series, python, system)


@pytest.mark.parametrize(
    ("os_name", "runs"),
    [
        ("AlmaLinux 9.4 (Seafoam Ocelot)", True),
        ("Red Hat Enterprise Linux 9.2 (Plow)", True),
        ("CentOS Stream 9", True),
        ("CentOS Linux 7 (Core)", False),
        (DEBIAN, False),
    ],
)
def test_the_system_that_a_release_is_made_for(os_name, runs):
    assert AtlasRelease(text="AnalysisBase,25.2.2").runs_on(os_name) is runs


@pytest.fixture
def clone(tmp_path, pytestconfig):
    """What the demonstration's release manager wrote."""
    for name in ("kernelspecs", "manifests"):
        shutil.copytree(pytestconfig.rootpath / name, tmp_path / name)
    shutil.copy(pytestconfig.rootpath / "afpub.toml", tmp_path)
    return tmp_path


def released(clone):
    """The kernel ``pyroot2`` and the images of the demonstration's release."""
    manifest = load_manifest(clone / "manifests/demo.toml")
    kernels = load_project(clone).kernels_of(manifest)
    kernel = next(kernel for kernel in kernels if kernel.name == PYROOT2)
    return kernel, [image.name for image in needed_images(manifest, kernels)]


def test_the_demonstrations_kernel_is_for_python_2(clone):
    kernel, images = released(clone)
    assert (kernel.display_name, kernel.command[0], kernel.python_ver, kernel.packages) == (
        "PyROOT (Python 2.7, AnalysisBase)",
        "python2.7",
        "2",
        None,
    )
    assert images == ["python27", "python3-ml", "root"]


@pytest.mark.parametrize("release", ["AnalysisBase,24.2.40", "AnalysisBase,25.2.2"])
def test_a_release_with_python_3_is_one_line(clone, release):
    edit(clone / "kernelspecs/pyroot2/kernel.toml", '"AnalysisBase,21.2.111"', f'"{release}"')
    kernel, images = released(clone)
    assert (kernel.display_name, kernel.command[0], kernel.python_ver, kernel.packages) == (
        "PyROOT (Python 3, AnalysisBase)",
        "python3",
        "3",
        "kernel-packages",
    )
    assert images == ["kernel-packages", "python27", "python3-ml", "root"]


def test_a_series_may_want_another_image(clone):
    file = clone / "kernelspecs/pyroot2/kernel.toml"
    file.write_text(f'{file.read_text()}\n[image_for]\n"25.2" = "root"\n')
    assert released(clone)[0].image == "python27"
    edit(file, '"AnalysisBase,21.2.111"', '"AnalysisBase,25.2.2"')
    assert released(clone)[0].image == "root"
    edit(file, '"25.2" = "root"', '"25.2.2" = "root"')
    message, hint = complaint(lambda: released(clone))
    assert (message, hint) == (f"{file}: [image_for]: '25.2.2' is no series of releases", 'such as "25.2"')


def test_a_kernel_without_a_release_has_no_python_of_one(clone):
    edit(clone / "kernelspecs/pyroot3/kernel.toml", '"PyROOT (Python 3)"', '"PyROOT (Python {python})"')
    message, hint = complaint(lambda: released(clone))
    assert message.endswith("'image_for' and '{python}' go by the release of ATLAS, and the kernel sets none up")
    assert hint == 'name it: analysisbase = "AnalysisBase,21.2.111"'


def test_what_a_release_lacks_is_told(clone):
    file = clone / "manifests/demo.toml"
    edit(clone / "kernelspecs/pyroot2/kernel.toml", '"AnalysisBase,21.2.111"', '"AnalysisBase,25.2.2"')
    edit(file, file.read_text()[file.read_text().index("[images.kernel-packages]") :], "")
    kernel, _ = released(clone)
    report = check_systems([kernel], {ImageName("python27"): DEBIAN})
    assert [(finding.severity, finding.message) for finding in report.findings] == [
        (
            Severity.NOTE,
            (
                f"AnalysisBase,25.2.2 is made for Enterprise Linux 9, and the image python27 is {DEBIAN}; "
                'where it does not work there, name an image that is: [image_for] "25.2" = "NAME"'
            ),
        ),
        (
            Severity.WARNING,
            "AnalysisBase,25.2.2 brings a Python 3 without ipykernel, and no image of the release has one for it",
        ),
    ]
    assert check_systems([kernel], {ImageName("python27"): "AlmaLinux 9.4"}).findings == report.findings[1:]
