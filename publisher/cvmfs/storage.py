"""Where repositories are written to: the protocol, and the folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, Protocol

from publisher.cvmfs.disk import failing_as, make_folder, replace_file, sync_filesystem, sync_path
from publisher.cvmfs.source import FolderSource, Source

SIDE_FOLDER: Final = ".afpub"
"""What afpub keeps beside a repository; no reader needs it, and no web server should show it (mode 0700)."""
_MANY_FOLDERS = 16


class Storage(Source, Protocol):
    """A repository's files, to be read and written.

    Objects are written once and never change. The few other files are the repository's present state; they are replaced
    as a whole, and where others can write as well, only when they are what was read (:meth:`read_state`).
    """

    @property
    def where(self) -> str:
        """The folder or address, for messages."""
        ...

    @property
    def spool(self) -> Path:
        """A local folder for what this machine needs to write: lock, content index; may be lost at any time."""
        ...

    @property
    def scratch(self) -> Path:
        """A local folder for objects that wait for their names."""
        ...

    @property
    def local(self) -> str:
        """What the paths of its files begin with on this machine; empty where they are not on a disk of it."""
        ...

    @property
    def batch(self) -> tuple[int, int]:
        """How many objects, and how many bytes of them, are best put at once."""
        ...

    def prepare(self) -> None:
        """Makes the local folders.

        Raises:
            DiskError: that is not possible.
        """
        ...

    def tidy(self, *names: str) -> None:
        """Removes what killed writers of some files that are no objects left; only for who holds their lock."""
        ...

    def check_apart(self, *, one_publisher: bool) -> None:
        """To be called by who is about to change something, before anything is written.

        Args:
            one_publisher: only one machine ever publishes, so that nobody has to be kept away.

        Raises:
            RepositoryError: two publishers at once could lose what one of them did.
        """
        ...

    def guard(self) -> None:
        """To be called by publishers when they have read the manifest: nobody must be removing objects.

        Raises:
            TransactionOpenError: somebody is.
        """
        ...

    def sweeping(self) -> AbstractContextManager[None]:
        """Keeps publishers of other machines away while objects are removed.

        Raises:
            TransactionOpenError: somebody else is removing objects.
        """
        ...

    @property
    def shared(self) -> bool:
        """True when the lock does not keep everybody else from writing."""
        ...

    def size_of(self, name: str) -> int | None:
        """The size of an object; None where there is none."""
        ...

    def look(self, names: Iterable[str]) -> None:
        """Says that the sizes of these objects will be asked for."""
        ...

    def send(self, name: str, temporary: str) -> None:
        """Takes a file that :meth:`put_objects` will be given, where beginning early saves time.

        Raises:
            RepositoryError: it is no use to go on.
        """
        ...

    def stop(self) -> None:
        """Lets go of all files that were taken; to be called before they are removed."""
        ...

    def put_objects(self, waiting: Mapping[str, str], *, replace: bool = False) -> Sequence[tuple[str, int]]:
        """Gives files in :attr:`scratch` the names of objects; all are safe, and the files gone, when this returns.

        Args:
            waiting: the files, by the names that they get.
            replace: put them in the place of what has these names.

        Returns:
            names and sizes of those that were there already, where that was not asked for before.

        Raises:
            DiskError: that is not possible; calling it again goes on.
            RepositoryError: likewise, for a storage that is no disk.
        """
        ...

    def folders(self) -> Iterator[list[tuple[str, int]]]:
        """Names and sizes of all files in ``data/00`` to ``data/ff``, sorted; what is no object among them."""
        ...

    def remove_objects(self, names: Collection[str]) -> None:
        """Removes objects; those that are not there are no trouble."""
        ...

    def read_state(self, name: str) -> bytes | None:
        """A file that is no object, and from now on the one that :meth:`put_state` may replace; None for none."""
        ...

    def put_state(self, name: str, data: bytes) -> None:
        """Puts a file that is no object in the place of the one that was read, or of any if none was read.

        Raises:
            StaleBaseError: another one is there by now.
        """
        ...


class FolderStorage(FolderSource):
    """A repository in a local folder. The lock in it keeps all other writers away."""

    shared = False
    batch = (4_096, 256 << 20)

    @property
    def local(self) -> str:
        """See :class:`Storage`; text, since there are many objects, and path objects take longer than the calls."""
        return self._prefix

    def __init__(self, folder: Path, *, spool: Path | None = None) -> None:
        super().__init__(folder)
        self.spool = spool or folder / SIDE_FOLDER
        self.scratch = folder / "data" / "txn"
        self._prefix = f"{folder}/"

    def prepare(self) -> None:
        """See :class:`Storage`."""
        make_folder(self.spool, 0o700)
        make_folder(self.folder / "data")
        make_folder(self.scratch)

    def tidy(self, *names: str) -> None:
        """See :class:`Storage`: state that was not put in place."""
        for name in names:
            for path in self.folder.glob(f"{name}.new-*"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def check_apart(self, *, one_publisher: bool) -> None:
        """See :class:`Storage`: the lock does it."""

    def guard(self) -> None:
        """See :class:`Storage`: the lock does it."""

    def sweeping(self) -> AbstractContextManager[None]:
        """See :class:`Storage`: the lock does it."""
        return nullcontext()

    def size_of(self, name: str) -> int | None:
        """See :class:`Storage`."""
        try:
            return os.stat(self._prefix + name).st_size  # noqa: PTH116 - a path as text
        except OSError:
            return None

    def look(self, names: Iterable[str]) -> None:
        """See :class:`Storage`: a disk answers at once."""

    def send(self, name: str, temporary: str) -> None:
        """See :class:`Storage`: names come when all bytes are on disk."""

    def stop(self) -> None:
        """See :class:`Storage`: none was taken."""

    def put_objects(self, waiting: Mapping[str, str], *, replace: bool = False) -> tuple[()]:  # noqa: ARG002 - names are always replaced
        """See :class:`Storage`; names come when the bytes are on disk, so that whatever bears one is whole."""
        sync_filesystem(self.folder)
        touched: set[str] = set()
        for name, temporary in waiting.items():
            path = self._prefix + name
            parent = path.rpartition("/")[0]
            if parent not in touched:
                make_folder(Path(parent))
                touched.add(parent)
            with failing_as("write", path):
                os.replace(temporary, path)  # noqa: PTH105 - the call that is atomic, by its own name
        self._sync_names(touched)
        return ()

    def _sync_names(self, touched: set[str]) -> None:
        """Waits until the new names are on disk: folder by folder, or all at once where there are many."""
        if len(touched) > _MANY_FOLDERS:
            sync_filesystem(self.folder)
            return
        with failing_as("sync", self.folder / "data"):
            for parent in sorted(touched):
                sync_path(Path(parent))
            sync_path(self.folder / "data")

    def folders(self) -> Iterator[list[tuple[str, int]]]:
        """See :class:`Storage`; links, folders and the like are left out."""
        return (list(self._files(number)) for number in range(256))

    def _files(self, number: int) -> Iterator[tuple[str, int]]:
        place = self.folder / "data" / f"{number:02x}"
        if place.is_symlink() or not place.is_dir():
            return
        with failing_as("read the folder", place):
            items = sorted(os.scandir(place), key=lambda item: item.name)
        for item in items:
            if item.is_file(follow_symlinks=False):
                with failing_as("read", item.path):
                    yield f"data/{place.name}/{item.name}", item.stat(follow_symlinks=False).st_size

    def remove_objects(self, names: Collection[str]) -> None:
        """See :class:`Storage`."""
        for name in names:
            with failing_as("remove", self._prefix + name):
                (self.folder / name).unlink(missing_ok=True)

    def read_state(self, name: str) -> bytes | None:
        """See :class:`Storage`."""
        path = self.folder / name
        with failing_as("read", path), contextlib.suppress(FileNotFoundError):
            return path.read_bytes()
        return None

    def put_state(self, name: str, data: bytes) -> None:
        """See :class:`Storage`; the lock sees to it that nobody else replaced it."""
        replace_file(self.folder / name, data)
