"""Creating a repository: all at once, or not at all."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from publisher.cvmfs.catalog import SCHEMA, SCHEMA_REVISION, CatalogRef
from publisher.cvmfs.catalog_writer import CatalogContents, encode_catalog
from publisher.cvmfs.commit import Commit, commit
from publisher.cvmfs.compression import METADATA
from publisher.cvmfs.counters import Counters, Statistics, count
from publisher.cvmfs.digest import ObjectKind
from publisher.cvmfs.disk import failing_as, make_folder, sync_path
from publisher.cvmfs.history import History, Tag
from publisher.cvmfs.keys import KeyFiles
from publisher.cvmfs.location import Location, storage_of
from publisher.cvmfs.lock import claim
from publisher.cvmfs.manifest import MANIFEST_NAME, Manifest
from publisher.cvmfs.reflog import REFLOG_NAME, Reflog
from publisher.cvmfs.rows import DIRECTORY_SIZE, Flag, Row
from publisher.cvmfs.settings import SETTINGS_NAME, Settings, encode_settings
from publisher.cvmfs.signing import SignHash, load_signer, master_signer, new_whitelist, signed_whitelist
from publisher.cvmfs.storage import FolderStorage, Storage
from publisher.cvmfs.store import ObjectStore
from publisher.cvmfs.whitelist import WHITELIST_NAME
from publisher.errors import DiskError, RepositoryError
from publisher.names import Fqrn

FIRST_REVISION = 1
_REPLICA = ".cvmfs_master_replica"
"""Its presence allows replication to a stratum 1."""


@dataclass(frozen=True, slots=True)
class _Making:
    """What a repository is made of."""

    fqrn: Fqrn
    files: KeyFiles
    settings: Settings
    now: datetime
    metainfo: Mapping[str, object]
    sign: SignHash | None


def create_repository(  # noqa: PLR0913 - what a repository is made of
    location: Location,
    fqrn: Fqrn,
    *,
    keys_folder: Path,
    settings: Settings,
    now: datetime,
    metainfo: Mapping[str, object] | None = None,
    sign: SignHash | None = None,
) -> Manifest:
    """Makes a repository with an empty root and a whitelist for 30 days.

    In a folder it is built beside its place and moved there when it is whole; in a bucket the manifest comes last.

    Args:
        location: where; a folder must not exist, or be empty.
        fqrn: the repository's name.
        keys_folder: holds its keys, see :func:`publisher.cvmfs.keys.create_keys`.
        settings: how it is written, from now on.
        now: the time of its first revision.
        metainfo: what administrators are to know: administrator, email, organisation, description...
        sign: signs the whitelist; the master key in the keys folder when left out.

    Raises:
        DiskError: something else is in the folder, or the disk is full or broken.
        RepositoryError: something else is in the bucket, or it cannot be written to.
        TrustError: a key is missing.
    """
    making = _Making(fqrn, KeyFiles(folder=keys_folder, fqrn=fqrn), settings, now, metainfo or {}, sign)
    storage = storage_of(location)
    if isinstance(storage, FolderStorage):
        return _create_in_folder(storage.folder, making)
    if storage.read_state(MANIFEST_NAME) is not None:
        raise RepositoryError(f"there is a repository in {storage.where} already", hint="give another prefix")
    storage.prepare()
    storage.check_apart(one_publisher=settings.one_publisher)
    return _build(storage, making)


def _create_in_folder(folder: Path, making: _Making) -> Manifest:
    _check_free(folder)
    make_folder(folder.parent)
    _remove_leftovers(folder)
    with failing_as("make a folder in", folder.parent):
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
    claimed = claim(building)
    try:
        storage = FolderStorage(building)
        storage.prepare()
        manifest = _build(storage, making)
        with failing_as("make the repository", folder):
            building.chmod(0o755)
            os.replace(building, folder)  # noqa: PTH105 - the call that is atomic, by its own name
            sync_path(folder.parent)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(building)
        raise
    finally:
        if claimed is not None:
            os.close(claimed)
    return manifest


def _remove_leftovers(folder: Path) -> None:
    """What processes left that were killed while they made the same repository."""
    for path in folder.parent.glob(f"{glob.escape(f'.{folder.name}.new-')}*"):
        claimed = claim(path)
        if claimed is not None:
            with failing_as("remove", path):
                shutil.rmtree(path)
            os.close(claimed)


def _check_free(folder: Path) -> None:
    if (folder / MANIFEST_NAME).exists():
        raise DiskError(f"there is a repository in {folder} already", hint="give another folder")
    with failing_as("read the folder", folder):
        if os.path.lexists(folder) and (not folder.is_dir() or folder.is_symlink() or any(folder.iterdir())):
            raise DiskError(f"{folder} is not empty", hint="give a new or empty folder for the repository")


def _build(storage: Storage, making: _Making) -> Manifest:
    fqrn, settings, now = making.fqrn, making.settings, making.now
    signer = load_signer(making.files)
    sign = making.sign or master_signer(making.files.master_key)
    now_s = int(now.timestamp())
    storage.put_state(SETTINGS_NAME, encode_settings(settings))
    storage.put_state(_REPLICA, b"")
    whitelist = new_whitelist(signer.certificate, fqrn, algorithm=settings.algorithm, now=now)
    storage.put_state(WHITELIST_NAME, signed_whitelist(whitelist, sign, making.files, settings.algorithm))
    storage.read_state(REFLOG_NAME)  # one that a killed attempt left may be replaced
    store = ObjectStore(storage, algorithm=settings.algorithm)
    catalog = encode_catalog(_empty_root(now_s, settings.ttl_s))
    root = store.add(catalog, ObjectKind.CATALOG, METADATA)
    tag = Tag(name="", root=root, revision=FIRST_REVISION, published_s=now_s, size_bytes=len(catalog))
    change = Commit(
        former=Manifest(root=root, root_size_bytes=len(catalog), fqrn=fqrn, revision=0),
        root=CatalogRef(path="", digest=root, size_bytes=len(catalog)),
        revision=FIRST_REVISION,
        ttl_s=settings.ttl_s,
        garbage_collectable=settings.garbage_collectable,
        history=History(fqrn=fqrn).with_head(tag),
        metainfo=(json.dumps(making.metainfo, indent=2, sort_keys=True) + "\n").encode(),
        now_s=now_s,
    )
    return commit(store, signer, change, Reflog(fqrn=fqrn))


def _empty_root(now_s: int, ttl_s: int) -> CatalogContents:
    row = Row(path="", mode=0o040755, size=DIRECTORY_SIZE, mtime=now_s, flags=Flag.DIRECTORY, links=2)
    properties = {
        "schema": SCHEMA,
        "schema_revision": SCHEMA_REVISION,
        "TTL": str(ttl_s),
        "last_modified": str(now_s),
        "revision": str(FIRST_REVISION),
    }
    return CatalogContents(
        rows=(row,),
        nested=(),
        binds=(),
        properties=properties,
        statistics=Statistics(own=count((row,), nested=0), subtree=Counters()),
    )
