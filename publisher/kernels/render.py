"""A kernel definition as files: what a Jupyter server lists, and what the launcher reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from publisher.kernels.targets import SMOKE_FILE, smoke_json
from publisher.names import ImageName, ImageVersion, ReleaseVersion
from publisher.project.kernel import HelpLink, KernelDefinition, SetupStep
from publisher.project.settings import Links
from publisher.tree import Entry, Kind, pre_order

KERNELS = "share/jupyter/kernels"
"""Where the kernels are below a release's folder; ``share/jupyter`` is what a site puts into JUPYTER_PATH."""
LIBEXEC = "libexec"
BIN = "bin"
"""The programs of a release that users call."""
SESSIONS = "share/afpub/images"
"""Where the images of a release are entered without a kernel."""
_SOURCES = Path(__file__).parent
_FORMAT = 1
"""Format of kernel.conf; the launcher of a release reads its own only."""
_NO_HISTORY = "--HistoryManager.hist_file=:memory:"
_IPYKERNEL = frozenset({"ipykernel", "ipykernel_launcher"})
_ATLAS_REPOSITORIES = ("/cvmfs/atlas.cern.ch", "/cvmfs/atlas-condb.cern.ch", "/cvmfs/sft.cern.ch")
_ATLAS_STEPS = frozenset({"analysisbase", "asetup"})
_NO_LINKS = Links()
_MODULE_VARIABLES = ("MODULEPATH", "MODULESHOME", "MODULES_*", "LMOD_*")
_ATLAS_VARIABLES = ("ATLAS_LOCAL_*", "ALRB_*", "FRONTIER_SERVER", "RUCIO_*")


def render_kernel(  # noqa: PLR0913 - all that a rendered kernel depends on, by name
    kernel: KernelDefinition,
    *,
    release: ReleaseVersion,
    images: Mapping[ImageName, ImageVersion],
    links: Links = _NO_LINKS,
    mount: str = "",
    mtime_s: int = 0,
) -> tuple[Entry, ...]:
    """The files of a kernel's folder, paths relative to it, without the folder itself.

    Args:
        kernel: what the release manager wrote.
        release: version of the release that the kernel belongs to.
        images: the images of the release and the folders of their versions below ``images/<image>/``.
        links: where users read and write.
        mount: absolute folder that holds ``releases/``, such as ``/cvmfs/kernels.example.org/af``; then
            kernel.json names the launcher by its absolute path, for servers that do not know
            ``{resource_dir}``.
        mtime_s: modification time of every file, seconds since 1970.
    """
    files = [
        _file("kernel.json", _kernel_json(kernel, release, images, links, mount), mtime_s=mtime_s),
        _file("kernel.conf", _kernel_conf(kernel, release, images, links), mtime_s=mtime_s),
        _link("launch", f"../../../../{LIBEXEC}/launch", mtime_s=mtime_s),
    ]
    if kernel.smoke:
        files.append(_file(SMOKE_FILE, smoke_json(kernel.smoke), mtime_s=mtime_s))
    files += [_file(logo.name, logo.read_bytes(), mtime_s=mtime_s) for logo in kernel.logos]
    return tuple(pre_order(files))


def render_session(
    image: ImageName, version: ImageVersion, *, release: ReleaseVersion, gpu: bool, mtime_s: int = 0
) -> tuple[Entry, ...]:
    """The files of an image's own session, for terminals and batch jobs, paths relative to its folder.

    Args:
        image: its name.
        version: folder of its version below ``images/<image>/``.
        release: version of the release that it is entered through.
        gpu: the driver is bound where there is a device, as for the kernels of the image.
        mtime_s: modification time of every file, seconds since 1970.
    """
    rows = (
        ("FORMAT", str(_FORMAT)),
        ("KERNEL", image),
        ("DISPLAY_NAME", image),
        ("RELEASE", release),
        ("MODE", "image"),
        ("IMAGE", f"{image}/{version}"),
        ("GPU", "auto" if gpu else "none"),
        ("ARG", "/bin/sh"),
    )
    return (
        _file("kernel.conf", _conf(rows), mtime_s=mtime_s),
        _link("launch", f"../../../../{LIBEXEC}/launch", mtime_s=mtime_s),
    )


def render_libexec(folder: str = LIBEXEC, *, mtime_s: int = 0) -> tuple[Entry, ...]:
    """The files that all kernels of a release share, paths relative to the release's ``libexec`` folder.

    Args:
        folder: or those of its ``bin`` folder.
        mtime_s: modification time of every file, seconds since 1970.
    """
    contents = {path.name: path.read_bytes() for path in (_SOURCES / folder).iterdir() if path.is_file()}
    return tuple(
        pre_order(
            _file(name, content, mode=0o755 if content.startswith(b"#!") else 0o644, mtime_s=mtime_s)
            for name, content in contents.items()
        )
    )


def render_release(  # noqa: PLR0913 - all that a rendered release depends on, by name
    kernels: Sequence[KernelDefinition],
    *,
    release: ReleaseVersion,
    images: Mapping[ImageName, ImageVersion],
    links: Links = _NO_LINKS,
    mount: str = "",
    mtime_s: int = 0,
) -> tuple[Entry, ...]:
    """All that afpub adds to a release's folder, with the folders, in pre-order and without the root."""
    entries = [entry for name in (LIBEXEC, BIN) for entry in _below(name, render_libexec(name, mtime_s=mtime_s))]
    for image, version in images.items():
        gpu = any(kernel.image == image and kernel.gpu == "auto" for kernel in kernels)
        session = render_session(image, version, release=release, gpu=gpu, mtime_s=mtime_s)
        entries += _below(f"{SESSIONS}/{image}", session)
    for kernel in kernels:
        rendered = render_kernel(kernel, release=release, images=images, links=links, mount=mount, mtime_s=mtime_s)
        entries += _below(f"{KERNELS}/{kernel.name}", rendered)
    folders = {
        parent: Entry(path=parent, kind=Kind.DIRECTORY, mode=0o755, mtime_s=mtime_s)
        for entry in entries
        for parent in _parents(entry.path)
    }
    return tuple(pre_order([*folders.values(), *entries]))


def _kernel_json(
    kernel: KernelDefinition,
    release: ReleaseVersion,
    images: Mapping[ImageName, ImageVersion],
    links: Links,
    mount: str,
) -> bytes:
    """Source: jupyter_client/kernelspec.py KernelSpec (8.x); ``env`` stays empty (PATH-like values age)."""
    folder = f"{mount.rstrip('/')}/releases/{release}/{KERNELS}/{kernel.name}" if mount else "{resource_dir}"
    metadata: dict[str, object] = {
        **json.loads(kernel.metadata),
        "debugger": kernel.debugger,
        "afpub": {"description": kernel.description, "release": release}
        | ({"image": kernel.image, "image_version": images[kernel.image]} if kernel.image else {}),
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
    help_links = [*kernel.help_links, *_own_links(release, links)]
    if help_links:
        spec["help_links"] = [{"text": link.text, "url": link.url} for link in help_links]
    return (json.dumps(spec, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _own_links(release: ReleaseVersion, links: Links) -> list[HelpLink]:
    named = ((f"About this release ({release})", links.docs), ("Tell what is wrong or missing", links.feedback))
    return [HelpLink(text=text, url=url) for text, url in named if url]


def _kernel_conf(
    kernel: KernelDefinition, release: ReleaseVersion, images: Mapping[ImageName, ImageVersion], links: Links
) -> bytes:
    steps = _setup_steps(kernel)
    rows = [
        ("FORMAT", str(_FORMAT)),
        ("KERNEL", kernel.name),
        ("DISPLAY_NAME", kernel.display_name),
        ("LANGUAGE", kernel.language),
        ("RELEASE", release),
        ("MODE", "retired" if kernel.retired else "image" if kernel.image else "host"),
        ("REASON", kernel.retired),
        ("IMAGE", f"{kernel.image}/{images[kernel.image]}" if kernel.image else ""),
        ("PACKAGES", f"{kernel.packages}/{images[kernel.packages]}" if kernel.packages else ""),
        ("GPU", kernel.gpu),
        ("CUDA", kernel.cuda),
        ("PYTHON_VER", kernel.python_ver),
        ("USER_SITE", "yes" if kernel.user_site else "no"),
        ("USER_SETUP", kernel.user_setup),
        *(("SETUP", " ".join((step.kind, *step.words))) for step in steps),
        *(("TOUCH", path) for path in _touched(steps)),
        *(("PASS", pattern) for pattern in _passed(steps)),
        *(("ARG", word) for word in _command(kernel, release, links)),
    ]
    return _conf(rows)


def _conf(rows: Iterable[tuple[str, str]]) -> bytes:
    lines = ["# What libexec/launch and libexec/start read: KEY=VALUE lines, never sourced. Written by afpub."]
    lines += [f"{key}={value}" for key, value in rows if value]
    return ("\n".join(lines) + "\n").encode()


def _setup_steps(kernel: KernelDefinition) -> tuple[SetupStep, ...]:
    if not kernel.analysisbase:
        return kernel.setup
    return (SetupStep(kind="analysisbase", words=(kernel.analysisbase,)), *kernel.setup)


def _touched(steps: Sequence[SetupStep]) -> list[str]:
    """The repositories that the steps read: autofs mounts them when they are looked at."""
    found = set(_ATLAS_REPOSITORIES) if _kinds(steps) & _ATLAS_STEPS else set()
    for step in steps:
        parts = step.words[0].split("/")
        if parts[:2] == ["", "cvmfs"] and len(parts) > 2:
            found.add("/".join(parts[:3]))
    return sorted(found)


def _passed(steps: Sequence[SetupStep]) -> tuple[str, ...]:
    kinds = _kinds(steps)
    return (_ATLAS_VARIABLES if kinds & _ATLAS_STEPS else ()) + (_MODULE_VARIABLES if "module" in kinds else ())


def _kinds(steps: Sequence[SetupStep]) -> set[str]:
    return {step.kind for step in steps}


def _command(kernel: KernelDefinition, release: ReleaseVersion, links: Links) -> tuple[str, ...]:
    """The command; IPython's history database is kept off home folders on NFS and AFS."""
    if _IPYKERNEL.isdisjoint(kernel.command):
        return kernel.command
    own = "".join(f" {link.text}: {link.url}." for link in _own_links(release, links))
    banner = f"--InteractiveShell.banner2={kernel.display_name}, release {release}.{own}"
    return (*kernel.command, banner, *(() if kernel.history else (_NO_HISTORY,)))


def _file(name: str, content: bytes, *, mode: int = 0o644, mtime_s: int) -> Entry:
    return Entry(path=name, kind=Kind.FILE, mode=mode, mtime_s=mtime_s, size_bytes=len(content), content=content)


def _link(name: str, target: str, *, mtime_s: int) -> Entry:
    return Entry(path=name, kind=Kind.SYMLINK, mode=0o777, mtime_s=mtime_s, size_bytes=len(target), target=target)


def _below(folder: str, entries: Iterable[Entry]) -> list[Entry]:
    return [entry._replace(path=f"{folder}/{entry.path}") for entry in entries]


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
