"""What would stop a publish, found before anything is touched; each finding with its mend."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from publisher import tools
from publisher.backends.base import Changeset
from publisher.backends.server.compare import Wanted
from publisher.backends.server.gateway import Lease, leases, overlap, repositories
from publisher.backends.server.program import INSTALL_HINT, safe_description
from publisher.backends.server.site import ServerOptions, Site, remount_hint
from publisher.backends.server.state import (
    Holder,
    current_user,
    holders_of_mount,
    is_publishing,
    mounts,
    open_files,
    scratch_is_empty,
    transaction_of,
)
from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.limits import check_catalog_sizes
from publisher.cvmfs.location import source_of
from publisher.cvmfs.manifest import Manifest
from publisher.cvmfs.reader import Reader
from publisher.cvmfs.survey import survey
from publisher.cvmfs.trust import read_manifest, read_whitelist
from publisher.errors import AfpubError, RepositoryError
from publisher.names import RepoPath
from publisher.report import Finding, error, note, warning
from publisher.tree import Kind

LAYOUTS = frozenset({"143"})
"""Layout revisions of repositories that the server tools of today publish (cvmfs/publish/repository.h, 2.12)."""
_CLOCK_S = 60
_FILE_BYTES = 4096
"""What an empty file with its entry takes on a disk at most."""
_SPARE_BYTES = 256 << 20
_NOT_CONNECTED = "Transport endpoint is not connected"


def server_findings(site: Site, options: ServerOptions, *, now: datetime) -> Iterator[Finding]:
    """What is to be said of the server, whatever is published."""
    yield from _program(options)
    yield from _user(site)
    yield from _kind(site)
    yield from _mount(site)
    yield from _transaction(site)
    yield from _open_files(site)
    yield from _held_mounts(site)
    yield from _manifest(site, options, now)
    yield from _gateway(site)


def changeset_findings(
    site: Site, reader: Reader, want: Wanted, changeset: Changeset, *, described: bool
) -> Iterator[Finding]:
    """What is to be said of a changeset on this server; described files take no room in the spool."""
    if changeset.tag and any(tag.name == changeset.tag for tag in reader.tags()):
        yield error(
            "tag",
            site.fqrn,
            f"the tag {changeset.tag!r} exists already",
            hint=f"give the release a new version, or: cvmfs_server tag -r {changeset.tag} {site.fqrn}",
        )
    try:
        safe_description(changeset.description)
    except RepositoryError as exc:
        yield error("tag-description", site.fqrn, exc.message, hint=exc.hint)
    yield from _limits(site, reader, changeset)
    yield from _space(site, want, described=described)
    if not site.xattrs and any(entry.xattrs for entry in want.files):
        yield warning(
            "xattrs",
            f"{site.file}",
            "the server does not store extended attributes, and the release has some",
            hint="CVMFS_INCLUDE_XATTRS=true keeps them",
        )


def _program(options: ServerOptions) -> Iterator[Finding]:
    if tools.which(options.program) is None:
        yield error("server-program", options.program, "the program is not installed", hint=INSTALL_HINT)


def _user(site: Site) -> Iterator[Finding]:
    user = current_user()
    if user not in {site.user, "root"}:
        yield error(
            "server-user",
            f"{site.file}",
            f"the repository belongs to {site.user}, and afpub runs as {user}",
            hint=f"sudo -u {site.user} afpub ...",
        )


def _kind(site: Site) -> Iterator[Finding]:
    where = f"{site.file}"
    if site.kind != "stratum0":
        yield error("server-kind", where, f"this is a {site.kind}", hint="publish on the stratum 0 or its publisher")
    if site.layout not in LAYOUTS:
        yield error(
            "layout",
            where,
            f"the repository has layout revision {site.layout or 'unknown'}, afpub knows {', '.join(sorted(LAYOUTS))}",
            hint=f"cvmfs_server migrate {site.fqrn}",
        )
    if site.autocatalogs:
        yield warning(
            "autocatalogs",
            where,
            "the server makes nested catalogs of its own, beside those that afpub computed",
            hint="CVMFS_AUTOCATALOGS=false leaves them to afpub",
        )
    if (site.spool / "checkout").exists():
        yield error(
            "checkout",
            f"{site.spool}/checkout",
            "an earlier revision is checked out: what is published would go onto a branch",
            hint=f"cvmfs_server checkout {site.fqrn} goes back to the newest one",
        )


def _mount(site: Site) -> Iterator[Finding]:
    for folder in (site.union, site.spool / "rdonly"):
        try:
            folder.stat()
        except OSError as exc:
            broken = exc.errno == errno.ENOTCONN
            text = _NOT_CONNECTED if broken else f"{exc.strerror}"
            mend = remount_hint(site) if broken else f"cvmfs_server mount {site.fqrn}"
            yield error("mount", f"{folder}", text, hint=mend)
            return
    if not site.union_type:
        return
    there = mounts()
    for folder in (site.union, site.spool / "rdonly"):
        if f"{folder}" not in there:
            yield error(
                "mount", f"{folder}", "nothing is mounted, as after a restart", hint=f"cvmfs_server mount {site.fqrn}"
            )
            return
    writable = "rw" in there[f"{site.union}"].split(",")
    if writable and not site.transaction_lock.exists():
        yield error(
            "mount",
            f"{site.union}",
            "the repository is mounted writable, but no transaction is open",
            hint=remount_hint(site),
        )


def _transaction(site: Site) -> Iterator[Finding]:
    try:
        found = transaction_of(site)
    except AfpubError as exc:
        yield error("transaction", f"{site.spool}", exc.message, hint=exc.hint)
        return
    where = f"{site.transaction_lock}"
    if found.holder in {Holder.OTHER, Holder.AFPUB}:
        hint = "let it be published or aborted; afpub never touches it"
        if found.holder is Holder.OTHER and scratch_is_empty(site):
            hint += f" (nothing is changed in it yet: cvmfs_server abort {site.fqrn} loses nothing)"
        yield error("transaction", where, f"a transaction is open: opened {found.whose}", hint=hint)
    elif found.holder is Holder.DEAD_AFPUB:
        yield error(
            "transaction",
            where,
            f"a transaction is open that nobody works on: opened {found.whose}, which has ended",
            hint="run the same command with --recover: it is aborted, and everything is done again",
        )
    if is_publishing(site):
        yield error(
            "publishing", f"{site.publishing_lock}", "cvmfs_server is publishing or aborting", hint="wait for its end"
        )
    if not site.gateway:
        return
    if found.holder is Holder.NOBODY and site.session_token.exists():
        yield warning(
            "lease",
            f"{site.session_token}",
            "a lease was left behind by a transaction that is not open any more",
            hint=f"cvmfs_server abort -f {site.fqrn} gives it back",
        )


def _open_files(site: Site) -> Iterator[Finding]:
    for pid, path, working in open_files(site.union):
        own = pid == os.getpid()
        if own and working:
            yield error("working-folder", path, "afpub was started here", hint="cd / and run it again")
            return
        if not own:
            what = "works in" if working else "has open"
            yield warning(
                "open-files",
                path,
                f"process {pid} {what} the repository; it may see errors when the new revision is mounted",
                hint=f"end it: kill {pid}",
            )
            return


def _held_mounts(site: Site) -> Iterator[Finding]:
    if not site.union_type:
        return
    for pid, name in holders_of_mount(site.spool / "rdonly"):
        yield error(
            "held-mount",
            f"{site.spool}/rdonly",
            f"process {pid} ({name}) keeps this mount in a container or namespace of its own: "
            "cvmfs_server would wait for it without end",
            hint=f"end it: kill {pid}; start containers on this machine before the repository is mounted",
        )
        return


def _manifest(site: Site, options: ServerOptions, now: datetime) -> Iterator[Finding]:
    source = source_of(site.location)
    try:
        manifest, _ = read_manifest(source)
        whitelist, _ = read_whitelist(source)
    except AfpubError as exc:
        yield error("repository", source.where, exc.message, hint=exc.hint or "is its web server up?")
        return
    left = whitelist.expires - now
    day = f"{whitelist.expires:%Y-%m-%d %H:%M UTC}"
    mend = f"cvmfs_server resign {site.fqrn}, where the master key is"
    if whitelist.expired(now):
        yield error("whitelist", source.where, f"the whitelist expired on {day}", hint=mend)
    elif left < timedelta(days=options.whitelist_days):
        yield error("whitelist", source.where, f"the whitelist expires on {day}", hint=mend)
    elif left < timedelta(days=7):
        yield warning("whitelist", source.where, f"the whitelist expires on {day}", hint=mend)
    yield from _clock(site, manifest, now)
    yield from _reflog(site, manifest)


def _clock(site: Site, manifest: Manifest, now: datetime) -> Iterator[Finding]:
    ahead_s = manifest.published_s - now.timestamp()
    if ahead_s > _CLOCK_S:
        yield error(
            "clock",
            site.fqrn,
            f"the newest revision is {ahead_s:.0f} s in the future: clients would refuse an older one",
            hint="set the clock of this machine (chronyc makestep)",
        )


def _reflog(site: Site, manifest: Manifest) -> Iterator[Finding]:
    try:
        text = (site.spool / "reflog.chksum").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return
    if manifest.reflog is not None and not site.gateway and text.partition("-")[0] != manifest.reflog.raw.hex():
        yield error(
            "reflog",
            f"{site.spool}/reflog.chksum",
            "it is not of the newest revision: something else published, and signing would fail",
            hint=f"cvmfs_server check -r {site.fqrn} mends the file",
        )


def _gateway(site: Site) -> Iterator[Finding]:
    if not site.gateway:
        return
    if not os.access(site.gateway_key, os.R_OK):
        yield error(
            "gateway-key",
            f"{site.gateway_key}",
            "the key for the gateway cannot be read",
            hint=f"it must be there, readable by {site.user} only",
        )
    try:
        names = repositories(site.gateway)
        held = leases(site.gateway)
    except RepositoryError as exc:
        yield error("gateway", site.gateway, exc.message, hint="is the gateway up, and its port open from here?")
        return
    if names and site.fqrn not in names:
        yield error(
            "gateway", site.gateway, f"the gateway does not serve {site.fqrn}", hint=f"it has {', '.join(names)}"
        )
    for lease in held:
        if overlap(lease.path, site.fqrn):
            yield note(
                "lease", lease.path, f"held with key {lease.key or 'unknown'} until {lease.expires or 'unknown'}"
            )


def _holding(lease: Lease) -> str:
    return f"with key {lease.key or 'unknown'} until {lease.expires or 'unknown'}"


def lease_findings(site: Site, below: str) -> Iterator[Finding]:
    """Whether the part of the repository that is needed is free."""
    if not site.gateway:
        return
    try:
        held = leases(site.gateway)
    except RepositoryError:
        return  # said already
    path = f"{site.fqrn}/{below.strip('/')}".rstrip("/")
    for lease in held:
        if overlap(lease.path, path):
            yield error(
                "lease",
                lease.path,
                f"another publisher holds it, {_holding(lease)}",
                hint="wait for it: --wait SECONDS; the gateway's administrator can drop it",
            )


def _catalog_around(reader: Reader, path: RepoPath) -> tuple[str, int]:
    """The catalog that has, or would have, the row of a path, and how many rows it has now."""
    mount, digest, size_bytes = "", reader.root_hash, reader.manifest.root_size_bytes
    at = ""
    for name in path.parent.split("/")[1:]:
        at = f"{at}/{name}"
        stored = reader.lookup(at)
        if stored is None:
            break
        if stored.catalog is not None:
            mount, digest, size_bytes = at, stored.catalog, 0
    catalog = reader.catalog(CatalogRef(path=mount, digest=digest, size_bytes=size_bytes))
    return mount, catalog.row_counts()[0]


def _limits(site: Site, reader: Reader, changeset: Changeset) -> Iterator[Finding]:
    make = error if site.enforced else warning
    for graft in changeset.grafts:
        seen = survey(graft, site.limits)
        mount, rows = _catalog_around(reader, graft.at)
        sizes = {**seen.rows, mount: rows + seen.rows_outside}
        for finding in (*check_catalog_sizes(sizes, site.limits), *seen.findings):
            yield make(finding.check, finding.where, finding.message, hint=finding.hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Need:
    """What a folder must have room for."""

    folder: Path
    size_bytes: int
    files: int


def _space(site: Site, want: Wanted, *, described: bool) -> Iterator[Finding]:
    """The scratch area holds what a transaction writes; a local storage the new objects at most in full."""
    files = [entry for entry in want.entries.values() if entry.kind is Kind.FILE]
    size = sum(entry.size_bytes for entry in files)
    spooled = 2 * _FILE_BYTES * len(files) + (0 if described else size)
    needs = [_Need(folder=site.spool, size_bytes=spooled, files=2 * len(want.entries))]
    if site.storage is not None:
        needs.append(_Need(folder=site.storage, size_bytes=size, files=len(files)))
    for need in needs:
        try:
            info = os.statvfs(need.folder)
        except OSError:
            continue  # said already
        free = info.f_bavail * info.f_frsize
        needed = need.size_bytes + _SPARE_BYTES
        if free < needed:
            yield error(
                "space",
                f"{need.folder}",
                f"{free / 1e6:,.0f} MB are free, and the changes may need {needed / 1e6:,.0f} MB",
                hint="make room, or publish fewer images at a time",
            )
        if info.f_files and info.f_favail < need.files:
            yield error(
                "space",
                f"{need.folder}",
                f"{info.f_favail:,} more files fit, and the changes may need {need.files:,}",
                hint="make room, or publish fewer images at a time",
            )
