"""Garbage collection: what no kept revision needs is removed from the store.

First everything that is to stay is marked, then reflog and manifest say what is left, and only then objects are
removed. A collection that is killed leaves garbage for the next one, never a revision without its objects.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.check_objects import parse_object_name
from publisher.cvmfs.commit import commit_reflog, read_reflog, reflog_stands
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.disk import failing_as
from publisher.cvmfs.loading import open_catalog
from publisher.cvmfs.location import Location, storage_of
from publisher.cvmfs.marking import Kept, Marks, choose, mark
from publisher.cvmfs.publish import Session, session
from publisher.cvmfs.reader import Reader, open_repository
from publisher.cvmfs.reflog import RefKind, Reflog
from publisher.cvmfs.settings import SETTINGS_NAME, encode_settings
from publisher.cvmfs.source import is_there
from publisher.cvmfs.storage import Storage
from publisher.errors import FormatError, RepositoryError, TrustError, UsageError

GRACE = timedelta(days=3)
"""As long as the CVMFS tools keep revisions that have no name."""
_FOREIGN_AGE_S = 24 * 3600
"""From this age on a temporary file that another tool left is stale: no upload of one object takes a day."""
_OWN_PREFIX = "afpub-"
Tell = Callable[[str, int], None]
"""Gets the phase, ``marking`` or ``sweeping``, and how many catalogs or folders are done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """A revision that stays, or goes."""

    root: Digest
    number: int | None
    """None where its root catalog cannot be read any more."""
    added_s: int
    """When it was published, seconds since 1970; 0 where the reflog does not say."""
    why: tuple[str, ...] = ()
    """Why it stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """What a garbage collection did, or would do."""

    dry_run: bool
    kept: tuple[Revision, ...]
    dropped: tuple[Revision, ...]
    objects_kept: int
    removed: Mapping[ObjectKind, int]
    """Number of removed objects of each kind."""
    removed_bytes: int
    """Of removed objects, as they were stored."""
    temporaries: int
    """Stale files in ``data/txn`` that were removed."""
    seconds: float

    @property
    def objects_removed(self) -> int:
        """The number of removed objects of all kinds."""
        return sum(self.removed.values())


def preview_garbage(
    location: Location, *, now: datetime, grace: timedelta = GRACE, tell: Tell | None = None
) -> Collection:
    """What a collection would remove; nothing is changed, neither keys nor the lock are needed.

    Raises:
        RepositoryError: there is no repository, or a revision that would be kept is damaged.
    """
    start = time.monotonic()
    _check_grace(grace)
    storage = storage_of(location)
    with open_repository(storage) as reader:
        reflog = read_reflog(storage, reader.manifest, reader.history())
        kept = choose(reader, reflog, oldest_s=int((now - grace).timestamp()))
        marks = mark(reader.source, kept, _mark_teller(tell))
        sums = _Sums()
        _sweep(storage, marks, sums, remove=False, tell=tell)
        stale = sum(1 for _ in _stale_files(storage.scratch, now))
        return _collection(reader, reflog, kept, sums, dry_run=True, stale=stale, start=start)


def collect_garbage(  # noqa: PLR0913 - what to keep, and how to be allowed to
    location: Location,
    *,
    keys_folder: Path,
    now: datetime,
    grace: timedelta = GRACE,
    enable: bool = False,
    wait_s: float = 0.0,
    tell: Tell | None = None,
) -> Collection:
    """Removes all revisions but the newest, the tagged and the recent ones, and every object nobody needs then.

    Args:
        location: the repository.
        keys_folder: holds its certificate and its private repository key.
        now: the present.
        grace: how long a revision without a name stays after it was replaced.
        enable: declare the repository garbage collectable first; otherwise one that is not is refused.
        wait_s: how long to wait for a publisher, in seconds.
        tell: told from time to time how far it has come.

    Raises:
        TransactionOpenError: a publisher holds the repository.
        TrustError: the keys or the whitelist do not allow to change it.
        RepositoryError: it is not garbage collectable, or a revision to be kept is damaged; nothing was removed.
        DiskError: an object cannot be removed; the repository is whole, the rest goes the next time.
    """
    start = time.monotonic()
    _check_grace(grace)
    storage = storage_of(location)
    with session(storage, keys_folder=keys_folder, now=now, wait_s=wait_s, removing=True) as held:
        _check_allowed(held, enable=enable)
        reader = held.reader
        reflog = read_reflog(storage, reader.manifest, reader.history())
        kept = choose(reader, reflog, oldest_s=int((now - grace).timestamp()))
        marks = mark(reader.source, kept, _mark_teller(tell))
        result = _collection(reader, reflog, kept, _Sums(), dry_run=False, stale=0, start=start)
        _declare(held, reflog, kept)
        _forget(held, marks)
        sums = _Sums()
        _sweep(storage, marks, sums, remove=True, tell=tell)
        stale = _remove_stale(storage.scratch, now)
    return replace(
        result,
        objects_kept=sums.kept,
        removed=dict(sums.removed),
        removed_bytes=sums.removed_bytes,
        temporaries=stale,
        seconds=time.monotonic() - start,
    )


def _check_grace(grace: timedelta) -> None:
    if grace < timedelta(0):
        raise UsageError("the grace period cannot be negative")


def _check_allowed(held: Session, *, enable: bool) -> None:
    if not held.reader.manifest.garbage_collectable and not enable:
        raise RepositoryError(
            f"{held.storage.where} is not garbage collectable: its manifest promises that old revisions stay",
            hint="if nobody relies on that any more, say so for good: afpub repo gc --enable",
        )


def _declare(held: Session, reflog: Reflog, kept: Kept) -> None:
    """Reflog and manifest say what is left, before anything goes."""
    manifest = held.reader.manifest
    wanted = replace(manifest, garbage_collectable=True)
    if not manifest.garbage_collectable and is_there(held.storage, SETTINGS_NAME):
        settings = replace(held.settings, garbage_collectable=True)
        held.storage.put_state(SETTINGS_NAME, encode_settings(settings))
    changed = kept.reflog != reflog or wanted != manifest or not reflog_stands(held.storage, manifest)
    if changed or held.storage.shared:  # then whoever read the manifest before must notice
        commit_reflog(held.store, held.signer, wanted, kept.reflog)


def _forget(held: Session, marks: Marks) -> None:
    number, kept = -1, set[bytes]()

    def is_kept(raw: bytes) -> bool:
        nonlocal number, kept
        if raw[0] != number:  # they come sorted
            number, kept = raw[0], marks.digests(raw[0])
        return raw in kept

    held.store.forget(is_kept)


def _mark_teller(tell: Tell | None) -> Callable[[int], None]:
    return (lambda done: tell("marking", done)) if tell else (lambda _: None)


class _Sums:
    """What a sweep went through."""

    def __init__(self) -> None:
        self.kept = 0
        self.removed: Counter[ObjectKind] = Counter()
        self.removed_bytes = 0


def _sweep(storage: Storage, marks: Marks, sums: _Sums, *, remove: bool, tell: Tell | None) -> None:
    for number, listed in enumerate(storage.folders()):
        marked = marks.folder(number)
        doomed = []
        for name, size_bytes in listed:
            try:
                digest, kind = parse_object_name(name)
            except FormatError:
                continue  # what is no object is left to afpub repo fsck
            if Marks.key(digest.raw, kind) in marked:
                sums.kept += 1
                continue
            doomed.append(name)
            sums.removed[kind] += 1
            sums.removed_bytes += size_bytes
        if remove and doomed:
            storage.remove_objects(doomed)
        if tell:
            tell("sweeping", number + 1)


def _stale_files(place: Path, now: datetime) -> Iterator[Path]:
    """What publishers that died left: all of our own, and what other tools have not touched for a day."""
    with failing_as("read the folder", place):
        items = list(os.scandir(place)) if place.is_dir() else []
        for item in items:
            old = item.stat(follow_symlinks=False).st_mtime < now.timestamp() - _FOREIGN_AGE_S
            if item.is_file(follow_symlinks=False) and (old or item.name.startswith(_OWN_PREFIX)):
                yield Path(item.path)


def _remove_stale(place: Path, now: datetime) -> int:
    stale = list(_stale_files(place, now))
    for path in stale:
        with failing_as("remove", path):
            path.unlink(missing_ok=True)
    return len(stale)


def _collection(  # noqa: PLR0913 - all that is known of a collection
    reader: Reader, reflog: Reflog, kept: Kept, sums: _Sums, *, dry_run: bool, stale: int, start: float
) -> Collection:
    times = {ref.digest: ref.added_s for ref in reflog.refs if ref.kind is RefKind.CATALOG}
    stays = {root.ref.digest: root.why for root in kept.roots}
    return Collection(
        dry_run=dry_run,
        kept=tuple(_revision(reader, digest, times, why) for digest, why in stays.items()),
        dropped=tuple(_revision(reader, digest, times, ()) for digest in times if digest not in stays),
        objects_kept=sums.kept,
        removed=dict(sums.removed),
        removed_bytes=sums.removed_bytes,
        temporaries=stale,
        seconds=time.monotonic() - start,
    )


def _revision(reader: Reader, root: Digest, times: Mapping[Digest, int], why: tuple[str, ...]) -> Revision:
    number = None
    try:
        catalog = open_catalog(reader.source, CatalogRef(path="", digest=root, size_bytes=0))
    except (RepositoryError, TrustError):
        pass  # a root that cannot be read goes as well
    else:
        number = catalog.revision
        catalog.close()
    return Revision(root=root, number=number, added_s=times.get(root, 0), why=why)
