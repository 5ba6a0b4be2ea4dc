"""A published tree of two releases with the project's own kernels, in images that are built, or were built before."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from compat.machine_image import write

from publisher import tools
from publisher.kernels.render import KERNELS, render_release
from publisher.names import ImageName, ImageVersion, ReleaseVersion
from publisher.project.kernel import load_kernel

RELEASES = ("2026.10.1", "2026.11.1")
"""The older one, and the one that the channel ``stable`` points to."""
_VERSION = ImageVersion("1")
_AFPUB = Path(sys.executable).with_name("afpub")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facility:
    """A site where a user works: the published tree, and the user's home folder."""

    prefix: Path
    home: Path

    @property
    def afpub_run(self) -> Path:
        return self.prefix / "channels/stable/bin/afpub-run"

    def kernel(self, name: str, *, release: str = RELEASES[1]) -> Path:
        return self.prefix / "releases" / release / KERNELS / name

    def environment(self, **more: str) -> dict[str, str]:
        """What a login on the site has."""
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "USER": "user", **more}

    def run(self, *words: str | Path, cwd: Path | None = None, **more: str) -> tools.Completed:
        """Runs ``afpub-run`` of the channel; ``more`` is set in its environment."""
        env = self.environment(**more)
        return tools.run([self.afpub_run, *words], env=env, cwd=cwd or self.home, check=False, timeout_s=120)

    def out(self, *words: str | Path, **more: str) -> str:
        """What the command prints; it must succeed."""
        done = self.run(*words, **more)
        assert done.ok, done.tail
        return done.stdout


def root_file_systems(clone: Path, *images: str) -> dict[str, Path]:
    """The root file systems of images, built where that has not been done."""
    done = tools.run([_AFPUB, "build", *images, "--json"], cwd=clone, env=dict(os.environ), timeout_s=900)
    return {row["image"]: Path(row["rootfs"]) for row in json.loads(done.stdout)["images"]}


def open_facility(clone: Path, folder: Path, *kernels: str, images: tuple[str, ...] = ()) -> Facility:
    """A tree with two releases of some of the project's kernels, and of images without kernels."""
    definitions = [load_kernel(clone / "kernelspecs" / name) for name in kernels]
    names = sorted({kernel.image for kernel in definitions} | set(images))
    prefix = folder / "af"
    for name, rootfs in root_file_systems(clone, *names).items():
        (prefix / "images" / name).mkdir(parents=True)
        (prefix / "images" / name / _VERSION).symlink_to(rootfs)
    versions = {ImageName(name): _VERSION for name in names}
    for release in RELEASES:
        entries = render_release(definitions, release=ReleaseVersion(release), images=versions)
        write(entries, prefix / "releases" / release)
    (prefix / "channels").mkdir()
    (prefix / "channels/stable").symlink_to(f"../releases/{RELEASES[1]}")
    home = folder / "home of the user"
    home.mkdir()
    return Facility(prefix=prefix, home=home)


def wheel(folder: Path, name: str, *, version: str = "1.0", code: str = "", command: str = "") -> Path:
    """A wheel for every Python, with one module and, perhaps, one command that prints the version."""
    info = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": f"version = '{version}'\ndef main():\n    print('{name} ' + version)\n{code}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n"
        ),
        f"{info}/entry_points.txt": f"[console_scripts]\n{command} = {name}:main\n" if command else "",
        f"{info}/RECORD": "",
    }
    path = folder / f"{name}-{version}-py2.py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in content.items():
            archive.writestr(member, text)
    return path
