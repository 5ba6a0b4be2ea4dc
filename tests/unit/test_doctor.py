from dataclasses import replace

import pytest

from publisher.doctor import CHECKS, judge
from publisher.machine import PROGRAMS, CaBundle, Machine, Runtime, Space
from publisher.report import Severity

GIB = 1 << 30
WORK = Space(folder="build", kind="ext4", free_bytes=100 * GIB, free_inodes=10_000_000)
TEMPORARY = replace(WORK, folder="/tmp")
HEALTHY = Machine(
    user="ada",
    uid=1000,
    python=(3, 11, 2),
    system="debian",
    umask=0o022,
    runtime=Runtime(name="apptainer", version=(1, 4, 5)),
    programs=frozenset(PROGRAMS),
    namespaces="",
    namespace_limits=(("user.max_user_namespaces", 15000),),
    missing_capabilities=frozenset(),
    subuids=65536,
    subgids=65536,
    next_subid=165536,
    fuse=True,
    ca_bundles=(),
    system_ca=True,
    archives=("an archive",),
    spaces=(WORK, TEMPORARY),
    now_s=1_800_000_000,
    newest_file_s=1_799_999_000,
    cvmfs_client=False,
    gpu=False,
)


def found(severity, **changes):
    report = judge(replace(HEALTHY, **changes))
    return [(item.where, item.message, item.hint) for item in report.findings if item.severity is severity]


def errors(**changes):
    return found(Severity.ERROR, **changes)


def warnings(**changes):
    return found(Severity.WARNING, **changes)


def test_a_healthy_machine_gets_notes_only():
    report = judge(HEALTHY)
    assert report.ok
    assert {finding.severity for finding in report.findings} == {Severity.NOTE}
    assert "apptainer 1.4.5 starts programs" in {finding.message for finding in report.findings}


def test_every_check_says_what_it_looks_at():
    assert all(check.__doc__ for check in CHECKS)


def test_an_old_python():
    assert errors(python=(3, 9, 18)) == [("Python", "Python 3.9.18 is too old", "install Python 3.11 or newer")]


@pytest.mark.parametrize(
    ("system", "hint"), [("debian", "run 'make setup'"), ("rocky", "install the package apptainer")]
)
def test_no_container_runtime(system, hint):
    assert errors(runtime=None, system=system) == [
        ("container runtime", "there is neither apptainer nor singularity", hint)
    ]


def test_singularity_2_is_too_old():
    assert errors(runtime=Runtime(name="singularity", version=(2, 6, 1))) == [
        ("container runtime", "singularity 2.6.1 is too old", "install the package apptainer")
    ]
    assert errors(runtime=Runtime(name="singularity", version=(3, 8, 7))) == []


def test_a_runtime_that_starts_nothing():
    broken = Runtime(name="apptainer", version=(1, 4, 5), trouble="FATAL: no loop device")
    assert errors(runtime=broken) == [
        (
            "container runtime",
            "apptainer 1.4.5 cannot start a program: FATAL: no loop device",
            "run 'apptainer --debug exec' on any image to see where it stops",
        )
    ]


def test_a_runtime_without_namespaces_points_at_them():
    broken = Runtime(name="apptainer", version=(1, 4, 5), trouble="FATAL: clone failed")
    first, second = errors(runtime=broken, namespaces="unshare failed: Operation not permitted")
    assert first[2] == "mend what this list says about user namespaces first, then run 'afpub doctor' again"
    assert second[0] == "user namespaces"


@pytest.mark.parametrize(
    ("limits", "hint"),
    [
        (
            (("user.max_user_namespaces", 0),),
            "sysctl -w user.max_user_namespaces=15000   (as root; keep it in /etc/sysctl.d)",
        ),
        (
            (("user.max_user_namespaces", 15000), ("kernel.unprivileged_userns_clone", 0)),
            "sysctl -w kernel.unprivileged_userns_clone=1   (as root; keep it in /etc/sysctl.d)",
        ),
        (
            (("kernel.apparmor_restrict_unprivileged_userns", 1),),
            (
                "install the distribution's apptainer, which has an AppArmor profile, or "
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   "
                "(as root; keep it in /etc/sysctl.d)"
            ),
        ),
        ((), "not possible inside a chroot or a container that forbids it: use the machine itself"),
    ],
)
def test_no_user_namespaces(limits, hint):
    assert errors(namespaces="Operation not permitted", namespace_limits=limits) == [
        ("user namespaces", "cannot be made: Operation not permitted", hint)
    ]


def test_no_subordinate_ids():
    assert errors(subuids=0, subgids=0) == [
        (
            "subordinate ids",
            "ada has fewer than 65536 in /etc/subuid and /etc/subgid",
            "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ada   (as root)",
        )
    ]
    assert [message for _, message, _ in errors(subgids=1000)] == ["ada has fewer than 65536 in /etc/subgid"]


def test_missing_programs():
    assert errors(programs=frozenset({"newuidmap"})) == [
        (
            "image builds",
            "not installed: debootstrap, mksquashfs, newgidmap",
            "apt-get install debootstrap squashfs-tools uidmap",
        )
    ]
    assert errors(programs=frozenset(PROGRAMS) - {"mksquashfs"}, archives=None)[0][2] == (
        "install with your package manager: squashfs-tools"
    )


def test_root_without_a_capability():
    notes = found(Severity.NOTE, uid=0, user="root", missing_capabilities=frozenset({24, 39}))
    assert (
        "root",
        "root lacks capabilities here: CAP_SYS_RESOURCE, number 39",
        "afpub does without; when you call apptainer yourself, set APPTAINER_NO_PRIVS=1",
    ) in notes


def test_fuse():
    ending = "SIF files and CVMFS mounts will not work, unpacked images will"
    assert warnings(fuse=False) == [
        ("/dev/fuse", f"cannot be opened by ada: {ending}", "chmod 666 /dev/fuse   (as root)")
    ]
    assert warnings(fuse=None) == [("/dev/fuse", f"is not there: {ending}", "modprobe fuse   (as root)")]


def test_certificates():
    assert errors(system_ca=False) == [
        (
            "certificates",
            "this machine has no certificate authorities: downloads will fail",
            "install the package ca-certificates",
        )
    ]
    gone = CaBundle(setting="PIP_CERT", file="/nowhere.pem", readable=False)
    assert errors(ca_bundles=(gone,)) == [
        ("certificates", "PIP_CERT names /nowhere.pem, which cannot be read", "mend or remove the setting")
    ]


def test_a_proxy_that_inspects_tls():
    mine = CaBundle(setting="SSL_CERT_FILE", file="/etc/ssl/certs/ca-certificates.crt", readable=True)
    messages = [message for _, message, _ in found(Severity.NOTE, ca_bundles=(mine, replace(mine, setting="PIP_CERT")))]
    assert (
        "this machine's settings name /etc/ssl/certs/ca-certificates.crt, as behind a proxy that inspects TLS"
        in messages
    )


def test_where_debian_comes_from():
    assert errors(archives=()) == [
        (
            "Debian archive",
            "apt knows no Debian archive, or has no package lists",
            "apt-get update   (as root)",
        )
    ]
    assert warnings(archives=None) == [
        (
            "Debian archive",
            "there is no apt here that tells which Debian archive to use",
            "name one: apt_mirror in [build] of afpub.toml",
        )
    ]


def test_little_room():
    work = replace(WORK, free_bytes=10 * GIB)
    assert warnings(spaces=(work, TEMPORARY)) == [
        ("build", "10.0 GiB free, 20 GiB are comfortable", "free some room, or use a larger disk")
    ]
    full = replace(TEMPORARY, free_bytes=GIB // 2)
    assert errors(spaces=(WORK, full)) == [
        ("/tmp", "only 0.5 GiB free, 1 GiB are needed", "set APPTAINER_TMPDIR to a folder on a larger disk")
    ]


def test_a_file_system_without_inodes_left_and_one_that_counts_none():
    assert [message for _, message, _ in warnings(spaces=(replace(WORK, free_inodes=5), TEMPORARY))] == [
        "only 5 more files fit; an image can have 100000"
    ]
    assert warnings(spaces=(replace(WORK, free_inodes=-1), TEMPORARY)) == []


def test_file_systems_that_cannot_hold_an_image():
    assert warnings(spaces=(replace(WORK, kind="nfs4"), TEMPORARY)) == [
        (
            "build",
            "is on nfs4: most network file systems refuse files of subordinate ids",
            "build on a local disk",
        )
    ]
    assert errors(spaces=(WORK, replace(TEMPORARY, executable=False))) == [
        (
            "/tmp",
            "is mounted noexec: programs of an image cannot run while it is built there",
            "use another folder; APPTAINER_TMPDIR moves temporary files",
        )
    ]


def test_a_clock_that_is_behind():
    assert errors(now_s=1_700_000_000) == [
        (
            "clock",
            (
                "says 2023-11-14 22:13 UTC, but files here were written at 2027-01-15 07:43: "
                "signatures would be dated wrongly"
            ),
            "set the clock, best by a time service such as chrony",
        )
    ]
    assert errors(now_s=HEALTHY.newest_file_s - 30) == []


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o005])
def test_a_umask_that_hides_files(mask):
    assert warnings(umask=mask) == [
        (
            "umask",
            f"{mask:04o} hides new files from others; files made in images may come out unreadable",
            "umask 022",
        )
    ]
    assert warnings(umask=0o002) == []
