from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from publisher.kernels.render import BIN, KERNELS, render_kernel, render_libexec, render_release
from publisher.names import ImageName, ImageVersion, KernelName, ReleaseVersion
from publisher.project.kernel import HelpLink, KernelDefinition, SetupStep, load_kernel
from publisher.project.settings import Links
from publisher.tree import Kind, pre_order

RELEASE = ReleaseVersion("2026.11.1")
IMAGES = {ImageName("root"): ImageVersion("2026.11.0"), ImageName("overlay"): ImageVersion("3")}
KERNELSPECS = Path(__file__).parents[3] / "kernelspecs"


@pytest.fixture
def kernel(tmp_path):
    def make(**values):
        logo = tmp_path / "logo-64x64.png"
        logo.write_bytes(b"png")
        settings = {
            "name": KernelName("pyroot3"),
            "display_name": "PyROOT “3”",
            "language": "python",
            "image": ImageName("root"),
            "command": ("python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"),
            "logos": (logo,),
            **values,
        }
        return KernelDefinition(folder=tmp_path, **settings)

    return make


def files(kernel, **values):
    entries = render_kernel(kernel, release=RELEASE, images=IMAGES, **values)
    return {entry.path: entry for entry in entries}


def conf(kernel):
    rows = files(kernel)["kernel.conf"].content.decode().splitlines()
    return [row for row in rows if not row.startswith("#")]


def test_kernel_json_is_deterministic_and_has_no_environment(kernel):
    content = files(kernel(debugger=True, description="ROOT"))["kernel.json"].content
    assert content.decode() == (
        "{\n"
        ' "argv": [\n  "{resource_dir}/launch",\n  "{connection_file}"\n ],\n'
        ' "display_name": "PyROOT “3”",\n'
        ' "env": {},\n'
        ' "language": "python",\n'
        ' "metadata": {\n'
        '  "afpub": {\n'
        '   "description": "ROOT",\n   "image": "root",\n'
        '   "image_version": "2026.11.0",\n   "release": "2026.11.1"\n'
        "  },\n"
        '  "debugger": true\n'
        " }\n"
        "}\n"
    )


def test_absolute_launcher_for_servers_that_do_not_know_resource_dir(kernel):
    content = files(kernel(), mount="/cvmfs/kernels.example.org/af/")["kernel.json"].content
    assert json.loads(content)["argv"] == [
        "/cvmfs/kernels.example.org/af/releases/2026.11.1/share/jupyter/kernels/pyroot3/launch",
        "{connection_file}",
    ]


def test_optional_parts_of_kernel_json(kernel):
    rich = kernel(
        interrupt_mode="message",
        metadata='{"group": "ROOT", "debugger": true}',
        help_links=(HelpLink(text="ROOT", url="https://root.cern/"),),
    )
    spec = json.loads(files(rich)["kernel.json"].content)
    assert spec["interrupt_mode"] == "message"
    assert spec["help_links"] == [{"text": "ROOT", "url": "https://root.cern/"}]
    assert spec["metadata"]["group"] == "ROOT"
    assert spec["metadata"]["debugger"] is False
    assert "interrupt_mode" not in json.loads(files(kernel())["kernel.json"].content)


def test_data_file_of_a_plain_kernel(kernel):
    assert conf(kernel()) == [
        "FORMAT=1",
        "KERNEL=pyroot3",
        "DISPLAY_NAME=PyROOT “3”",
        "LANGUAGE=python",
        "RELEASE=2026.11.1",
        "MODE=image",
        "IMAGE=root/2026.11.0",
        "GPU=none",
        "USER_SITE=no",
        "ARG=python3",
        "ARG=-m",
        "ARG=ipykernel_launcher",
        "ARG=-f",
        "ARG={connection_file}",
        "ARG=--InteractiveShell.banner2=PyROOT “3”, release 2026.11.1.",
        "ARG=--HistoryManager.hist_file=:memory:",
    ]


def test_data_file_of_a_kernel_with_everything(kernel):
    rows = conf(
        kernel(
            gpu="auto",
            user_site=True,
            python_ver="2",
            user_setup="~/notebooks/.user_setups",
            analysisbase="AnalysisBase,21.2.111",
            history=True,
        )
    )
    assert {
        "GPU=auto",
        "USER_SITE=yes",
        "PYTHON_VER=2",
        "USER_SETUP=~/notebooks/.user_setups",
        "SETUP=analysisbase AnalysisBase,21.2.111",
        "TOUCH=/cvmfs/atlas.cern.ch",
        "PASS=ALRB_*",
    } <= set(rows)
    assert rows[-2] == "ARG={connection_file}"


def test_data_file_of_a_kernel_of_the_host_with_steps(kernel):
    steps = (
        SetupStep(kind="source", words=("/cvmfs/sft.example.org/setup.sh", "-q")),
        SetupStep(kind="module", words=("root/6.30", "gcc")),
    )
    rows = conf(kernel(image=None, setup=steps, packages=ImageName("overlay"), cuda="host"))
    assert "MODE=host" in rows
    assert not [row for row in rows if row.startswith("IMAGE=")]
    assert [row for row in rows if row.startswith(("SETUP=", "TOUCH=", "PASS=", "PACKAGES=", "CUDA="))] == [
        "PACKAGES=overlay/3",
        "CUDA=host",
        "SETUP=source /cvmfs/sft.example.org/setup.sh -q",
        "SETUP=module root/6.30 gcc",
        "TOUCH=/cvmfs/sft.example.org",
        "PASS=MODULEPATH",
        "PASS=MODULESHOME",
        "PASS=MODULES_*",
        "PASS=LMOD_*",
    ]
    spec = json.loads(files(kernel(image=None))["kernel.json"].content)
    assert spec["metadata"]["afpub"] == {"description": "", "release": "2026.11.1"}


def test_release_documentation_and_feedback_are_in_the_menu_and_the_banner(kernel):
    links = Links(docs="https://docs.example.org/", feedback="mailto:help@example.org")
    rendered = files(kernel(help_links=(HelpLink(text="ROOT", url="https://root.cern/"),)), links=links)
    assert json.loads(rendered["kernel.json"].content)["help_links"] == [
        {"text": "ROOT", "url": "https://root.cern/"},
        {"text": "About this release (2026.11.1)", "url": "https://docs.example.org/"},
        {"text": "Tell what is wrong or missing", "url": "mailto:help@example.org"},
    ]
    assert (
        "ARG=--InteractiveShell.banner2=PyROOT “3”, release 2026.11.1. About this release (2026.11.1): "
        "https://docs.example.org/. Tell what is wrong or missing: mailto:help@example.org.\n"
    ) in rendered["kernel.conf"].content.decode()


def test_retired_kernel_says_only_why(kernel):
    rows = conf(kernel(retired="take another", image=None, command=()))
    assert {"MODE=retired", "REASON=take another", "LANGUAGE=python"} <= set(rows)


def test_only_ipykernel_gets_the_history_option(kernel):
    rows = conf(kernel(command=("python3", "-m", "xeus", "-f", "{connection_file}")))
    assert rows[-1] == "ARG={connection_file}"


def test_nothing_of_atlas_is_in_a_kernel_that_does_not_ask_for_it(kernel):
    text = b"".join(entry.content or b"" for entry in files(kernel()).values())
    assert b"atlas" not in text.lower()


def test_launcher_is_a_relative_link_into_the_release(kernel):
    entries = {entry.path: entry for entry in render_release([kernel()], images=IMAGES, release=RELEASE)}
    link = entries[f"{KERNELS}/pyroot3/launch"]
    assert link.kind is Kind.SYMLINK
    assert link.target == "../../../../libexec/launch"
    assert entries["libexec/launch"].mode == 0o755
    assert link.size_bytes == len(link.target)


def test_release_has_every_folder_once_and_is_in_pre_order(kernel):
    kernels = [kernel(), kernel(name=KernelName("rootcpp"))]
    entries = render_release(kernels, images=IMAGES, release=RELEASE, mtime_s=7)
    paths = [entry.path for entry in entries]
    assert list(entries) == pre_order(entries)
    assert len(paths) == len(set(paths))
    assert all(entry.mtime_s == 7 for entry in entries)
    assert [entry.path for entry in entries if entry.kind is Kind.DIRECTORY] == [
        "bin",
        "libexec",
        "share",
        "share/afpub",
        "share/afpub/images",
        "share/afpub/images/overlay",
        "share/afpub/images/root",
        "share/jupyter",
        "share/jupyter/kernels",
        "share/jupyter/kernels/pyroot3",
        "share/jupyter/kernels/rootcpp",
    ]


def test_libexec_holds_the_launcher_and_what_it_needs():
    modes = {entry.path: entry.mode for entry in render_libexec()}
    assert {name for name, mode in modes.items() if mode == 0o755} >= {"launch", "start", "watch"}
    assert {name for name, mode in modes.items() if mode == 0o644} >= {"common.sh", "gpu.sh", "message.py", "setup.sh"}


@pytest.mark.parametrize(("name", "bound"), [("launch", 250), ("start", 120), ("common.sh", 95), ("watch", 65)])
def test_launcher_stays_small_enough_to_be_read(name, bound):
    """Comments and blank lines count too, so that nobody is led to leave them out; long lines are messages only."""
    (script,) = (entry for entry in render_libexec() if entry.path == name)
    lines = script.content.decode().splitlines()
    assert len(lines) < bound
    assert [line for line in lines if len(line) > 130 and not re.search(r"die |notice |echo |gone=", line)] == []


def test_bin_holds_the_programs_that_users_call():
    modes = {entry.path: entry.mode for entry in render_libexec(BIN)}
    assert modes == {"afpub-env": 0o755, "afpub-run": 0o755}


def test_an_image_of_the_release_can_be_entered_without_a_kernel():
    images = {ImageName("login"): ImageVersion("2026.11.0")}
    entries = {entry.path: entry for entry in render_release([], release=RELEASE, images=images)}
    session = entries["share/afpub/images/login/kernel.conf"].content.decode().splitlines()[1:]
    assert session == [
        "FORMAT=1",
        "KERNEL=login",
        "DISPLAY_NAME=login",
        "RELEASE=2026.11.1",
        "MODE=image",
        "IMAGE=login/2026.11.0",
        "GPU=none",
        "ARG=/bin/sh",
    ]
    assert entries["share/afpub/images/login/launch"].target == "../../../../libexec/launch"
    assert not any(path.startswith("share/jupyter") for path in entries)


def test_an_image_is_entered_with_a_gpu_where_its_kernels_want_one(kernel):
    entries = {entry.path: entry for entry in render_release([kernel(gpu="auto")], release=RELEASE, images=IMAGES)}
    assert b"GPU=auto" in entries["share/afpub/images/root/kernel.conf"].content
    assert b"GPU=none" in entries["share/afpub/images/overlay/kernel.conf"].content


@pytest.mark.parametrize("name", ["pyroot2", "pyroot3", "python3-ml", "python3-ml-usersite", "rootcpp"])
def test_projects_own_kernels_have_logos_and_cells(name):
    kernel = load_kernel(KERNELSPECS / name)
    assert [logo.name for logo in kernel.logos] == ["logo-32x32.png", "logo-64x64.png", "logo-svg.svg"]
    for size, logo in zip((32, 64), kernel.logos, strict=False):
        header = logo.read_bytes()[:24]  # PNG signature, IHDR, width, height
        assert header == b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size.to_bytes(4) * 2
    assert all(cell.expect for cell in kernel.smoke)
    assert kernel.user_setup == "~/notebooks/.user_setups"
