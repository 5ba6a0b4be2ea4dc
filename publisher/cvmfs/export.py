"""A plain copy of what is published: verified byte by byte, and cheap to bring up to date.

What lies in the repository is not trusted: files are opened relative to folders that were opened without
following links, so that no link in the copy can lead a write out of it; set-id bits are dropped; special files are
left out.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from publisher.cvmfs.disk import failing_as
from publisher.cvmfs.export_state import ExportState, Known, known_of, mark_of
from publisher.cvmfs.lock import exclusive
from publisher.cvmfs.reader import Reader, Stored, read_content
from publisher.cvmfs.source import Source
from publisher.cvmfs.variant import expand_variant
from publisher.errors import NotFoundError
from publisher.progress import Progress, Silent
from publisher.tree import Kind

STATE_NAME = ".afpub-export"
"""What the copy remembers of itself, in its top folder."""
_TEMPORARY = ".afpub-new-"
_NUMBERS = itertools.count()
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BATCH_FILES = 32
_BATCH_BYTES = 8 << 20
_AHEAD = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """What an export did."""

    written: int
    """Files that were written."""
    written_bytes: int
    kept: int
    """Files that were right already."""
    removed: int
    """Entries that are not published any more."""
    skipped: tuple[str, ...]
    """Special files, which a plain copy leaves out."""


def export(  # noqa: PLR0913 - source, place, and how
    reader: Reader,
    path: str,
    folder: Path,
    *,
    progress: Progress | None = None,
    jobs: int = 2,
    thorough: bool = False,
) -> ExportResult:
    """Makes, or brings up to date, a plain copy of a published directory.

    Each file is the old one or the new one at any time, and is put in place only when its digest was right.

    Args:
        reader: the revision to copy.
        path: a directory in it.
        folder: becomes the copy.
        progress: hears about it.
        jobs: threads that unpack.
        thorough: look at every file, also where the nested catalog says that nothing changed.

    Raises:
        NotFoundError: there is no such directory.
        TrustError: an object is damaged.
        DiskError: the disk is full or cannot be written.
    """
    top = reader.lookup(path)
    if top is None or top.entry.kind is not Kind.DIRECTORY:
        raise NotFoundError(f"there is no directory /{path.strip('/')} in {reader.source.where}")
    with failing_as("make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        exclusive(folder / f"{STATE_NAME}.lock", what=f"the copy {folder}"),
        ExportState(folder / STATE_NAME, of=f"{reader.fqrn} /{path.strip('/')}") as state,
    ):
        copy = _Copy(reader, folder, state, progress or Silent(), jobs=jobs, thorough=thorough)
        return copy.run(path.strip("/"))


@dataclass(slots=True)
class _Batch:
    """Files of one folder that are written by one job."""

    inner: str
    files: list[Stored] = field(default_factory=list)
    size_bytes: int = 0


class _Copy:
    """One run of an export."""

    def __init__(  # noqa: PLR0913 - the parts of one run
        self,
        reader: Reader,
        folder: Path,
        state: ExportState,
        progress: Progress,
        *,
        jobs: int,
        thorough: bool,
    ) -> None:
        self._reader = reader
        self._folder = folder
        self._state = state
        self._progress = progress
        self._jobs = jobs
        self._thorough = thorough
        self._pool = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="export")
        self._running: set[Future[list[tuple[str, Known]]]] = set()
        self._kept = 0
        self._written = 0
        self._written_bytes = 0
        self._skipped: list[str] = []
        self._directories: list[tuple[str, Stored]] = []
        self._catalogs: dict[str, str] = {}

    def run(self, path: str) -> ExportResult:
        """Writes, then removes, then settles the folders; only then are catalogs known to be complete."""
        try:
            seen = self._write_all(path)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
        removed = self._remove_others(seen)
        for inner, stored in reversed(self._directories):
            self._finish_directory(inner, stored)
        self._state.finish(self._catalogs)
        return ExportResult(
            written=self._written,
            written_bytes=self._written_bytes,
            kept=self._kept,
            removed=removed,
            skipped=tuple(self._skipped),
        )

    def _write_all(self, path: str) -> set[str]:
        seen: set[str] = set()
        batch = _Batch("")
        strip = len(path) + 1 if path else 0
        whole: set[str] = set()

        def unchanged(stored: Stored) -> bool:
            inner = stored.path[strip:]
            if stored.catalog is None:
                return False
            if inner:
                self._catalogs[inner] = str(stored.catalog)
            same = not self._thorough and bool(inner) and self._state.catalog(inner) == str(stored.catalog)
            if same and self._is_folder(inner):
                whole.add(inner)
                return True
            self._state.forget_catalogs([inner])
            return False

        for stored in self._reader.walk(path, skip=unchanged):
            inner = stored.path[strip:]
            seen.add(inner)
            if inner in whole:
                below, catalogs = self._state.below(inner)
                seen |= below
                self._catalogs |= catalogs
                self._kept += len(below)
                continue
            parent = inner.rpartition("/")[0]
            if batch.files and (
                batch.inner != parent or len(batch.files) >= _BATCH_FILES or batch.size_bytes >= _BATCH_BYTES
            ):
                self._submit(batch)
                batch = _Batch(parent)
            self._one(inner, stored, batch, parent)
        if batch.files:
            self._submit(batch)
        self._collect(everything=True)
        return seen

    def _one(self, inner: str, stored: Stored, batch: _Batch, parent: str) -> None:
        kind = stored.entry.kind
        if inner.startswith(STATE_NAME) or stored.entry.name.startswith(_TEMPORARY):
            self._skipped.append(inner)
        elif kind is Kind.DIRECTORY:
            self._make_directory(inner, stored)
            self._directories.append((inner, stored))
        elif kind is Kind.SYMLINK:
            self._make_symlink(inner, stored)
        elif kind is not Kind.FILE or stored.external:
            self._skipped.append(inner)
        elif self._is_right(inner, stored):
            self._kept += 1
        else:
            batch.inner = parent
            batch.files.append(stored)
            batch.size_bytes += stored.entry.size_bytes

    def _is_folder(self, inner: str) -> bool:
        try:
            with _folder(self._folder, inner):
                return True
        except OSError:
            return False

    def _is_right(self, inner: str, stored: Stored) -> bool:
        known = self._state.file(inner)
        if known is None or known.content != mark_of(stored):
            return False
        with contextlib.suppress(OSError), _folder(self._folder, inner.rpartition("/")[0]) as at:
            info = os.stat(stored.entry.name, dir_fd=at, follow_symlinks=False)
            return stat.S_ISREG(info.st_mode) and known_of(info, stored) == known
        return False

    def _make_directory(self, inner: str, stored: Stored) -> None:
        with failing_as("make the folder", self._folder / inner):
            parent, _, name = inner.rpartition("/")
            if inner:
                with _folder(self._folder, parent) as at:
                    _make_folder(name, at)
                self._remember(inner, stored)
            with _folder(self._folder, inner) as at:
                for left in os.listdir(at):  # noqa: PTH208 - of an open folder
                    if left.startswith(_TEMPORARY):  # by a run that was killed
                        os.unlink(left, dir_fd=at)

    def _remember(self, inner: str, stored: Stored) -> None:
        known = self._state.file(inner)
        now = Known(content=mark_of(stored), mode=0, size_bytes=0, mtime_ns=0)
        if known != now:
            self._state.add([(inner, now)])

    def _make_symlink(self, inner: str, stored: Stored) -> None:
        target = expand_variant(stored.entry.target, {})
        self._remember(inner, stored)
        parent, _, name = inner.rpartition("/")
        with failing_as("make the link", self._folder / inner), _folder(self._folder, parent) as at:
            with contextlib.suppress(OSError):
                if os.readlink(name, dir_fd=at) == target:
                    return
            temporary = f"{_TEMPORARY}link"
            _discard(temporary, at)
            os.symlink(target, temporary, dir_fd=at)
            _make_room(name, at)
            os.replace(temporary, name, src_dir_fd=at, dst_dir_fd=at)

    def _submit(self, batch: _Batch) -> None:
        while len(self._running) >= self._jobs * _AHEAD:
            self._collect(everything=False)
        files = tuple(batch.files)
        self._running.add(self._pool.submit(_write_files, self._reader.source, self._folder, batch.inner, files))

    def _collect(self, *, everything: bool) -> None:
        while self._running:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                rows = future.result()
                self._state.add(rows)
                self._written += len(rows)
                self._written_bytes += sum(known.size_bytes for _, known in rows)
                self._progress.advance(self._written_bytes, 0, "bytes")
            if not everything:
                return

    def _remove_others(self, seen: set[str]) -> int:
        """Removes what an earlier run put here and is published no longer; other things are left alone."""
        gone = sorted(self._state.paths() - seen, reverse=True)
        self._state.forget_catalogs(gone)
        for inner in gone:
            parent, _, name = inner.rpartition("/")
            with (
                failing_as("remove", self._folder / inner),
                _tolerating_absence(),
                _folder(self._folder, parent) as at,
            ):
                os.fchmod(at, stat.S_IMODE(os.fstat(at).st_mode) | 0o700)
                _remove(name, at)
        self._state.forget(gone)
        return len(gone)

    def _finish_directory(self, inner: str, stored: Stored) -> None:
        entry = stored.entry
        with failing_as("write", self._folder / inner), _folder(self._folder, inner) as at:
            if inner:
                os.fchmod(at, entry.mode & 0o1777)
            os.utime(at, ns=(_time_ns(stored), _time_ns(stored)))


def _time_ns(stored: Stored) -> int:
    return stored.entry.mtime_s * 1_000_000_000 + stored.entry.mtime_ns


@contextlib.contextmanager
def _folder(top: Path, inner: str) -> Iterator[int]:
    """A folder of the copy, opened step by step without following a link."""
    at = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in inner.split("/") if inner else ():
            below = os.open(name, _OPEN_FOLDER, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


@contextlib.contextmanager
def _tolerating_absence() -> Iterator[None]:
    """What is to be removed may be gone, or below something that is no folder any more."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise


def _make_folder(name: str, at: int) -> None:
    try:
        info = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=at)
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(name, dir_fd=at)
        os.mkdir(name, 0o700, dir_fd=at)
    elif info.st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=at)  # a folder that its owner cannot write to cannot be filled


def _write_files(source: Source, top: Path, inner: str, files: tuple[Stored, ...]) -> list[tuple[str, Known]]:
    done = []
    with failing_as("write in", top / inner), _folder(top, inner) as at:
        for stored in files:
            name = stored.entry.name
            with failing_as("write", top / inner / name):
                info = _write_file(source, at, stored)
            done.append((f"{inner}/{name}" if inner else name, known_of(info, stored)))
    return done


def _write_file(source: Source, at: int, stored: Stored) -> os.stat_result:
    name = stored.entry.name
    temporary = f"{_TEMPORARY}{next(_NUMBERS)}"
    _discard(temporary, at)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=at)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in read_content(source, stored):
                file.write(piece)
            file.flush()
            os.fchmod(descriptor, stored.entry.mode & 0o777)
            os.utime(descriptor, ns=(_time_ns(stored), _time_ns(stored)))
        _make_room(name, at)
        os.replace(temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        _discard(temporary, at)
        raise
    return os.stat(name, dir_fd=at, follow_symlinks=False)


def _discard(name: str, at: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=at)


def _make_room(name: str, at: int) -> None:
    """Removes a folder that is in the way; a file or link is replaced in one step later."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            _remove(name, at)


def _remove(name: str, at: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        info = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            shutil.rmtree(name, dir_fd=at)
        else:
            os.unlink(name, dir_fd=at)
