"""The last steps of every change: tag database, reflog, and the manifest, which is the moment it happens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.compression import METADATA, REPLICATED
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.history import History, encode_history
from publisher.cvmfs.manifest import MANIFEST_NAME, Manifest, parse_manifest
from publisher.cvmfs.reflog import REFLOG_NAME, Ref, RefKind, Reflog, encode_reflog, parse_reflog
from publisher.cvmfs.signing import Signer
from publisher.cvmfs.storage import Storage
from publisher.cvmfs.store import ObjectStore
from publisher.errors import FormatError, RepositoryError, StaleBaseError


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """What a new manifest is made of."""

    former: Manifest
    """The manifest before; fields that do not change are taken from it."""
    root: CatalogRef
    revision: int
    ttl_s: int
    garbage_collectable: bool
    history: History
    metainfo: bytes | None = None
    """New metainfo; None keeps the one that is there."""
    now_s: int


def commit(store: ObjectStore, signer: Signer, change: Commit, reflog: Reflog) -> Manifest:
    """Makes a change visible; until the manifest is replaced, the last step, nothing has happened.

    Raises:
        DiskError: the disk is full or broken; the repository is as it was.
    """
    certificate = store.add(signer.certificate_pem, ObjectKind.CERTIFICATE, REPLICATED)
    history = store.add(encode_history(change.history), ObjectKind.HISTORY, METADATA)
    metainfo = change.former.metainfo
    if change.metainfo is not None:
        metainfo = store.add(change.metainfo, ObjectKind.METAINFO, REPLICATED)
    store.flush()
    refs = [
        Ref(digest=digest, kind=kind, added_s=change.now_s)
        for digest, kind in (
            (change.root.digest, RefKind.CATALOG),
            (certificate, RefKind.CERTIFICATE),
            (history, RefKind.HISTORY),
            (metainfo, RefKind.METAINFO),
        )
        if digest is not None
    ]
    manifest = replace(
        change.former,
        root=change.root.digest,
        root_size_bytes=change.root.size_bytes,
        revision=change.revision,
        ttl_s=change.ttl_s,
        garbage_collectable=change.garbage_collectable,
        published_s=max(change.now_s, change.former.published_s),  # clients refuse to go back
        certificate=certificate,
        history=history,
        metainfo=metainfo,
    )
    return _put_in_place(store.storage, signer, change.former, manifest, reflog.with_refs(refs))


def commit_reflog(store: ObjectStore, signer: Signer, former: Manifest, reflog: Reflog) -> Manifest:
    """Replaces the reflog, and says so in the manifest; the revision stays.

    Raises:
        DiskError: the disk is full or broken; the repository is as it was.
    """
    certificate = store.add(signer.certificate_pem, ObjectKind.CERTIFICATE, REPLICATED)
    store.flush()
    ref = Ref(digest=certificate, kind=RefKind.CERTIFICATE, added_s=former.published_s)
    # Where no lock keeps others away the manifest must change: whoever read the old one must not go on.
    manifest = replace(former, certificate=certificate, published_s=former.published_s + store.storage.shared)
    return _put_in_place(store.storage, signer, former, manifest, reflog.with_refs([ref]))


def _put_in_place(storage: Storage, signer: Signer, former: Manifest, manifest: Manifest, reflog: Reflog) -> Manifest:
    _check_stands(storage, former)
    log = encode_reflog(reflog)
    manifest = replace(manifest, reflog=manifest.algorithm.digest(log))
    signed = signer.sign(manifest)
    storage.put_state(REFLOG_NAME, log)
    storage.put_state(MANIFEST_NAME, signed)
    return manifest


def _check_stands(storage: Storage, former: Manifest) -> None:
    """Refuses to replace a manifest that somebody else wrote since; its token is that of what is read here."""
    if not storage.shared:
        return
    data = storage.read_state(MANIFEST_NAME)
    there = parse_manifest(data)[0] if data is not None else None
    was = (former.root, former.revision, former.published_s) if former.revision else None
    if (there and (there.root, there.revision, there.published_s)) != was:
        raise StaleBaseError(
            f"somebody else published into {storage.where} meanwhile",
            hint="run it again: it starts from the newest revision",
        )


def read_reflog(storage: Storage, manifest: Manifest, history: History) -> Reflog:
    """The reflog to go on with.

    A publisher that was killed between writing the reflog and the manifest leaves a reflog that knows more than
    the manifest says; it is good as long as everything of the manifest is in it.

    Raises:
        RepositoryError: it is damaged, or is not this repository's.
    """
    data = storage.read_state(REFLOG_NAME)
    if data is None:
        return rebuilt_reflog(manifest, history)
    path = f"{storage.where}/{REFLOG_NAME}"
    hint = f"remove {path} to have it made anew from the tags"
    try:
        reflog = parse_reflog(data)
    except FormatError as exc:
        raise RepositoryError(exc.message, hint=hint) from exc
    lacking = [name for name, digest, kind in _named(manifest) if digest and not reflog.holds(digest, kind)]
    if reflog.fqrn != manifest.fqrn or lacking:
        what = f"does not hold the {lacking[0]} of the manifest" if lacking else f"is that of {reflog.fqrn}"
        raise RepositoryError(f"the reflog {path} {what}", hint=hint)
    return reflog


def reflog_stands(storage: Storage, manifest: Manifest) -> bool:
    """True when the reflog is the one that the manifest names."""
    data = storage.read_state(REFLOG_NAME)
    if data is None:
        return manifest.reflog is None
    return manifest.reflog == manifest.algorithm.digest(data)


def _named(manifest: Manifest) -> tuple[tuple[str, Digest | None, RefKind], ...]:
    return (
        ("root catalog", manifest.root, RefKind.CATALOG),
        ("certificate", manifest.certificate, RefKind.CERTIFICATE),
        ("tag database", manifest.history, RefKind.HISTORY),
        ("metainfo", manifest.metainfo, RefKind.METAINFO),
    )


def rebuilt_reflog(manifest: Manifest, history: History) -> Reflog:
    """A reflog of what can still be known: the tagged revisions and the newest one."""
    refs = [Ref(digest=tag.root, kind=RefKind.CATALOG, added_s=tag.published_s) for tag in history.tags]
    refs += [
        Ref(digest=digest, kind=kind, added_s=manifest.published_s)
        for _, digest, kind in _named(manifest)
        if digest is not None
    ]
    return Reflog(fqrn=manifest.fqrn).with_refs(refs)
