"""A kernel definition as files: what a Jupyter server lists, and what the launcher reads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from publisher.names import ImageVersion, ReleaseVersion
from publisher.project.kernel import KernelDefinition
from publisher.tree import Entry, Kind, pre_order

KERNELS = "share/jupyter/kernels"
"""Where the kernels are below a release's folder; ``share/jupyter`` is what a site puts into JUPYTER_PATH."""
LIBEXEC = "libexec"
_SOURCES = Path(__file__).parent / LIBEXEC
_FORMAT = 1
"""Format of kernel.conf; the launcher of a release reads its own only."""
_NO_HISTORY = "--HistoryManager.hist_file=:memory:"
_IPYKERNEL = frozenset({"ipykernel", "ipykernel_launcher"})
_ATLAS_REPOSITORIES = ("/cvmfs/atlas.cern.ch", "/cvmfs/atlas-condb.cern.ch", "/cvmfs/sft.cern.ch")
_ATLAS_VARIABLES = ("ATLAS_LOCAL_*", "ALRB_*", "FRONTIER_SERVER", "RUCIO_*")


def render_kernel(
    kernel: KernelDefinition,
    *,
    release: ReleaseVersion,
    image_version: ImageVersion,
    mount: str = "",
    mtime_s: int = 0,
) -> tuple[Entry, ...]:
    """The files of a kernel's folder, paths relative to it, without the folder itself.

    Args:
        kernel: what the release manager wrote.
        release: version of the release that the kernel belongs to.
        image_version: folder of the image's version below ``images/<image>/``.
        mount: absolute folder that holds ``releases/``, such as ``/cvmfs/kernels.example.org/af``; then
            kernel.json names the launcher by its absolute path, for servers that do not know
            ``{resource_dir}``.
        mtime_s: modification time of every file, seconds since 1970.
    """
    files = [
        _file("kernel.json", _kernel_json(kernel, release, image_version, mount), mtime_s=mtime_s),
        _file("kernel.conf", _kernel_conf(kernel, release, image_version), mtime_s=mtime_s),
        _link("launch", f"../../../../{LIBEXEC}/launch", mtime_s=mtime_s),
    ]
    files += [_file(logo.name, logo.read_bytes(), mtime_s=mtime_s) for logo in kernel.logos]
    return tuple(pre_order(files))


def render_libexec(*, mtime_s: int = 0) -> tuple[Entry, ...]:
    """The files that all kernels of a release share, paths relative to the release's ``libexec`` folder."""
    contents = {path.name: path.read_bytes() for path in _SOURCES.iterdir() if path.is_file()}
    return tuple(
        pre_order(
            _file(name, content, mode=0o755 if content.startswith(b"#!") else 0o644, mtime_s=mtime_s)
            for name, content in contents.items()
        )
    )


def render_release(
    kernels: Sequence[tuple[KernelDefinition, ImageVersion]],
    *,
    release: ReleaseVersion,
    mount: str = "",
    mtime_s: int = 0,
) -> tuple[Entry, ...]:
    """All that the kernels add to a release's folder, with the folders, in pre-order and without the root."""
    entries = list(_below(LIBEXEC, render_libexec(mtime_s=mtime_s)))
    for kernel, image_version in kernels:
        rendered = render_kernel(kernel, release=release, image_version=image_version, mount=mount, mtime_s=mtime_s)
        entries += _below(f"{KERNELS}/{kernel.name}", rendered)
    folders = {
        parent: Entry(path=parent, kind=Kind.DIRECTORY, mode=0o755, mtime_s=mtime_s)
        for entry in entries
        for parent in _parents(entry.path)
    }
    return tuple(pre_order([*folders.values(), *entries]))


def _kernel_json(kernel: KernelDefinition, release: ReleaseVersion, image_version: ImageVersion, mount: str) -> bytes:
    """Source: jupyter_client/kernelspec.py KernelSpec (8.x); ``env`` stays empty (PATH-like values age)."""
    folder = f"{mount.rstrip('/')}/releases/{release}/{KERNELS}/{kernel.name}" if mount else "{resource_dir}"
    metadata: dict[str, object] = {
        **json.loads(kernel.metadata),
        "debugger": kernel.debugger,
        "afpub": {
            "description": kernel.description,
            "image": kernel.image,
            "image_version": image_version,
            "release": release,
        },
    }
    spec: dict[str, object] = {
        "argv": [f"{folder}/launch", "{connection_file}"],
        "display_name": kernel.display_name,
        "env": {},
        "language": kernel.language,
        "metadata": metadata,
    }
    if kernel.interrupt_mode != "signal":
        spec["interrupt_mode"] = kernel.interrupt_mode
    if kernel.help_links:
        spec["help_links"] = [{"text": link.text, "url": link.url} for link in kernel.help_links]
    return (json.dumps(spec, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _kernel_conf(kernel: KernelDefinition, release: ReleaseVersion, image_version: ImageVersion) -> bytes:
    rows = [
        ("FORMAT", str(_FORMAT)),
        ("KERNEL", kernel.name),
        ("DISPLAY_NAME", kernel.display_name),
        ("RELEASE", release),
        ("MODE", "image"),
        ("IMAGE", f"{kernel.image}/{image_version}"),
        ("GPU", kernel.gpu),
        ("PYTHON_VER", kernel.python_ver),
        ("USER_SITE", "yes" if kernel.user_site else "no"),
        ("USER_SETUP", kernel.user_setup),
        ("ANALYSISBASE", kernel.analysisbase),
    ]
    if kernel.analysisbase:
        rows += [("TOUCH", path) for path in _ATLAS_REPOSITORIES]
        rows += [("PASS", pattern) for pattern in _ATLAS_VARIABLES]
    rows += [("ARG", word) for word in _command(kernel)]
    lines = ["# What libexec/launch and libexec/start read: KEY=VALUE lines, never sourced. Written by afpub."]
    lines += [f"{key}={value}" for key, value in rows if value]
    return ("\n".join(lines) + "\n").encode()


def _command(kernel: KernelDefinition) -> tuple[str, ...]:
    """The command in the image; IPython's history database is kept off home folders on NFS and AFS."""
    if kernel.history or _IPYKERNEL.isdisjoint(kernel.command):
        return kernel.command
    return (*kernel.command, _NO_HISTORY)


def _file(name: str, content: bytes, *, mode: int = 0o644, mtime_s: int) -> Entry:
    return Entry(path=name, kind=Kind.FILE, mode=mode, mtime_s=mtime_s, size_bytes=len(content), content=content)


def _link(name: str, target: str, *, mtime_s: int) -> Entry:
    return Entry(path=name, kind=Kind.SYMLINK, mode=0o777, mtime_s=mtime_s, size_bytes=len(target), target=target)


def _below(folder: str, entries: Iterable[Entry]) -> list[Entry]:
    return [dataclasses.replace(entry, path=f"{folder}/{entry.path}") for entry in entries]


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
