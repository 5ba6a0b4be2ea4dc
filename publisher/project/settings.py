"""What ``afpub.toml`` says: where to publish, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from publisher.cvmfs.bucket import Bucket
from publisher.errors import ProjectError, UsageError
from publisher.names import Fqrn, RepoPath
from publisher.patterns import PathPattern
from publisher.project.toml import Table, read_toml

SETTINGS_FILE = "afpub.toml"
EMBEDDED = "embedded"
SERVER = "cvmfs-server"


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogBounds:
    """How large a nested catalog may be, and where one may begin; ``docs/performance.md`` says why so."""

    min_entries: int = 1_000
    max_entries: int = 30_000
    cut: tuple[PathPattern, ...] = ()
    """More directories that begin a catalog when they have the least entries."""
    whole: tuple[PathPattern, ...] = ()
    """More directories inside of which none begins."""

    def __post_init__(self) -> None:
        if not 0 < self.min_entries * 4 <= self.max_entries:
            raise ProjectError(
                f"the bounds {self.min_entries} and {self.max_entries} of catalogs leave no room to be stable",
                hint="'min_entries' must be above 0, and 'max_entries' at least four times as much",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PropagationSettings:
    """Where a revision has to arrive before people are told of it."""

    stratum0: str = ""
    """Folder or address of what is published; empty: the repository that the project publishes into."""
    stratum1: tuple[str, ...] = ()
    """Addresses, ``@fqrn@`` allowed; none: those of the CVMFS client of the machine."""
    sites: tuple[tuple[str, str], ...] = ()
    """Pairs of a site's name and the address of what ``afpub status --here --json`` wrote there."""
    mount: str = "/cvmfs"
    quorum: str = "all"
    """How many of the stratum 1s and sites must have it: a number, ``majority`` or ``all``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """Where users of the kernels read and write; empty for nowhere."""

    docs: str = ""
    feedback: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """How a site's own ``cvmfs_server`` is driven; only with ``backend = "cvmfs-server"``."""

    config: Path = Path("/etc/cvmfs")
    """Where the server keeps its repositories and keys."""
    program: str = "cvmfs_server"
    way: str = "auto"
    """``describe``, ``copy`` or ``ingest``; ``auto`` takes the first of them that is possible."""
    whitelist_days: int = 2
    """A release needs a whitelist that is valid for so many days more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of a publishing project."""

    root: Path
    """The folder of the project."""
    fqrn: Fqrn
    prefix: RepoPath
    """Folder of the repository below which everything is published."""
    repository: Path | str
    """The embedded repository: the folder with ``.cvmfspublished``, or the address of a bucket with all options; of no
    meaning for another back-end."""
    keys: Path
    """Folder of the keys of the embedded repository."""
    work: Path
    """Built images, staged releases, logs; safe to delete."""
    backend: str = EMBEDDED
    server: ServerSettings = ServerSettings()
    argv: str = "resource_dir"
    """``resource_dir``: kernels work wherever the tree is; ``absolute``: below /cvmfs, for old servers."""
    apt_mirror: str = ""
    """Debian mirror for recipes that ask for one; empty: the one that apt uses here."""
    unreadable: str = "repair"
    """Files that others cannot read are made readable (``repair``) or stop the release (``refuse``)."""
    catalogs: CatalogBounds = CatalogBounds()
    links: Links = Links()
    propagation: PropagationSettings = PropagationSettings()


def find_project(start: Path) -> Path | None:
    """The nearest folder at or above ``start`` that holds ``afpub.toml``."""
    for folder in (start, *start.parents):
        if (folder / SETTINGS_FILE).is_file():
            return folder
    return None


def load_settings(root: Path) -> Settings:
    """The settings of the project in a folder.

    Raises:
        ProjectError: ``afpub.toml`` is missing or wrong.
    """
    table = read_toml(root / SETTINGS_FILE)
    kernels, build = table.table("kernels"), table.table("build")
    policy, catalogs, bucket = table.table("policy"), table.table("catalogs"), table.table("s3")
    fqrn = table.named("fqrn", Fqrn)
    bounds = _catalog_bounds(catalogs)
    backend = table.choice("backend", (EMBEDDED, SERVER), EMBEDDED)
    settings = Settings(
        root=root,
        fqrn=fqrn,
        prefix=table.named("prefix", RepoPath, ""),
        repository=_repository(bucket, root, _embedded_text(table, backend, "repository", f"repositories/{fqrn}")),
        keys=root / _embedded_text(table, backend, "keys", "keys"),
        work=root / table.text("work", "build/afpub"),
        backend=backend,
        server=_server(table.table("server"), backend),
        argv=kernels.choice("argv", ("resource_dir", "absolute"), "resource_dir"),
        apt_mirror=build.text("apt_mirror", ""),
        unreadable=policy.choice("unreadable", ("repair", "refuse"), "repair"),
        catalogs=bounds,
        links=_links(kernels),
        propagation=_propagation(table.table("propagation")),
    )
    for part in (table, kernels, build, policy, catalogs, bucket):
        part.done()
    return settings


def _embedded_text(table: Table, backend: str, key: str, default: str) -> str:
    """A key that only the embedded back-end has."""
    if backend != EMBEDDED and key in table.keys():  # noqa: SIM118 - not a dict
        raise table.problem(f"{key!r} is of the embedded back-end", hint=f"{SERVER} has its own in its server.conf")
    return table.text(key, default)


def _server(table: Table, backend: str) -> ServerSettings:
    if backend != SERVER and table.keys():
        raise table.problem(
            f"the table is for the other back-end, and this one is {backend!r}", hint=f'backend = "{SERVER}"'
        )
    plain = ServerSettings()
    settings = ServerSettings(
        config=Path(table.text("config", f"{plain.config}")),
        program=table.text("program", plain.program),
        way=table.choice("way", ("auto", "describe", "copy", "ingest"), plain.way),
        whitelist_days=table.integer("whitelist_days", plain.whitelist_days),
    )
    table.done()
    if not settings.config.is_absolute():
        raise table.problem(f"'config' is {f'{settings.config}'!r}, no absolute path")
    if settings.whitelist_days < 0:
        raise table.problem("'whitelist_days' must not be negative")
    return settings


def _repository(bucket: Table, root: Path, place: str) -> Path | str:
    """A folder, or the address of a bucket with the options of the table ``s3``; its keys are never here."""
    if "://" not in place:
        return root / place
    try:
        plain = Bucket.parse(place)
        options = replace(
            plain,
            endpoint=bucket.text("endpoint", plain.endpoint),
            region=bucket.text("region", plain.region),
            path_style=bucket.flag("path_style", default=plain.path_style),
        )
        return Bucket.parse(options.location).location
    except UsageError as exc:
        raise bucket.problem(exc.message, hint=exc.hint) from exc


def _propagation(table: Table) -> PropagationSettings:
    plain = PropagationSettings()
    settings = PropagationSettings(
        stratum0=table.text("stratum0", plain.stratum0),
        stratum1=table.texts("stratum1"),
        sites=table.pairs("sites"),
        mount=table.text("mount", plain.mount),
        quorum=table.text("quorum", plain.quorum),
    )
    table.done()
    for url in (*settings.stratum1, *(address for _, address in settings.sites)):
        if "://" not in url and not url.startswith("/"):
            raise table.problem(f"{url!r} is neither an address nor an absolute path")
    if settings.quorum not in {"all", "majority"} and not (settings.quorum.isdigit() and int(settings.quorum)):
        raise table.problem(f"'quorum' is {settings.quorum!r}", hint='a number above 0, "majority" or "all"')
    return settings


def _links(kernels: Table) -> Links:
    links = Links(docs=kernels.text("docs", ""), feedback=kernels.text("feedback", ""))
    for url in (links.docs, links.feedback):
        if url and (not url.startswith(("https://", "http://", "mailto:")) or any(ord(char) <= 32 for char in url)):
            raise kernels.problem(f"{url!r} is no address", hint="write https://... or mailto:...")
    return links


def _catalog_bounds(table: Table) -> CatalogBounds:
    try:
        return CatalogBounds(
            min_entries=table.integer("min_entries", CatalogBounds().min_entries),
            max_entries=table.integer("max_entries", CatalogBounds().max_entries),
            cut=tuple(PathPattern(text) for text in table.texts("cut")),
            whole=tuple(PathPattern(text) for text in table.texts("whole")),
        )
    except ProjectError as exc:
        if exc.message.startswith(f"{table.file}"):
            raise
        raise table.problem(exc.message, hint=exc.hint) from None
