"""What this machine has: facts only, gathered for :mod:`publisher.doctor`, which judges them."""

from __future__ import annotations

import configparser
import os
import platform
import pwd
import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from publisher import tools
from publisher.errors import ToolError

PROGRAMS = ("debootstrap", "mksquashfs", "newuidmap", "newgidmap")
"""Programs beside the container runtime that image builds call."""

_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_QUICK_S = 30.0
"""Longest time that a question to a program may take, in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """A container runtime, and what it did when asked to start a program."""

    name: str
    """``apptainer`` or ``singularity``."""
    version: tuple[int, ...]
    """Empty where its answer could not be read."""
    trouble: str = ""
    """The last words of a trial run that failed; empty when it started the program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """A folder that will fill up, and the file system below it."""

    folder: str
    kind: str
    """Type of the file system, such as ``ext4`` or ``nfs4``."""
    free_bytes: int
    free_inodes: int
    """-1 where the file system does not count them."""
    executable: bool = True
    """False when it is mounted noexec."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaBundle:
    """A file of certificate authorities that a setting of this machine names."""

    setting: str
    file: str
    readable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Everything that the doctor judges."""

    user: str
    uid: int
    python: tuple[int, int, int]
    system: str
    """``ID`` of os-release, such as ``debian``."""
    umask: int
    runtime: Runtime | None
    programs: frozenset[str]
    """Those of :data:`PROGRAMS` that are installed."""
    namespaces: str
    """The reason why no user namespace can be made; empty when one can."""
    namespace_limits: tuple[tuple[str, int], ...]
    """Kernel settings that govern user namespaces and their values."""
    missing_capabilities: frozenset[int]
    """Numbers of the capabilities that root lacks here; empty for an ordinary user."""
    subuids: int
    subgids: int
    """How many subordinate ids the user has."""
    next_subid: int
    """The first id above every range that is given out."""
    fuse: bool | None
    """Whether the user may open /dev/fuse; None where there is no such device."""
    ca_bundles: tuple[CaBundle, ...]
    system_ca: bool
    """Whether the system's own bundle of certificate authorities is there."""
    archives: tuple[str, ...] | None
    """The Debian archives that apt is configured with; None where there is no apt."""
    spaces: tuple[Space, ...]
    now_s: int
    newest_file_s: int
    """When the youngest of some files that machines renew was written; the clock cannot be before it."""
    cvmfs_client: bool
    gpu: bool


def look(folders: Iterable[Path], *, environment: Mapping[str, str]) -> Machine:
    """What this machine has, as the user who asks sees it.

    Args:
        folders: where afpub will write: the work folder, the temporary folder.
        environment: the environment that image builds will get.
    """
    uid = os.geteuid()
    user = _user_name(uid)
    return Machine(
        user=user,
        uid=uid,
        python=_python_version(),
        system=platform.freedesktop_os_release().get("ID", "") if Path("/etc/os-release").exists() else "",
        umask=_umask(_read("/proc/self/status")),
        runtime=_runtime(),
        programs=frozenset(name for name in PROGRAMS if tools.which(name)),
        namespaces=_namespace_trouble(),
        namespace_limits=_namespace_limits(),
        missing_capabilities=_missing_capabilities() if uid == 0 else frozenset(),
        subuids=_subordinate(user, uid, "/etc/subuid", ()),
        subgids=_subordinate(user, uid, "/etc/subgid", ("-g",)),
        next_subid=max(subid_end(_read("/etc/subuid")), subid_end(_read("/etc/subgid"))),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK) if Path("/dev/fuse").exists() else None,
        ca_bundles=tuple(_ca_bundles(environment)),
        system_ca=any(Path(file).is_file() for file in _SYSTEM_CA),
        archives=_archives(),
        spaces=tuple(space(folder) for folder in folders),
        now_s=int(time.time()),
        newest_file_s=_newest(("/var/lib/dpkg/status", "/etc/ld.so.cache", "/etc/passwd", __file__)),
        cvmfs_client=tools.which("cvmfs2") is not None,
        gpu=Path("/dev/nvidiactl").exists(),
    )


_SYSTEM_CA = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name  # not $USER, which su and sudo may leave as it was
    except KeyError:
        return str(uid)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _python_version() -> tuple[int, int, int]:
    major, minor, patch = platform.python_version_tuple()
    return int(major), int(minor), int(re.match(r"\d+", patch)[0])  # type: ignore[index] # always begins with digits


def _umask(status: str) -> int:
    found = re.search(r"^Umask:\s*(\d+)$", status, re.MULTILINE)
    return int(found[1], 8) if found else 0o022


# --- container runtime -----------------------------------------------------------------------------------


def _runtime() -> Runtime | None:
    program = tools.which("apptainer") or tools.which("singularity")
    if program is None:
        return None
    try:
        answer = tools.run([program, "--version"], timeout_s=_QUICK_S).stdout
    except ToolError as exc:
        return Runtime(name=program.name, version=(), trouble=exc.detail or exc.message)
    return Runtime(name=program.name, version=runtime_version(answer), trouble=_trial(program))


def runtime_version(answer: str) -> tuple[int, ...]:
    """The numbers in what ``apptainer --version`` or ``singularity --version`` prints."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", answer)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def _trial(program: Path) -> str:
    """The last words of a runtime that could not start ``true`` in a root made of this machine's /usr."""
    with tempfile.TemporaryDirectory(prefix="afpub-doctor-") as folder:
        root = Path(folder)
        binds = []
        for name in ("usr", "bin", "lib", "lib64"):
            host = Path("/", name)
            if host.is_symlink():
                (root / name).symlink_to(host.readlink())
            elif host.is_dir():
                (root / name).mkdir()
                binds += ["--bind", f"{host}:{host}:ro"]
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            (root / name).mkdir()
        # --no-privs: as root the runtime otherwise asks for capabilities that this root may not have
        words: list[str | Path] = [
            program,
            "--silent",
            "exec",
            "--no-privs",
            "--contain",
            "--no-home",
            *binds,
            root,
            "/usr/bin/true",
        ]
        try:
            done = tools.run(words, timeout_s=_QUICK_S, check=False)
        except ToolError as exc:
            return exc.message
    return "" if done.ok else _last_line(done.tail) or f"exit code {done.returncode}"


def _last_line(text: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# --- what the kernel and the administrator allow ---------------------------------------------------------


def _namespace_trouble() -> str:
    unshare = tools.which("unshare")
    if unshare is None:
        return "the program unshare (package util-linux) is not installed"
    done = tools.run([unshare, "--user", "--map-root-user", "true"], timeout_s=_QUICK_S, check=False)
    return "" if done.ok else _last_line(done.tail) or f"exit code {done.returncode}"


def _namespace_limits() -> tuple[tuple[str, int], ...]:
    names = (
        "user.max_user_namespaces",
        "kernel.unprivileged_userns_clone",
        "kernel.apparmor_restrict_unprivileged_userns",
    )
    values = ((name, _read(f"/proc/sys/{name.replace('.', '/')}").strip()) for name in names)
    return tuple((name, int(value)) for name, value in values if value.isdigit())


def _missing_capabilities() -> frozenset[int]:
    last = _read("/proc/sys/kernel/cap_last_cap").strip()
    return missing_capabilities(_read("/proc/self/status"), last=int(last) if last.isdigit() else 40)


def missing_capabilities(status: str, *, last: int) -> frozenset[int]:
    """The capabilities up to ``last`` that the bounding set in a text like /proc/PID/status lacks."""
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    held = int(found[1], 16) if found else -1
    return frozenset(number for number in range(last + 1) if not held >> number & 1)


def subordinate_ids(text: str, *, user: str, uid: int) -> int:
    """How many ids a file like /etc/subuid gives to a user, who stands there by name or by number."""
    rows = (line.split(":") for line in text.splitlines())
    return sum(int(row[2]) for row in rows if len(row) == 3 and row[0] in {user, str(uid)} and row[2].strip().isdigit())


def subid_end(text: str) -> int:
    """The first id above every range in a file like /etc/subuid, at least 100000."""
    rows = (line.split(":") for line in text.splitlines())
    ends = (int(row[1]) + int(row[2]) for row in rows if len(row) == 3 and row[1].isdigit() and row[2].isdigit())
    return max(ends, default=100_000)


def _subordinate(user: str, uid: int, file: str, option: tuple[str, ...]) -> int:
    count = subordinate_ids(_read(file), user=user, uid=uid)
    program = tools.which("getsubids")
    if count or program is None:
        return count
    # a directory service may give out ids that stand in no file; a line says "0: ada 100000 65536"
    answer = tools.run([program, *option, user], timeout_s=_QUICK_S, check=False).stdout
    return sum(int(size) for size in re.findall(r"^\d+: \S+ \d+ (\d+)$", answer, re.MULTILINE))


# --- network settings and disks --------------------------------------------------------------------------


def _ca_bundles(environment: Mapping[str, str]) -> Iterable[CaBundle]:
    named = [(name, environment[name]) for name in _CA_VARIABLES if environment.get(name)]
    for file in (Path("/etc/pip.conf"), Path("~/.config/pip/pip.conf"), Path("~/.pip/pip.conf")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(file.expanduser(), encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        cert = parser.get("global", "cert", fallback="")
        if cert:
            named.append((f"cert in {file}", cert))
    for setting, path in named:
        yield CaBundle(setting=setting, file=path, readable=os.access(Path(path).expanduser(), os.R_OK))


def _archives() -> tuple[str, ...] | None:
    program = tools.which("apt-get")
    if program is None:
        return None
    words: list[str | Path] = [
        program,
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Label: Debian",
    ]
    answer = tools.run(words, timeout_s=_QUICK_S, check=False).stdout
    return tuple(sorted(set(answer.split())))


def space(folder: Path) -> Space:
    """The room that is left for a folder, which need not be there yet."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    info = os.statvfs(there)
    return Space(
        folder=str(folder),
        kind=filesystem_kind(_read("/proc/self/mounts"), str(there.resolve())),
        free_bytes=info.f_bavail * info.f_frsize,
        free_inodes=info.f_favail if info.f_files else -1,
        executable=not info.f_flag & os.ST_NOEXEC,
    )


def filesystem_kind(mounts: str, path: str) -> str:
    """The type of the file system that holds an absolute path, by the text of /proc/self/mounts."""
    best = ("", "unknown")
    for line in mounts.splitlines():
        point, kind = line.split(" ")[1:3]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _newest(files: Iterable[str]) -> int:
    return max(int(Path(file).stat().st_mtime) for file in files if Path(file).exists())
