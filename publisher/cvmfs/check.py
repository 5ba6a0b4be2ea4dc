"""Checking a whole repository: what ``cvmfs_swissknife check`` and ``scrub`` find, and what they let pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from publisher.cvmfs.catalog import Catalog, CatalogRef
from publisher.cvmfs.check_catalog import CatalogCheck, Reference, check_catalog, subtree_findings
from publisher.cvmfs.check_objects import References, check_contents, check_present
from publisher.cvmfs.compression import REPLICATED, Compression
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.history import TRUNK, History
from publisher.cvmfs.loading import CATALOG_LIMIT, load_history
from publisher.cvmfs.location import Location, source_of
from publisher.cvmfs.manifest import Manifest
from publisher.cvmfs.marking import KIND_OF_REF
from publisher.cvmfs.reflog import REFLOG_NAME, RefKind, Reflog, parse_reflog
from publisher.cvmfs.rows import Row
from publisher.cvmfs.source import Source, fetch, read_file
from publisher.cvmfs.sqlite import is_intact
from publisher.cvmfs.trust import read_certificate, read_manifest, verify_manifest
from publisher.errors import AfpubError, NotFoundError
from publisher.report import Finding, Report, collect, error, warning

_REFLOG_LIMIT = 256 << 20
_METAINFO_LIMIT = 16 << 20


@dataclass(kw_only=True, slots=True)
class _State:
    """What the steps of a check hand on."""

    source: Source
    findings: list[Finding] = field(default_factory=list)
    references: References = field(default_factory=References)
    checked: dict[tuple[Digest, str, Row | None], CatalogCheck] = field(default_factory=dict)
    """Catalogs that were checked: revisions share most of them."""


def check(  # noqa: PLR0913 - what to check, how, and with what
    location: Location,
    *,
    public_key: bytes | None = None,
    now: datetime | None = None,
    data: bool = True,
    all_tags: bool = False,
    jobs: int = 2,
) -> Report:
    """Everything that is wrong with a repository.

    Args:
        location: its folder or address.
        public_key: PEM of the public master key; without it signatures are not checked.
        now: the time for the whitelist's expiry; the present when left out.
        data: read and check the contents of objects; otherwise only that they are there.
        all_tags: check the catalogs of all tagged revisions, not only of the newest one.
        jobs: threads that read objects.
    """
    state = _State(source=source_of(location))
    manifest = _check_manifest(state, public_key, now or datetime.now(UTC))
    if manifest is None:
        return collect(state.findings)
    _check_metainfo(state, manifest)
    _check_replicated(state, manifest)
    history = _check_history(state, manifest)
    _check_reflog(state, manifest, history)
    root = CatalogRef(path="", digest=manifest.root, size_bytes=manifest.root_size_bytes)
    _check_tree(state, root, revision=manifest.revision)
    for tag in history.tags if history else ():
        tagged = CatalogRef(path="", digest=tag.root, size_bytes=tag.size_bytes)
        if all_tags:
            _check_tree(state, tagged, revision=tag.revision)
        elif tag.root != manifest.root:
            _check_tag_root(state, tagged, tag.name)
    objects = check_contents if data else check_present
    state.findings.extend(objects(state.source, state.references, jobs))
    return collect(dict.fromkeys(state.findings))


def _check_manifest(state: _State, public_key: bytes | None, now: datetime) -> Manifest | None:
    try:
        manifest, _ = read_manifest(state.source)
    except AfpubError as exc:
        state.findings.append(error("manifest", state.source.where, exc.message, hint=exc.hint))
        return None
    try:
        if public_key is None:
            read_certificate(state.source, manifest)
        else:
            verify_manifest(state.source, public_key, now=now)
    except AfpubError as exc:
        state.findings.append(error("trust", state.source.where, exc.message, hint=exc.hint))
    return manifest


def _check_metainfo(state: _State, manifest: Manifest) -> None:
    if manifest.metainfo is None:
        return
    try:
        json.loads(fetch(state.source, manifest.metainfo, ObjectKind.METAINFO, limit=_METAINFO_LIMIT))
    except ValueError as exc:
        state.findings.append(error("metainfo", state.source.where, f"the metainfo is no JSON: {exc}"))
    except AfpubError as exc:
        state.findings.append(error("metainfo", state.source.where, exc.message))


def _check_replicated(state: _State, manifest: Manifest) -> None:
    """Looks at the two objects that a stratum 1 packs anew instead of copying them."""
    for digest, kind in ((manifest.certificate, ObjectKind.CERTIFICATE), (manifest.metainfo, ObjectKind.METAINFO)):
        if digest is None:
            continue
        try:
            data = fetch(state.source, digest, kind, limit=_METAINFO_LIMIT)
        except AfpubError:
            continue  # said elsewhere
        if digest.algorithm.digest(REPLICATED.compress(data)) != digest:
            text = "it is not packed as a stratum 1 packs it: clients would find the copy there damaged"
            hint = "publish again" if kind is ObjectKind.CERTIFICATE else ""
            state.findings.append(warning("replication", digest.object_name(kind), text, hint=hint))


def _check_history(state: _State, manifest: Manifest) -> History | None:
    try:
        history = load_history(state.source, manifest)
    except AfpubError as exc:
        state.findings.append(error("tags", state.source.where, exc.message))
        return None
    if history is not None:
        faults = _history_faults(history, manifest)
        state.findings.extend(error("tags", state.source.where, text) for text in faults)
        newest = history.tag(TRUNK)
        if newest is not None and newest.root != manifest.root:
            text = f"the tag {TRUNK!r} is not at the newest revision; the next publish mends it"
            state.findings.append(warning("tags", state.source.where, text))
    return history


def _history_faults(history: History, manifest: Manifest) -> Iterator[str]:
    if history.fqrn != manifest.fqrn:
        yield f"the tag database is that of {history.fqrn or 'no repository'}"
    branches = {branch.name: branch for branch in history.branches}
    if "" not in branches:
        yield "the tag database has no default branch"
    for tag in history.tags:
        branch = branches.get(tag.branch)
        if branch is None:
            yield f"the tag {tag.name!r} is on a branch that is not there"
        elif tag.revision < branch.initial_revision:
            yield f"the tag {tag.name!r} is older than its branch"
        if not tag.name or " " in tag.name:
            yield f"the tag name {tag.name!r} is not legal"
    for name in branches.keys() - {tag.branch for tag in history.tags}:
        yield f"no tag is on the branch {name!r}"


def _check_reflog(state: _State, manifest: Manifest, history: History | None) -> None:
    def say(text: str) -> None:
        state.findings.append(error("reflog", REFLOG_NAME, text))

    try:
        data = read_file(state.source, REFLOG_NAME, limit=_REFLOG_LIMIT)
        reflog = parse_reflog(data)
    except NotFoundError:
        if manifest.reflog is not None:
            say("the reflog is missing, though the manifest names it")
        return
    except AfpubError as exc:
        say(exc.message)
        return
    faults = list(_reflog_faults(state, reflog, manifest))
    for text in faults:
        say(text)
    if manifest.reflog is None:
        say("there is a reflog that the manifest does not name")
    elif manifest.reflog.algorithm.digest(data) != manifest.reflog:
        tags = history.tags if history else ()
        whole = is_intact(data) and all(reflog.holds(tag.root, RefKind.CATALOG) for tag in tags)
        state.findings.append(_stale_reflog(harmless=whole and not faults))


def _stale_reflog(*, harmless: bool) -> Finding:
    """Killed publishers leave a whole reflog that is ahead of the manifest, the CVMFS tools' collector one behind."""
    text = "the digest of the reflog is not that in the manifest"
    if not harmless:
        return error("reflog", REFLOG_NAME, text)
    hint = "a change that was interrupted, or a collection by cvmfs_server; the next change mends it, or --repair"
    return warning("reflog", REFLOG_NAME, text, hint=hint)


def _reflog_faults(state: _State, reflog: Reflog, manifest: Manifest) -> Iterator[str]:
    if reflog.fqrn != manifest.fqrn:
        yield f"the reflog is that of {reflog.fqrn or 'no repository'}"
    for what, digest, kind in (
        ("root catalog", manifest.root, RefKind.CATALOG),
        ("certificate", manifest.certificate, RefKind.CERTIFICATE),
        ("tag database", manifest.history, RefKind.HISTORY),
        ("metainfo", manifest.metainfo, RefKind.METAINFO),
    ):
        if digest is not None and not reflog.holds(digest, kind):
            yield f"the reflog does not hold the {what} of the manifest"
    for ref in reflog.refs:
        name = ref.digest.object_name(KIND_OF_REF[ref.kind])
        try:
            state.source.open(name).close()
        except AfpubError:
            yield f"the reflog holds {name}, which is not there"


def _open(state: _State, ref: CatalogRef) -> Catalog | None:
    where = f"the catalog of {ref.path or '/'} ({ref.digest})"
    try:
        data = fetch(state.source, ref.digest, ObjectKind.CATALOG, limit=CATALOG_LIMIT)
        return Catalog(data, where=where)
    except AfpubError as exc:
        state.findings.append(error("catalog-unreadable", ref.path or "/", exc.message))
        return None


def _check_tag_root(state: _State, ref: CatalogRef, name: str) -> None:
    catalog = _open(state, ref)
    if catalog is not None:
        if ref.size_bytes and catalog.size_bytes != ref.size_bytes:
            state.findings.append(error("tags", name, "the size of the tag's root catalog is wrong"))
        catalog.close()


def _check_tree(state: _State, root: CatalogRef, *, revision: int) -> None:
    checks: dict[str, CatalogCheck] = {}
    waiting: list[tuple[CatalogRef, Row | None]] = [(root, None)]
    while waiting:
        ref, parent_row = waiting.pop()
        if ref.path in checks:
            state.findings.append(error("mount-point", ref.path, "more than one catalog is mounted here"))
            continue
        result = _check_one(state, ref, parent_row, revision)
        if result is not None:
            checks[ref.path] = result
            waiting.extend((each, result.mounts.get(each.path)) for each in reversed(result.nested))
    state.findings.extend(subtree_findings(checks))


def _check_one(state: _State, ref: CatalogRef, parent_row: Row | None, revision: int) -> CatalogCheck | None:
    key = (ref.digest, ref.path, parent_row)
    if key in state.checked:
        return state.checked[key]
    own = Reference(
        digest=ref.digest,
        kind=ObjectKind.CATALOG,
        compression=Compression.ZLIB,
        size_bytes=-1,
        where=ref.path or "/",
    )
    state.references.add(own)
    catalog = _open(state, ref)
    if catalog is None:
        return None
    result = check_catalog(catalog, ref, parent_row)
    said = catalog.properties.get("revision")
    if not ref.path and said not in {None, str(revision)}:
        result.say("revision", "", f"the root catalog is of revision {said}, not {revision}")
    catalog.close()
    state.checked[key] = result
    state.findings.extend(result.findings)
    state.references.extend(result.references)
    result.references.clear()
    return result
