"""Is this machine able to publish, and to run the kernels: each finding with what mends it."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from publisher import report
from publisher.machine import PROGRAMS, Machine, Space, look
from publisher.report import Finding, Report

_GIB = 1 << 30
_NEEDED_IDS = 65536
_CAP_SYS_RESOURCE = 24
_NETWORK_FILESYSTEMS = frozenset({"afs", "beegfs", "cifs", "fuse.sshfs", "gpfs", "lustre", "nfs", "nfs4"})
_PACKAGE_OF = {
    "debootstrap": "debootstrap",
    "mksquashfs": "squashfs-tools",
    "newuidmap": "uidmap",
    "newgidmap": "uidmap",
}


def examine(work: Path) -> Report:
    """What the doctor says about this machine, for a work folder in which images will be built."""
    folders = (work, Path(os.environ.get("APPTAINER_TMPDIR") or tempfile.gettempdir()))
    return judge(look(folders, environment=os.environ))


def judge(machine: Machine) -> Report:
    """What the facts about a machine mean: errors stop image builds or releases, warnings may."""
    return report.collect(finding for check in CHECKS for finding in check(machine))


def python(machine: Machine) -> Iterator[Finding]:
    """Python is new enough."""
    text = ".".join(str(part) for part in machine.python)
    if machine.python < (3, 11):
        yield report.error("python", "Python", f"Python {text} is too old", hint="install Python 3.11 or newer")
    else:
        yield report.note("python", "Python", f"Python {text}")


def container_runtime(machine: Machine) -> Iterator[Finding]:
    """Apptainer, or Singularity 3 and later, is there and starts a program."""
    where = "container runtime"
    runtime = machine.runtime
    if runtime is None:
        hint = "run 'make setup'" if machine.system == "debian" else "install the package apptainer"
        yield report.error("runtime", where, "there is neither apptainer nor singularity", hint=hint)
        return
    text = f"{runtime.name} {'.'.join(str(part) for part in runtime.version)}"
    if runtime.trouble:
        hint = "mend what this list says about user namespaces first, then run 'afpub doctor' again"
        if not machine.namespaces:
            hint = f"run '{runtime.name} --debug exec' on any image to see where it stops"
        yield report.error("runtime", where, f"{text} cannot start a program: {runtime.trouble}", hint=hint)
    elif not runtime.version:
        yield report.warning("runtime", where, f"the version of {runtime.name} cannot be read")
    elif runtime.name == "singularity" and runtime.version < (3,):
        yield report.error("runtime", where, f"{text} is too old", hint="install the package apptainer")
    else:
        yield report.note("runtime", where, f"{text} starts programs")


def programs(machine: Machine) -> Iterator[Finding]:
    """What image builds call is installed."""
    missing = [name for name in PROGRAMS if name not in machine.programs]
    if missing:
        packages = sorted({_PACKAGE_OF[name] for name in missing})
        install = "apt-get install" if machine.archives is not None else "install with your package manager:"
        yield report.error(
            "programs",
            "image builds",
            f"not installed: {', '.join(missing)}",
            hint=f"{install} {' '.join(packages)}",
        )


def user_namespaces(machine: Machine) -> Iterator[Finding]:
    """An ordinary user can make a user namespace."""
    where = "user namespaces"
    if not machine.namespaces:
        yield report.note("namespaces", where, "can be made")
        return
    limits = dict(machine.namespace_limits)
    if limits.get("user.max_user_namespaces") == 0:
        hint = "sysctl -w user.max_user_namespaces=15000   (as root; keep it in /etc/sysctl.d)"
    elif limits.get("kernel.unprivileged_userns_clone") == 0:
        hint = "sysctl -w kernel.unprivileged_userns_clone=1   (as root; keep it in /etc/sysctl.d)"
    elif limits.get("kernel.apparmor_restrict_unprivileged_userns") == 1:
        hint = (
            "install the distribution's apptainer, which has an AppArmor profile, or "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   (as root; keep it in /etc/sysctl.d)"
        )
    else:
        hint = "not possible inside a chroot or a container that forbids it: use the machine itself"
    yield report.error("namespaces", where, f"cannot be made: {machine.namespaces}", hint=hint)


def subordinate_ids(machine: Machine) -> Iterator[Finding]:
    """The user owns the ids that image builds map."""
    where = "subordinate ids"
    missing = [
        file
        for file, count in (("/etc/subuid", machine.subuids), ("/etc/subgid", machine.subgids))
        if count < _NEEDED_IDS
    ]
    if not missing:
        yield report.note("subids", where, f"{machine.user} has {machine.subuids}")
        return
    ids = f"{machine.next_subid}-{machine.next_subid + _NEEDED_IDS - 1}"
    yield report.error(
        "subids",
        where,
        f"{machine.user} has fewer than {_NEEDED_IDS} in {' and '.join(missing)}",
        hint=f"usermod --add-subuids {ids} --add-subgids {ids} {machine.user}   (as root)",
    )


def capabilities(machine: Machine) -> Iterator[Finding]:
    """Root has every capability, or it is known how to do without."""
    if not machine.missing_capabilities:
        return
    numbers = sorted(machine.missing_capabilities)
    known = {_CAP_SYS_RESOURCE: "CAP_SYS_RESOURCE"}
    names = ", ".join(known.get(number, f"number {number}") for number in numbers)
    yield report.note(
        "capabilities",
        "root",
        f"root lacks capabilities here: {names}",
        hint="afpub does without; when you call apptainer yourself, set APPTAINER_NO_PRIVS=1",
    )


def fuse(machine: Machine) -> Iterator[Finding]:
    """The user can mount image files."""
    if machine.fuse:
        return
    what = "is not there" if machine.fuse is None else f"cannot be opened by {machine.user}"
    hint = "modprobe fuse   (as root)" if machine.fuse is None else "chmod 666 /dev/fuse   (as root)"
    yield report.warning(
        "fuse",
        "/dev/fuse",
        f"{what}: SIF files and CVMFS mounts will not work, unpacked images will",
        hint=hint,
    )


def certificates(machine: Machine) -> Iterator[Finding]:
    """The certificate authorities that builds need are readable."""
    where = "certificates"
    if not machine.system_ca:
        yield report.error(
            "certificates",
            where,
            "this machine has no certificate authorities: downloads will fail",
            hint="install the package ca-certificates",
        )
    for bundle in machine.ca_bundles:
        if not bundle.readable:
            yield report.error(
                "certificates",
                where,
                f"{bundle.setting} names {bundle.file}, which cannot be read",
                hint="mend or remove the setting",
            )
    own = sorted({bundle.file for bundle in machine.ca_bundles if bundle.readable})
    if own:
        yield report.note(
            "certificates",
            where,
            f"this machine's settings name {', '.join(own)}, as behind a proxy that inspects TLS",
            hint="image builds are given it, and it does not stay in the image",
        )


def archive(machine: Machine) -> Iterator[Finding]:
    """Debian images have an archive to come from."""
    where = "Debian archive"
    if machine.archives is None:
        yield report.warning(
            "archive",
            where,
            "there is no apt here that tells which Debian archive to use",
            hint="name one: apt_mirror in [build] of afpub.toml",
        )
    elif not machine.archives:
        yield report.error(
            "archive",
            where,
            "apt knows no Debian archive, or has no package lists",
            hint="apt-get update   (as root)",
        )
    else:
        yield report.note("archive", where, "apt is configured with one")


def disk(machine: Machine) -> Iterator[Finding]:
    """There is room for images, and file systems that can hold them."""
    work, temporary = machine.spaces[0], machine.spaces[-1]
    yield from _room(work, low=20 * _GIB, least=4 * _GIB)
    if temporary is not work:
        hint = "set APPTAINER_TMPDIR to a folder on a larger disk"
        yield from _room(temporary, low=5 * _GIB, least=_GIB, hint=hint)
    for space in machine.spaces:
        if not space.executable:
            yield report.error(
                "disk",
                space.folder,
                "is mounted noexec: programs of an image cannot run while it is built there",
                hint="use another folder; APPTAINER_TMPDIR moves temporary files",
            )
        if space.kind in _NETWORK_FILESYSTEMS:
            yield report.warning(
                "disk",
                space.folder,
                f"is on {space.kind}: most network file systems refuse files of subordinate ids",
                hint="build on a local disk",
            )


def _room(
    space: Space, *, low: int, least: int, hint: str = "free some room, or use a larger disk"
) -> Iterator[Finding]:
    text = f"{space.free_bytes / _GIB:.1f} GiB free"
    if space.free_bytes < least:
        yield report.error("disk", space.folder, f"only {text}, {least // _GIB} GiB are needed", hint=hint)
    elif space.free_bytes < low:
        yield report.warning("disk", space.folder, f"{text}, {low // _GIB} GiB are comfortable", hint=hint)
    else:
        yield report.note("disk", space.folder, text)
    if 0 <= space.free_inodes < 300_000:
        yield report.warning(
            "disk",
            space.folder,
            f"only {space.free_inodes} more files fit; an image can have 100000",
            hint="use a file system with more inodes",
        )


def clock(machine: Machine) -> Iterator[Finding]:
    """The clock is not behind: signatures carry dates."""
    if machine.now_s + 60 >= machine.newest_file_s:
        return
    now, newest = (
        dt.datetime.fromtimestamp(moment, tz=dt.UTC).strftime("%Y-%m-%d %H:%M")
        for moment in (machine.now_s, machine.newest_file_s)
    )
    yield report.error(
        "clock",
        "clock",
        f"says {now} UTC, but files here were written at {newest}: signatures would be dated wrongly",
        hint="set the clock, best by a time service such as chrony",
    )


def umask(machine: Machine) -> Iterator[Finding]:
    """Files that are made can be read by others."""
    if machine.umask & 0o055:
        yield report.warning(
            "umask",
            "umask",
            f"{machine.umask:04o} hides new files from others; files made in images may come out unreadable",
            hint="umask 022",
        )


def extras(machine: Machine) -> Iterator[Finding]:
    """What is good to know: a CVMFS client, a GPU."""
    client = "is installed" if machine.cvmfs_client else "is not installed; 'afpub export' does without"
    yield report.note("cvmfs", "CVMFS client", client)
    gpu = "there is one, kernels will see it" if machine.gpu else "none here; kernels will use the CPU"
    yield report.note("gpu", "NVIDIA GPU", gpu)


CHECKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    python,
    container_runtime,
    programs,
    user_namespaces,
    subordinate_ids,
    capabilities,
    fuse,
    certificates,
    archive,
    disk,
    clock,
    umask,
    extras,
)
"""Every check in the order in which its findings are shown."""
