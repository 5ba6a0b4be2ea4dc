"""What a site's server says of itself: its files in ``/etc/cvmfs``, and where its spool is.

Source: cvmfs/server/cvmfs_server_*.sh, cvmfs/publish/settings.cc (2.12).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from publisher.cvmfs.chunker import ChunkRule
from publisher.cvmfs.compression import Compression, Compressor
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.limits import Limits
from publisher.errors import RepositoryError
from publisher.names import Fqrn

_REPOSITORIES = "repositories.d"


class Way(StrEnum):
    """How contents get into the repository."""

    AUTO = "auto"
    """``describe`` where it is possible, else ``copy``."""
    DESCRIBE = "describe"
    """Objects are stored before the transaction opens; the transaction only describes files."""
    COPY = "copy"
    """Files are written into the open transaction."""
    INGEST = "ingest"
    """One tar stream goes through ``cvmfs_server ingest``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerOptions:
    """How the server is driven."""

    work: Path
    """Folder for what is remembered between publishes; safe to delete."""
    config: Path = Path("/etc/cvmfs")
    """Where ``cvmfs_server`` keeps its repositories and keys."""
    program: str = "cvmfs_server"
    way: Way = Way.AUTO
    whitelist_days: int = 2
    """The whitelist must be valid for this many days more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """One repository of one server, as its ``server.conf`` has it."""

    fqrn: Fqrn
    file: Path
    """The ``server.conf``."""
    user: str
    """The owner of the repository."""
    union: Path
    """Where files are written in a transaction: ``/cvmfs/<fqrn>``."""
    spool: Path
    url: str
    """The address of the stratum 0."""
    upstream: str
    """``local``, ``gw``, ``s3``."""
    storage: Path | None
    """The folder of a local repository."""
    gateway: str
    """Address of the gateway; empty without one."""
    public_key: Path
    gateway_key: Path
    layout: str
    """The layout revision."""
    kind: str
    """``stratum0``, or what else it is."""
    algorithm: Algorithm
    compressor: Compressor | None
    """None where the server's compression is one that afpub does not know."""
    chunk_rule: ChunkRule | None
    """None where big files are not cut."""
    limits: Limits
    enforced: bool
    """A limit stops a publish; otherwise it is a warning."""
    union_type: str
    """``overlayfs``; empty where nothing is mounted."""
    autocatalogs: bool
    xattrs: bool
    nanoseconds: bool
    external: bool

    @property
    def transaction_lock(self) -> Path:
        """Is there while a transaction is open."""
        return self.spool / "in_transaction.lock"

    @property
    def publishing_lock(self) -> Path:
        """Held (flock) while a publish runs; its being there says nothing."""
        return self.spool / "is_publishing.lock"

    @property
    def session_token(self) -> Path:
        """The lease of a gateway publisher."""
        return self.spool / "session_token"

    @property
    def scratch(self) -> Path:
        """What the open transaction changed."""
        return self.spool / "scratch" / "current"

    @property
    def location(self) -> Path | str:
        """Where the repository is read from: its folder where there is one, else its stratum 0."""
        return self.storage if self.storage is not None and self.storage.is_dir() else self.url


def read_site(options: ServerOptions, fqrn: Fqrn) -> Site:
    """What the server says of a repository.

    Raises:
        RepositoryError: the server does not have it, or its configuration cannot be read.
    """
    folder = options.config / _REPOSITORIES
    file = folder / fqrn / "server.conf"
    try:
        values = parse_conf(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise RepositoryError(
            f"this server has no repository {fqrn}: there is no {file}",
            hint=f"it has {', '.join(there)}" if there else f"make it: {options.program} mkfs {fqrn}",
        ) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"cannot read {file}: {exc}", hint="run afpub as the owner of the repository") from exc
    except ValueError as exc:
        raise RepositoryError(f"{file} is not what cvmfs_server writes: {exc}") from exc
    try:
        return _site(values, file, options, fqrn)
    except KeyError as exc:
        raise RepositoryError(f"{file} has no {exc.args[0]}") from None
    except ValueError as exc:
        raise RepositoryError(f"{file}: {exc}") from exc


def parse_conf(text: str) -> dict[str, str]:
    """The settings in a file of ``KEY=VALUE`` lines as a shell reads them; nothing is expanded.

    Raises:
        ValueError: a line cannot be read.
    """
    values = {}
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        for word in words:
            key, mark, value = word.partition("=")
            if mark and key != "export":
                values[key] = value
    return values


def _site(values: Mapping[str, str], file: Path, options: ServerOptions, fqrn: Fqrn) -> Site:
    kind, _, rest = values["CVMFS_UPSTREAM_STORAGE"].partition(",")
    place = rest.rpartition(",")[2]
    return Site(
        fqrn=fqrn,
        file=file,
        user=values["CVMFS_USER"],
        union=Path(values.get("CVMFS_UNION_DIR", f"/cvmfs/{fqrn}")),
        spool=Path(values["CVMFS_SPOOL_DIR"]),
        url=values["CVMFS_STRATUM0"],
        upstream=kind.lower(),
        storage=Path(place) if kind.lower() == "local" else None,
        gateway=place.rstrip("/") if kind.lower() == "gw" else "",
        public_key=Path(values.get("CVMFS_PUBLIC_KEY", f"{options.config}/keys/{fqrn}.pub")),
        gateway_key=options.config / "keys" / f"{fqrn}.gw",
        layout=values.get("CVMFS_CREATOR_VERSION", ""),
        kind=values.get("CVMFS_REPOSITORY_TYPE", "stratum0"),
        algorithm=Algorithm(values.get("CVMFS_HASH_ALGORITHM", "sha1")),
        compressor=_compressor(values.get("CVMFS_COMPRESSION_ALGORITHM", "default")),
        chunk_rule=_chunk_rule(values),
        limits=Limits(
            root_entries=int(values.get("CVMFS_ROOT_KCATALOG_LIMIT", "200")) * 1000,
            nested_entries=int(values.get("CVMFS_NESTED_KCATALOG_LIMIT", "500")) * 1000,
            file_bytes=int(values.get("CVMFS_FILE_MBYTE_LIMIT", "1024")) << 20,
        ),
        enforced=_true(values, "CVMFS_ENFORCE_LIMITS"),
        union_type=values.get("CVMFS_UNION_FS_TYPE", ""),
        autocatalogs=_true(values, "CVMFS_AUTOCATALOGS"),
        xattrs=_true(values, "CVMFS_INCLUDE_XATTRS"),
        nanoseconds=_true(values, "CVMFS_ENABLE_MTIME_NS"),
        external=_true(values, "CVMFS_EXTERNAL_DATA"),
    )


def remount_hint(site: Site) -> str:
    """The known mend of broken mounts."""
    return f"as root: umount -l {site.union}; umount -l {site.spool}/rdonly; cvmfs_server mount {site.fqrn}"


def _true(values: Mapping[str, str], key: str) -> bool:
    return values.get(key) == "true"


def _compressor(name: str) -> Compressor | None:
    if name in {"", "default", "zlib"}:
        return Compressor(compression=Compression.ZLIB, level=5)
    return Compressor(compression=Compression.NONE) if name == "none" else None


def _chunk_rule(values: Mapping[str, str]) -> ChunkRule | None:
    if not _true(values, "CVMFS_USE_FILE_CHUNKING"):
        return None
    return ChunkRule(
        least=int(values["CVMFS_MIN_CHUNK_SIZE"]),
        average=int(values["CVMFS_AVG_CHUNK_SIZE"]),
        most=int(values["CVMFS_MAX_CHUNK_SIZE"]),
    )
