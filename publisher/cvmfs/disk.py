"""Writing to disk: a crash leaves the old file or the new one, and failures say which file they are about."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from publisher.errors import DiskError

FILE_MODE = 0o644
"""Repositories are public: a web server must be able to read what is written, whatever the umask."""
FOLDER_MODE = 0o755
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def failing_as(action: str, path: Path | str) -> Iterator[None]:
    """Turns an operating system error into a DiskError that names the file."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or str(exc)
        hint = "make room on the disk and run it again" if exc.errno in {28, 122} else ""
        raise DiskError(f"cannot {action} {path}: {reason}", hint=hint) from exc


def make_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Makes a folder, and those above it, where they are missing."""
    with failing_as("make the folder", path):
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)


def write_new(path: Path | str, data: bytes, mode: int = FILE_MODE) -> None:
    """Writes a file that must not exist, without waiting for the disk."""
    with failing_as("write", path):
        descriptor = os.open(path, _NEW, mode)
        try:
            if os.fstat(descriptor).st_mode & 0o7777 != mode:  # the umask took something away
                os.fchmod(descriptor, mode)
            written = os.write(descriptor, data)
            while written < len(data):
                written += os.write(descriptor, memoryview(data)[written:])
        finally:
            os.close(descriptor)


def replace_file(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Puts a file in the place of another one, on disk when this returns."""
    temporary = path.with_name(f"{path.name}.new-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        write_new(temporary, data, mode)
        with failing_as("write", path):
            sync_path(temporary)
            os.replace(temporary, path)  # noqa: PTH105 - the call that is atomic, by its own name
            sync_path(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sync_path(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(folder: Path) -> None:
    """Waits until everything on the folder's file system is on disk: one wait for thousands of files."""
    with failing_as("sync", folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _LIBC.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(descriptor)
