"""What can be said about trees before anything of them is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.catalog_writer import CatalogContents
from publisher.cvmfs.dirtab import DIRTAB, Dirtab, parse_dirtab, read_dirtab
from publisher.cvmfs.disk import failing_as
from publisher.cvmfs.drafts import Drafts
from publisher.cvmfs.finisher import Written
from publisher.cvmfs.limits import Limits, check_catalog_sizes
from publisher.cvmfs.reader import Reader
from publisher.cvmfs.survey import Survey, survey
from publisher.names import RepoPath
from publisher.report import Finding, Report, collect
from publisher.tree import Entry, Graft, Kind


def survey_grafts(reader: Reader, grafts: Sequence[Graft], limits: Limits) -> list[Survey]:
    """A first look at trees, with all directories that begin a catalog.

    These are those asked for, those with a marker in them, and those that the repository's ``.cvmfsdirtab`` names.

    Raises:
        RepositoryError: a tree is not in order, or cannot begin a catalog where it is to.
        DiskError: one cannot be read.
    """
    rules = _rules(reader, grafts)
    mount_bytes = len(f"/cvmfs/{reader.fqrn}")
    return [survey(graft, limits, rules, mount_bytes=mount_bytes) for graft in grafts]


def _rules(reader: Reader, grafts: Sequence[Graft]) -> Dirtab:
    """The rules that the repository will have, since they count for what comes with them, too."""
    place = f"/{DIRTAB}"
    for graft in reversed(grafts):
        if graft.at in {"", place}:
            for entry in graft.tree:
                if f"{graft.at}/{entry.path}".rstrip("/") == place and entry.kind is Kind.FILE:
                    return parse_dirtab(_content(entry))
    return read_dirtab(reader)


def _content(entry: Entry) -> bytes:
    if entry.content is None or isinstance(entry.content, bytes):
        return entry.content or b""
    with failing_as("read", entry.content):
        return Path(entry.content).read_bytes()


def check_surveys(drafts: Drafts, trees: Sequence[Survey], limits: Limits) -> Report:
    """What clients and servers would not take.

    Args:
        drafts: the repository, without what is to be removed.
        trees: what is to be put into it.
        limits: what is too big.
    """
    return collect(_findings(drafts, trees, limits))


def _findings(drafts: Drafts, trees: Sequence[Survey], limits: Limits) -> Iterator[Finding]:
    sizes: dict[str, int] = defaultdict(int)
    seen: set[str] = set()
    made: set[str] = set()
    for tree in trees:
        yield from tree.findings
        at = tree.graft.at
        mount, rows, going = drafts.room(at)
        sizes[mount] += rows * (mount not in seen)
        seen.add(mount)
        parents = set(_missing_parents(drafts, at)) - made
        made |= parents
        sizes[mount] += tree.rows_outside - going + len(parents)
        for path, count in tree.rows.items():
            sizes[path] += count
    yield from check_catalog_sizes(sizes, limits)


def _missing_parents(drafts: Drafts, path: RepoPath) -> Iterator[str]:
    above = path.parent
    while above and drafts.lookup(above) is None:
        yield above
        above = above.parent


class _NoStore:
    """A preflight writes no catalog."""

    def write(self, contents: CatalogContents, done: Callable[[Written], None]) -> None:
        raise AssertionError(f"a preflight wrote a catalog of {len(contents.rows)} rows for {done}")

    def wait(self) -> None:
        raise AssertionError("there is nothing to wait for")


def nested_below(reader: Reader, path: RepoPath) -> frozenset[str]:
    """The directories at and below a path that begin a nested catalog, relative to it; ``""`` is the path itself.

    Only the catalogs on the way and those below are read.

    Raises:
        FormatError: one of them is damaged.
    """
    waiting = [CatalogRef(path="", digest=reader.root_hash, size_bytes=reader.manifest.root_size_bytes)]
    found = set()
    while waiting:
        for ref in reader.catalog(waiting.pop()).nested():
            is_below = f"{ref.path}/".startswith(f"{path}/")
            if is_below:
                found.add(ref.path[len(path) + 1 :])
            if is_below or path.startswith(f"{ref.path}/"):
                waiting.append(ref)
    return frozenset(found)


def preflight(reader: Reader, grafts: Sequence[Graft], removals: Sequence[RepoPath], limits: Limits) -> Report:
    """What a publish would refuse or warn about; nothing is written.

    Raises:
        RepositoryError: the trees cannot be held by a repository.
    """
    drafts = Drafts(reader, _NoStore(), now_s=0, nanoseconds=False)
    for path in removals:
        drafts.remove(path)
    return check_surveys(drafts, survey_grafts(reader, grafts, limits), limits)
