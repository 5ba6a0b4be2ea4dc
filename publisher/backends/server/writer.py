"""Writing into the open transaction: many files at a time, each with its mode and time, no link followed."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from publisher.backends.server.compare import GRAFT_PREFIX, Edits, changed, entry_blocks
from publisher.backends.server.site import Site, remount_hint
from publisher.cvmfs.disk import failing_as
from publisher.errors import DiskError, RepositoryError
from publisher.tree import Entry

_JOBS = 4
"""The overlay waits for the disk more than for a processor."""
_BATCH_FILES = 64
_BATCH_BYTES = 16 << 20
_AHEAD = 3
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 1 << 30


@dataclass(slots=True)
class _Batch:
    parent: str
    files: list[Entry] = field(default_factory=list)
    size_bytes: int = 0


class Writer:
    """Writes edits below a folder; files that are described are written empty, with their description."""

    def __init__(
        self, site: Site, described: Mapping[str, bytes], progress: Callable[[int], None] | None = None
    ) -> None:
        self._site = site
        self._top = site.union
        self._described = described
        self._progress = progress
        self._owner = _owner(site)
        self._umask = _umask()
        self._running: set[Future[int]] = set()

    def apply(self, edits: Edits) -> None:
        """Makes all changes.

        Raises:
            DiskError: the disk is full, or a source file cannot be read or changed meanwhile.
            RepositoryError: the mount of the repository is broken.
        """
        with _naming(self._site):
            for entry in edits.settle:
                self._open_up(entry)
            for path in edits.removals:
                self._remove(path)
            for entry in edits.folders:
                self._make_folder(entry)
            self._write_files(edits.files)
            for entry in edits.links:
                self._make_link(entry)
            settle = {entry.path: entry for entry in (*edits.folders, *edits.settle)}
            for entry in sorted(settle.values(), key=lambda each: each.path, reverse=True):
                self._settle(entry)

    def _open_up(self, entry: Entry) -> None:
        """A folder that its owner cannot write to cannot be changed; new ones are not there yet."""
        with contextlib.suppress(OSError), _folder(self._top, entry.path) as at:
            mode = stat.S_IMODE(os.fstat(at).st_mode)
            if mode & 0o700 != 0o700:
                os.fchmod(at, mode | 0o700)

    def _remove(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        with failing_as("remove", self._top / path), _folder(self._top, parent) as at:
            if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=at)
            else:
                os.unlink(name, dir_fd=at)

    def _make_folder(self, entry: Entry) -> None:
        with failing_as("make the folder", self._top / entry.path), _folder(self._top, entry.parent) as at:
            os.mkdir(entry.name, 0o700, dir_fd=at)

    def _make_link(self, entry: Entry) -> None:
        with failing_as("make the link", self._top / entry.path), _folder(self._top, entry.parent) as at:
            _discard(entry.name, at)
            os.symlink(entry.target, entry.name, dir_fd=at)
            if self._owner:
                os.chown(entry.name, *self._owner, dir_fd=at, follow_symlinks=False)
            os.utime(entry.name, ns=(_time_ns(entry), _time_ns(entry)), dir_fd=at, follow_symlinks=False)

    def _settle(self, entry: Entry) -> None:
        with failing_as("write", self._top / entry.path), _folder(self._top, entry.path) as at:
            if self._owner:
                os.fchown(at, *self._owner)
            os.fchmod(at, entry.mode)
            os.utime(at, ns=(_time_ns(entry), _time_ns(entry)))

    def _write_files(self, files: Iterable[Entry]) -> None:
        with ThreadPoolExecutor(_JOBS, thread_name_prefix="writer") as pool:
            try:
                for batch in self._batches(files):
                    while len(self._running) >= _JOBS * _AHEAD:
                        self._collect(everything=False)
                    self._running.add(pool.submit(self._write_batch, batch))
                self._collect(everything=True)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    @staticmethod
    def _batches(files: Iterable[Entry]) -> Iterator[_Batch]:
        batch = _Batch("")
        for entry in files:
            full = len(batch.files) >= _BATCH_FILES or batch.size_bytes >= _BATCH_BYTES
            if batch.files and (batch.parent != entry.parent or full):
                yield batch
                batch = _Batch(entry.parent)
            batch.parent = entry.parent
            batch.files.append(entry)
            batch.size_bytes += entry.size_bytes
        if batch.files:
            yield batch

    def _collect(self, *, everything: bool) -> None:
        while self._running:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                size = future.result()
                if self._progress:
                    self._progress(size)
            if not everything:
                return

    def _write_batch(self, batch: _Batch) -> int:
        written = 0
        with failing_as("write in", self._top / batch.parent), _folder(self._top, batch.parent) as at:
            for entry in batch.files:
                with failing_as("write", self._top / entry.path):
                    written += self._write(entry, at)
        return written

    def _write(self, entry: Entry, at: int) -> int:
        text = self._described.get(entry.path) if entry.size_bytes else None
        if text is not None:
            with _created(f"{GRAFT_PREFIX}{entry.name}", at, 0o600) as note:
                _write_all(note, text)
        with _created(entry.name, at, entry.mode & 0o777) as descriptor:
            if text is None:
                _copy(entry, descriptor)
                for name, value in entry.xattrs if self._site.xattrs else ():
                    os.setxattr(descriptor, name, value)
            if self._owner:
                os.fchown(descriptor, *self._owner)
            if self._owner or entry.mode & (self._umask | ~0o777):
                os.fchmod(descriptor, entry.mode)
            os.utime(descriptor, ns=(_time_ns(entry), _time_ns(entry)))
        return 0 if text is not None else entry.size_bytes


def _owner(site: Site) -> tuple[int, int] | None:
    """Whom new files are given to: root writes for the owner of the repository."""
    if os.geteuid() != 0 or site.user == "root":
        return None
    try:
        record = pwd.getpwnam(site.user)
    except KeyError:
        raise RepositoryError(f"the owner of {site.fqrn} is {site.user}, whom this machine does not know") from None
    return record.pw_uid, record.pw_gid


def _time_ns(entry: Entry) -> int:
    return entry.mtime_s * 1_000_000_000 + entry.mtime_ns


@contextlib.contextmanager
def _naming(site: Site) -> Iterator[None]:
    """A broken mount is told by its cause."""
    try:
        yield
    except DiskError as exc:
        if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.ENOTCONN:
            raise RepositoryError(
                f"the mount of {site.fqrn} on this machine broke: nothing was published",
                hint=remount_hint(site),
            ) from exc
        raise


@contextlib.contextmanager
def _folder(top: Path, inner: str) -> Iterator[int]:
    """A folder of the transaction, opened step by step without following a link."""
    at = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in inner.split("/") if inner else ():
            below = os.open(name, _FOLDER, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _discard(name: str, at: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=at)


@contextlib.contextmanager
def _created(name: str, at: int, mode: int) -> Iterator[int]:
    """A new file, in the place of an old one; most are new, and looking first costs time."""
    try:
        descriptor = os.open(name, _NEW, mode, dir_fd=at)
    except FileExistsError:
        _discard(name, at)
        descriptor = os.open(name, _NEW, mode, dir_fd=at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _umask() -> int:
    """What the system takes from the mode of new files; asking for it would set it."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        text = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(text.partition("\nUmask:")[2].split()[0], 8)
    return 0o777


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _copy(entry: Entry, target: int) -> None:
    """The bytes of a file; the system copies those that are on disk."""
    size = 0
    if isinstance(entry.content, str):
        try:
            source = os.open(entry.content, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            raise DiskError(f"cannot read {entry.content}: {exc.strerror}") from exc
        try:
            while count := os.sendfile(target, source, None, _COPY_BYTES):
                size += count
        finally:
            os.close(source)
    else:
        for block in entry_blocks(entry):
            _write_all(target, block)
            size += len(block)
    if size != entry.size_bytes:
        raise changed(entry)
