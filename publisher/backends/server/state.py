"""Whose the open transaction is: the server's own files, and the mark that afpub leaves beside them.

Source of the server's files: cvmfs/publish/repository_util.cc, cvmfs/server/cvmfs_server_publish.sh (2.12).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from publisher.backends.server.site import Site
from publisher.cvmfs.disk import replace_file
from publisher.errors import RepositoryError

MARK_NAME = "afpub.json"
"""In the spool of the repository: which afpub opened the transaction."""
LOCK_NAME = "afpub.lock"
_OPENING_S = 600
"""A transaction that is older than this when its mark never said "open" is nobody's we know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What afpub notes before it opens a transaction, and again when it is open."""

    pid: int
    started: str
    """When the process began, in the system's ticks: process numbers are used again."""
    boot: str
    host: str
    user: str
    since_s: float
    base: str
    """The root catalog that the transaction was opened on."""
    what: str
    """The tag that it was for."""
    lock: tuple[int, int] | None = None
    """Inode and time of the server's flag file; None until the transaction is known to be open."""

    @property
    def since(self) -> str:
        """The time as people read it."""
        return datetime.fromtimestamp(self.since_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    def alive(self) -> bool:
        """True while the process runs; one of another machine is taken to run."""
        if self.host != socket.gethostname():
            return True
        return self.boot == _boot() and self.started == _started(self.pid) != ""


class Holder(StrEnum):
    """Who holds a repository."""

    NOBODY = "nobody"
    OTHER = "other"
    """Somebody with ``cvmfs_server``; never touched."""
    AFPUB = "afpub"
    """An afpub that runs."""
    DEAD_AFPUB = "dead afpub"
    """An afpub that was killed, or a machine that was restarted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transaction:
    """The state of a repository's transaction."""

    holder: Holder
    whose: str = ""
    """Who opened it and when, as a part of a sentence."""
    mark: Mark | None = None


def transaction_of(site: Site) -> Transaction:
    """The transaction that is open, if one is."""
    found = lock_identity(site)
    mark = read_mark(site)
    if found is None:
        return Transaction(holder=Holder.NOBODY, mark=mark)
    if mark is None or not _belongs(mark, found, site):
        return Transaction(holder=Holder.OTHER, whose=_opener(site), mark=mark)
    whose = f"by afpub (process {mark.pid} on {mark.host}, {mark.what or 'no tag'}) since {mark.since}"
    holder = Holder.AFPUB if mark.alive() else Holder.DEAD_AFPUB
    return Transaction(holder=holder, whose=whose, mark=mark)


def _belongs(mark: Mark, found: tuple[int, int], site: Site) -> bool:
    """True when the mark is about the transaction that is open now."""
    if mark.lock is not None:
        return mark.lock == found
    age_s = found[1] / 1e9 - mark.since_s
    return -1 <= age_s <= _OPENING_S and (mark.alive() or scratch_is_empty(site))


def _opener(site: Site) -> str:
    try:
        info = site.transaction_lock.stat()
    except OSError:
        return "by somebody"
    since = datetime.fromtimestamp(info.st_mtime, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"by user {_user(info.st_uid)} with cvmfs_server since {since}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def current_user() -> str:
    """The name of the user that afpub runs as."""
    return _user(os.geteuid())


def lock_identity(site: Site) -> tuple[int, int] | None:
    """What tells one transaction's flag file from another's; None when no transaction is open."""
    try:
        info = site.transaction_lock.stat()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise RepositoryError(
            f"cannot look at {site.transaction_lock}: {exc.strerror}", hint=f"run afpub as {site.user}"
        ) from exc
    return info.st_ino, info.st_mtime_ns


def scratch_is_empty(site: Site) -> bool:
    """True when the open transaction changed nothing yet."""
    try:
        return not any(site.scratch.iterdir())
    except OSError:
        return False


def new_mark(*, base: str, what: str) -> Mark:
    """The mark of this process."""
    return Mark(
        pid=os.getpid(),
        started=_started(os.getpid()),
        boot=_boot(),
        host=socket.gethostname(),
        user=current_user(),
        since_s=time.time(),
        base=base,
        what=what,
    )


def write_mark(site: Site, mark: Mark) -> None:
    """Leaves the mark, on disk when this returns."""
    replace_file(site.spool / MARK_NAME, json.dumps(asdict(mark)).encode())


def note_open(site: Site, mark: Mark) -> Mark:
    """Notes that the transaction is open, and by which flag file it is known."""
    noted = replace(mark, lock=lock_identity(site))
    write_mark(site, noted)
    return noted


def read_mark(site: Site) -> Mark | None:
    """The mark that is there; None where there is none, or where it cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        data = json.loads((site.spool / MARK_NAME).read_bytes())
        lock = data.pop("lock")
        return Mark(**data, lock=(int(lock[0]), int(lock[1])) if lock else None)
    return None


def clear_mark(site: Site) -> None:
    """Takes the mark away."""
    with contextlib.suppress(OSError):
        (site.spool / MARK_NAME).unlink()


def is_publishing(site: Site) -> bool:
    """True while ``cvmfs_server`` publishes, aborts or ingests."""
    try:
        descriptor = os.open(site.publishing_lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def open_files(folder: Path) -> Iterator[tuple[int, str, bool]]:
    """Process, path, and whether it is a working folder, for all that is open below a folder.

    Other users' processes are seen by root only.
    """
    prefix = f"{folder}/"
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        for link in (process / "cwd", *_descriptors(process)):
            with contextlib.suppress(OSError):
                target = os.readlink(link)
                if target == f"{folder}" or target.startswith(prefix):
                    yield int(process.name), target, link.name == "cwd"


def _descriptors(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []


def holders_of_mount(folder: Path) -> Iterator[tuple[int, str]]:
    """Processes that hold a mount of this machine in a namespace of their own, as containers do; one of each.

    The server waits for the old mount to end when it mounts a new revision, and these keep it. Other users'
    processes are seen by root only.
    """
    mine = _device_of(Path("/proc/self/mountinfo"), folder)
    seen = {os.readlink("/proc/self/ns/mnt")}
    for process in Path("/proc").iterdir():
        if not mine or not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            space = os.readlink(process / "ns/mnt")
            if space not in seen and _device_of(process / "mountinfo", folder) == mine:
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                yield int(process.name), name
            seen.add(space)


def _device_of(file: Path, folder: Path) -> str:
    """The device that a list of mounts (proc_pid_mountinfo(5)) has at a folder, the topmost; empty without one."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = (line.split(" ") for line in lines)
    return next((row[2] for row in reversed(list(rows)) if row[4] == f"{folder}"), "")


def broken_mount(site: Site) -> bool:
    """True when a mount of the repository has lost the process behind it."""
    for folder in (site.union, site.spool / "rdonly"):
        try:
            folder.stat()
        except OSError as exc:
            if exc.errno == errno.ENOTCONN:
                return True
    return False


def mounts() -> dict[str, str]:
    """The options of each mount of this machine, by its folder; of several at one folder, the topmost."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
        return {fields[1]: fields[3] for fields in map(str.split, lines) if len(fields) > 3}
    return {}


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _started(pid: int) -> str:
    """The 22nd field of /proc/PID/stat; the second may hold spaces and ends with the last parenthesis."""
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    return ""
