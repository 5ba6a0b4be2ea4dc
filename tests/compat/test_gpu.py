"""What the launcher does about GPUs, on a machine whose driver and toolkit are made up.

The runtime really binds the made-up driver library, and the image's own loader really loads it, or does not.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from compat.machine_image import PREFIXES, definition, publish
from compat.notebook import run_cell, started

from publisher import tools

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Mar  5 22:16:53 UTC 2024\n"
DEVICES = "null zero full random urandom tty"
SHOW = 'echo "$AFPUB_GPU|$AFPUB_CUDA_DIR|$CUDA_HOME|$LD_LIBRARY_PATH|$XLA_FLAGS|${AFPUB_NOTICE:-}"'
LOAD = "import ctypes; print(ctypes.CDLL('libcuda.so.1').cuDeviceGetCount())"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A made-up machine with a GPU; what is below its folder is mounted over the real one."""

    folder: Path
    published: object

    def driver(self, version="550.54.15"):
        """The kernel module."""
        (self.folder / "driver/nvidia").mkdir(parents=True, exist_ok=True)
        (self.folder / "driver/nvidia/version").write_text(DRIVER.format(version=version))

    def library(self, *, needs=""):
        """The driver library; it needs a symbol version of the C library that nobody has, if asked to."""
        source = self.folder / "cuda.c"
        extra = []
        if needs:
            stub = self.folder / "stub"
            stub.mkdir()
            (stub / "c.c").write_text("void afpub_no_such_symbol(void) {}\n")
            (stub / "c.map").write_text(f"{needs} {{ afpub_no_such_symbol; }};\n")
            script = f"-Wl,--version-script={stub}/c.map"
            tools.run(
                ["gcc", "-shared", "-nostdlib", "-Wl,-soname,libc.so.6", script, stub / "c.c", "-o", stub / "libc.so.6"]
            )
            extra = [stub / "libc.so.6", "-nostdlib"]
        call = "void afpub_no_such_symbol(void); " if needs else ""
        use = "afpub_no_such_symbol(); " if needs else ""
        source.write_text(f"{call}int cuDeviceGetCount(void) {{ {use}return 1; }}\n")
        tools.run(
            ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", source, *extra, "-o", self.folder / "libcuda.so.1"]
        )
        programs = self.folder / "bin"
        programs.mkdir()
        listing = f"1 libs found in cache\\n\\tlibcuda.so.1 (libc6,x86-64) => {self.folder}/libcuda.so.1\\n"
        (programs / "ldconfig").write_text(f"#!/bin/sh\nprintf '{listing}'\n")
        (programs / "ldconfig").chmod(0o755)

    def image_cuda(self, version):
        """NVIDIA's wheel in the image."""
        folder = self.published.prefix / "images/machine/1/opt/ml/lib/python3.11/site-packages"
        (folder / f"nvidia_cuda_runtime_cu{version.split('.')[0]}-{version}.dist-info").mkdir(parents=True)

    def toolkit(self, version):
        """A CUDA toolkit of the machine."""
        folder = self.folder / "cuda-x"
        (folder / "lib64").mkdir(parents=True)
        table = {"cuda": {"name": "CUDA SDK", "version": version}, "cuda_cccl": {"version": "9.9.9"}}
        (folder / "version.json").write_text(json.dumps(table, indent=3))
        return folder

    def run(self, *words, **variables):
        """Runs a program in the environment of the kernel ``gpu`` on this machine."""
        mounts = [
            f"for d in {DEVICES}; do : >{self.folder}/dev/$d; mount --bind /dev/$d {self.folder}/dev/$d; done",
            f": >{self.folder}/dev/nvidiactl; mkdir -p {self.folder}/dev/shm {self.folder}/dev/pts",
            f"mount --rbind {self.folder}/dev /dev",
            f"mount --bind {self.folder}/driver /proc/driver",
            f"export PATH={self.folder}/bin:$PATH",
        ]
        command = shlex.join([str(self.published.kernel("gpu") / "launch"), "--run", *words])
        return tools.run(
            ["unshare", "--mount", "sh", "-c", f"set -e; {'; '.join(mounts)}; exec {command}"],
            env={**os.environ, **variables},
            check=False,
            timeout_s=60,
        )


@pytest.fixture
def machine(tmp_path, require_tool, require_root, monkeypatch):
    for name in ("apptainer", "gcc"):
        require_tool(name)
    monkeypatch.setenv("APPTAINER_BINDPATH", ",".join(("/usr", *PREFIXES)))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    published = publish(tmp_path / "af")
    published.release("2026.11.1", definition(tmp_path, "gpu", gpu="auto"))
    (tmp_path / "machine/dev").mkdir(parents=True)
    settings = published.prefix / "images/machine/1/.singularity.d/env"
    settings.mkdir(parents=True)  # as in every image that Apptainer built
    (settings / "99-base.sh").write_text("export LD_LIBRARY_PATH=/.singularity.d/libs\n")
    return Machine(folder=tmp_path / "machine", published=published)


def shown(done):
    assert done.ok, done.tail
    names = ("gpu", "cuda_dir", "cuda_home", "libraries", "xla", "notice")
    return dict(zip(names, done.stdout.split("|"), strict=True))


def test_driver_of_the_host_is_loaded_in_the_image(machine):
    machine.driver()
    machine.library()
    machine.image_cuda("12.4.127")
    done = machine.run("python3", "-c", LOAD)
    assert done.stdout == "1", done.tail
    seen = shown(machine.run("sh", "-c", SHOW))
    assert (seen["gpu"], seen["notice"], seen["cuda_home"]) == ("nvidia", "", "")


def test_driver_that_is_too_old_for_the_images_cuda(machine):
    machine.driver("470.57.02")
    machine.library()
    machine.image_cuda("12.4.127")
    assert shown(machine.run("sh", "-c", SHOW))["notice"] == (
        "the GPU cannot be used: this machine's driver 470.57.02 is too old for CUDA 12.4.127, which needs 525 "
        "or newer; ask the facility for a newer driver, or use a release with an older CUDA"
    )


def test_driver_library_that_the_image_cannot_load(machine):
    machine.driver()
    machine.library(needs="GLIBC_9.99")
    notice = shown(machine.run("sh", "-c", SHOW))["notice"]
    assert notice.startswith("the GPU cannot be used: this machine's driver library does not load in the image (")
    assert "version `GLIBC_9.99' not found" in notice


def test_cuda_is_bound_from_the_host_where_the_site_wants_it(machine, tmp_path):
    machine.driver()
    machine.library()
    machine.image_cuda("12.4.127")
    toolkit = machine.toolkit("12.6.1")
    (tmp_path / "site.conf").write_text(f"CUDA=host\nCUDA_DIR={toolkit}\nMODE=ignored\n")
    line = f"{SHOW}; test -r {toolkit}/version.json"
    seen = shown(machine.run("sh", "-c", line, AFPUB_SITE_CONF=str(tmp_path / "site.conf"), XLA_FLAGS="--a"))
    assert seen["cuda_dir"] == seen["cuda_home"] == str(toolkit)
    assert seen["libraries"].startswith(f"{toolkit}/lib64:")
    assert seen["xla"] == f"--a --xla_gpu_cuda_data_dir={toolkit}"
    assert seen["notice"] == ""


def test_cuda_of_the_host_that_does_not_fit_is_left_out(machine):
    machine.driver()
    machine.library()
    machine.image_cuda("12.4.127")
    toolkit = machine.toolkit("11.8.0")
    seen = shown(machine.run("sh", "-c", SHOW, AFPUB_CUDA="host", CUDA_HOME=str(toolkit)))
    assert (seen["cuda_dir"], seen["cuda_home"]) == ("", "")
    assert seen["notice"] == (
        f"this machine's CUDA 11.8.0 ({toolkit}) does not fit the image, which is made for CUDA 12.4.127: "
        "the image's own is used"
    )


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles", "10000"])
def test_devices_that_the_batch_system_hides_are_not_used(machine, hidden):
    machine.driver()
    machine.library()
    seen = shown(machine.run("sh", "-c", SHOW, CUDA_VISIBLE_DEVICES=hidden))
    assert (seen["gpu"], seen["notice"]) == ("none", "")


@pytest.mark.parametrize("system", ["slurm", "condor"])
def test_gpu_that_was_asked_for_but_not_given_is_told_once_in_the_notebook(published, tmp_path, monkeypatch, system):
    published.release("2026.11.1", definition(tmp_path, "gpu", gpu="auto"))
    if system == "slurm":
        monkeypatch.setenv("SLURM_GPUS", "1")
    else:
        (tmp_path / "ad").write_text("RequestCpus = 1\nRequestGPUs = 1\n")
        monkeypatch.setenv("_CONDOR_JOB_AD", str(tmp_path / "ad"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    asked = "SLURM_GPUS" if system == "slurm" else "RequestGPUs"
    sentence = f"a GPU was asked for ({asked}), but this job got none: the kernel 'The gpu kernel' runs on the CPU"
    with started(published, "gpu") as (_, client):
        first, second = run_cell(client, "print(1)"), run_cell(client, "print(sorted(globals()))")
    assert [text for kind, text in first.streams if kind == "stderr"] == [f"{sentence}\n"]
    assert [kind for kind, _ in second.streams] == ["stdout"]
    assert "show" not in second.streams[0][1]


def test_without_a_gpu_the_kernel_says_so_in_the_log_only(published, tmp_path, monkeypatch):
    published.release("2026.11.1", definition(tmp_path, "gpu", gpu="auto"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch = published.kernel("gpu") / "launch"
    done = tools.run([launch, "--run", "printenv", "AFPUB_GPU"], check=False)
    assert done.stdout == "none"
    assert "afpub: there is no GPU for this session: the kernel 'The gpu kernel' runs on the CPU" in done.tail
    assert tools.run([launch, "--run", "printenv", "AFPUB_NOTICE"], check=False).stdout == ""


def test_the_check_for_machines_with_a_gpu_says_where_there_is_none(published, tmp_path, request):
    if any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd")):
        pytest.skip("this machine has a GPU")
    script = request.config.rootpath / "benchmarks/gpu_check.py"
    done = tools.run([sys.executable, script, published.kernel("gpu")], check=False)
    assert done.returncode == 77
    assert done.tail == "this machine has no GPU: none of /dev/nvidiactl, /dev/nvidia0, /dev/kfd is there"


@pytest.fixture
def published(tmp_path, require_tool, monkeypatch):
    require_tool("apptainer")
    monkeypatch.setenv("APPTAINER_BINDPATH", ",".join(("/usr", *PREFIXES)))
    monkeypatch.setenv("HOME", str(tmp_path))
    return publish(tmp_path / "af")
