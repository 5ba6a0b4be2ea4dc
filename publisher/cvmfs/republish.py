"""The tree of an earlier revision becomes the newest one again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.catalog_writer import encode_catalog
from publisher.cvmfs.compression import METADATA
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.draft import Draft, draft_of
from publisher.cvmfs.drafts import Outcome
from publisher.cvmfs.location import Location
from publisher.cvmfs.publish import Session, commit_outcome, session, tagged_history
from publisher.names import TagName


def republish(  # noqa: PLR0913 - one call with everything a revision is made of
    location: Location,
    revision: str | int | Digest,
    *,
    keys_folder: Path,
    now: datetime,
    tag: TagName | None = None,
    description: str = "",
    wait_s: float = 0.0,
) -> Outcome:
    """Makes the tree of an earlier revision the newest one again, as a new revision; nothing else is read.

    Args:
        location: the repository.
        revision: a tag, number or root digest.
        keys_folder: holds the certificate and the private repository key.
        now: the time of the new revision.
        tag: a name for it, which must be new.
        description: of the tag.
        wait_s: how long to wait for another publisher, in seconds.

    Raises:
        NotFoundError: there is no such revision.
        AlreadyPublishedError: the tag exists.
        TransactionOpenError: another publisher holds the repository.
        RepositoryError: a catalog of the revision is missing or damaged.
    """
    with session(location, keys_folder=keys_folder, now=now, wait_s=wait_s) as held, held.reader.at(revision) as old:
        info = next(iter(tuple(old.catalogs())))  # all are read: none may be missing
        ref = CatalogRef(path="", digest=info.digest, size_bytes=info.size_bytes)
        outcome = _reborn(held, draft_of(old.catalog, ref))
        history = tagged_history(held.reader, outcome, held.now_s, tag, description)
        if outcome.changed or history is not None:
            commit_outcome(held, outcome, history or held.reader.history())
        return outcome


def _reborn(held: Session, draft: Draft) -> Outcome:
    reader, manifest = held.reader, held.reader.manifest
    head = CatalogRef(path="", digest=manifest.root, size_bytes=manifest.root_size_bytes)
    newest = draft_of(reader.catalog, head)
    if (newest.rows, newest.nested, newest.binds) == (draft.rows, draft.nested, draft.binds):
        return Outcome(root=head, revision=manifest.revision, changed=False, catalogs_written=0)
    assert draft.former is not None
    contents = draft.contents(
        revision=manifest.revision + 1,
        now_s=held.now_s,
        ttl_s=held.settings.ttl_s,
        subtree=draft.former.subtree,
    )
    properties = {**contents.properties, "previous_revision": str(manifest.root)}
    data = encode_catalog(replace(contents, properties=properties))
    digest = held.store.add(data, ObjectKind.CATALOG, METADATA)
    root = CatalogRef(path="", digest=digest, size_bytes=len(data))
    return Outcome(root=root, revision=manifest.revision + 1, changed=True, catalogs_written=1)
