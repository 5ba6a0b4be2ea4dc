"""A release whose image is this machine: an empty root file system into which its own /usr is bound.

It makes the launcher and a real container runtime testable without building an image.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from publisher.kernels.render import KERNELS, render_release
from publisher.names import ImageName, ImageVersion, KernelName, ReleaseVersion
from publisher.project.kernel import KernelDefinition
from publisher.tree import Entry, Kind

IPYKERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
PREFIXES = tuple(sorted({sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])} - {"/usr"}))


def definition(folder: Path, name: str, **values) -> KernelDefinition:
    """A kernel in the machine's image; ``values`` replace the defaults."""
    logo = folder / "logo-64x64.png"
    logo.write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = {
        "display_name": f"The {name} kernel",
        "language": "python",
        "image": ImageName("machine"),
        "command": IPYKERNEL,
        "logos": (logo,),
        **values,
    }
    return KernelDefinition(name=KernelName(name), folder=folder, **settings)


def write(entries: tuple[Entry, ...], folder: Path) -> None:
    """Writes rendered entries below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        path = folder / entry.path
        if entry.kind is Kind.DIRECTORY:
            path.mkdir()
        elif entry.kind is Kind.SYMLINK:
            path.symlink_to(entry.target)
        else:
            assert isinstance(entry.content, bytes)
            path.write_bytes(entry.content)
            path.chmod(entry.mode)


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A published tree on disk."""

    prefix: Path

    def release(self, version: str, *kernels: KernelDefinition) -> Path:
        """Writes a release with kernels and moves the channel ``stable`` to it."""
        folder = self.prefix / "releases" / version
        images = {ImageName("machine"): ImageVersion("1")}
        write(render_release(kernels, images=images, release=ReleaseVersion(version)), folder)
        link = self.prefix / "channels/stable"
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../releases/{version}")
        return folder

    def kernel(self, name: str) -> Path:
        """The folder of a kernel as a server sees it, through the channel."""
        return self.prefix / "channels/stable" / KERNELS / name

    def connection_file(self, folder: Path) -> Path:
        """A connection file for a launcher whose kernel does not open it."""
        path = folder / "kernel-1.json"
        path.write_text(json.dumps({"transport": "tcp"}))
        return path


def publish(prefix: Path) -> Published:
    """An empty published tree with the machine's image."""
    image = prefix / "images/machine/1"
    for folder in ("usr", "etc", "dev", "proc", "sys", "tmp", "var/tmp", "root", "home"):
        (image / folder).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (image / link).symlink_to(f"usr/{link}")
    for name in ("passwd", "group"):
        (image / "etc" / name).touch()
    return Published(prefix=prefix)
