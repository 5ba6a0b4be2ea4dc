"""Names for revisions: adding and removing them without a new revision."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.commit import Commit, commit, read_reflog
from publisher.cvmfs.digest import Digest
from publisher.cvmfs.history import TRUNK, TRUNK_PREVIOUS, History, Tag
from publisher.cvmfs.location import Location
from publisher.cvmfs.publish import Session, session
from publisher.errors import AlreadyPublishedError, NotFoundError
from publisher.names import TagName


def add_tag(  # noqa: PLR0913 - a tag and the way to sign it
    location: Location,
    name: TagName,
    *,
    keys_folder: Path,
    now: datetime,
    revision: str | int | Digest | None = None,
    description: str = "",
    wait_s: float = 0.0,
) -> Tag:
    """Gives a revision a name.

    Args:
        location: the repository.
        name: the tag.
        keys_folder: holds the certificate and the private repository key.
        now: the time of the change.
        revision: a tag, number or root digest; the newest when left out.
        description: of the tag.
        wait_s: how long to wait for another publisher, in seconds.

    Raises:
        AlreadyPublishedError: the tag exists.
        NotFoundError: there is no such revision.
        TransactionOpenError: another publisher holds the repository.
    """
    with session(location, keys_folder=keys_folder, now=now, wait_s=wait_s) as held:
        history = held.reader.history()
        former = history.tag(name)
        if former is not None:
            raise AlreadyPublishedError(
                f"the tag {name!r} exists already: it names revision {former.revision}",
                hint="choose another tag, or remove this one first",
            )
        target = held.reader.at(TRUNK if revision is None else revision)
        with target:
            info = next(iter(target.catalogs()))
            tag = Tag(
                name=name,
                root=info.digest,
                revision=target.revision,
                published_s=int(info.properties.get("last_modified", "0")),
                description=description,
                size_bytes=info.size_bytes,
            )
        _commit(held, history.with_tag(tag))
    return tag


def remove_tag(location: Location, name: str, *, keys_folder: Path, now: datetime, wait_s: float = 0.0) -> None:
    """Forgets a name; the revision stays.

    Raises:
        NotFoundError: there is no such tag, or it is the repository's own.
        TransactionOpenError: another publisher holds the repository.
    """
    with session(location, keys_folder=keys_folder, now=now, wait_s=wait_s) as held:
        history = held.reader.history()
        if history.tag(name) is None or name in {TRUNK, TRUNK_PREVIOUS}:
            names = sorted(tag.name for tag in history.tags if tag.name not in {TRUNK, TRUNK_PREVIOUS})
            raise NotFoundError(
                f"{held.storage.where} has no tag {name!r} that can be removed",
                hint=f"tags: {', '.join(names) or 'none'}",
            )
        _commit(held, history.without_tag(name))


def _commit(held: Session, history: History) -> None:
    manifest = held.reader.manifest
    change = Commit(
        former=manifest,
        root=CatalogRef(path="", digest=manifest.root, size_bytes=manifest.root_size_bytes),
        revision=manifest.revision,
        ttl_s=manifest.ttl_s,
        garbage_collectable=manifest.garbage_collectable,
        history=replace(history, previous=str(manifest.history or "")),
        now_s=held.now_s,
    )
    reflog = read_reflog(held.storage, manifest, held.reader.history())
    commit(held.store, held.signer, change, reflog)
