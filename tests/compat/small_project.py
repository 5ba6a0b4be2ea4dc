"""A publishing project that releases in seconds: its image is this machine (see machine_image.py)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from compat.machine_image import IPYKERNEL, PREFIXES

from publisher import tools

FQRN = "small.afpub.example"
_AFPUB = Path(sys.executable).with_name("afpub")
_LOGO = Path("publisher/project/template/kernelspecs/analysis/logo-64x64.png").resolve()
_RECIPE = """\
Bootstrap: scratch

%setup
    cd ${APPTAINER_ROOTFS}
    mkdir -p usr etc dev proc sys tmp var/tmp root home
    ln -s usr/bin bin; ln -s usr/sbin sbin; ln -s usr/lib lib; ln -s usr/lib64 lib64
    touch etc/passwd etc/group
    echo "@CONTENT@" >etc/content
"""
_KERNEL = """\
display_name = "Small"
language = "python"
image = "machine"
command = {command}

[[smoke]]
code = "print(6 * 7)"
expect = "^42$"
"""
_MANIFEST = """\
version = "{version}"
channel = "{channel}"
kernels = ["small"]

[images.machine]
version = "{image}"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallProject:
    """The project, and how to run afpub in it."""

    root: Path

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def public_key(self) -> Path:
        return self.root / "keys" / f"{FQRN}.pub"

    @property
    def manifest(self) -> Path:
        return self.root / "manifests/next.toml"

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def describe(self, *, version: str, image: str = "1.0", channel: str = "stable", content: str = "") -> None:
        """Writes the manifest of the next release, and the recipe of its image."""
        self.manifest.parent.mkdir(exist_ok=True)
        self.manifest.write_text(_MANIFEST.format(version=version, channel=channel, image=image))
        self.write("images/machine/machine.def", _RECIPE.replace("@CONTENT@", content or image))

    def run(self, *words: str | Path, ok: bool = True, env: dict[str, str] | None = None) -> tools.Completed:
        """Runs afpub as a user does."""
        given = {**os.environ, "APPTAINER_BINDPATH": ",".join(("/usr", *PREFIXES)), **(env or {})}
        done = tools.run([_AFPUB, *words], cwd=self.root, env=given, check=False, timeout_s=300)
        assert done.ok == ok, done.tail
        return done

    def stop(self, *words: str | Path, at: str, number: int) -> tools.Completed:
        """Runs afpub and sends it a signal as soon as it says that a step begins."""
        given = {**os.environ, "APPTAINER_BINDPATH": ",".join(("/usr", *PREFIXES))}
        with subprocess.Popen(
            [_AFPUB, *words],
            cwd=self.root,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith(at):
                    os.killpg(process.pid, number)
            process.wait()
        return tools.Completed(
            argv=tuple(map(str, words)), returncode=process.returncode, stdout="", tail="".join(lines)
        )

    def json(self, *words: str | Path, ok: bool = True) -> dict:
        """Runs afpub and gives its JSON document."""
        return json.loads(self.run(*words, "--json", ok=ok).stdout)

    def release(self, *, ok: bool = True) -> dict:
        """Releases the manifest."""
        return self.json("release", self.manifest, ok=ok)


def make(root: Path, repository: str = "repository", more: str = "") -> SmallProject:
    """The project with an empty repository and a first release to be made."""
    project = SmallProject(root=root)
    project.write(
        "afpub.toml",
        f'fqrn = "{FQRN}"\nprefix = "/af"\nrepository = "{repository}"\nkeys = "keys"\nwork = "work"\n{more}',
    )
    project.write("images/machine/image.toml", "")
    project.write("kernelspecs/small/kernel.toml", _KERNEL.format(command=json.dumps(IPYKERNEL)))
    shutil.copy(_LOGO, root / "kernelspecs/small/logo-64x64.png")
    project.describe(version="1.0")
    project.run("repo", "create", FQRN, "--at", repository, "--keys", "keys")
    return project
