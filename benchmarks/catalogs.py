#!/usr/bin/env python3
"""What catalogs cost the start of a kernel: how many a client loads, and how many bytes.

    .venv/bin/python benchmarks/catalogs.py MANIFEST [--project DIR] [--kernel NAME]... [--cells] [--json FILE]

The kernels of a release are really started, from the built images, under ``strace``; all that they look up or list in
their image is what a client would look up. For each way to split the image into catalogs, the catalogs are written as
they would be published (with made-up digests of the contents, which compress as badly as real ones), and those that the
start needs are added up. It needs built images (``afpub build``), Apptainer and strace, and says what it lacks.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from publisher import tools
from publisher.cvmfs.catalog import CatalogRef
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.drafts import Drafts
from publisher.cvmfs.keys import create_keys
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.rows import Chunk, Content
from publisher.cvmfs.settings import Settings
from publisher.errors import AfpubError, ToolError
from publisher.kernels.probe import ProbeOptions, probe
from publisher.kernels.targets import Target
from publisher.names import Fqrn, KernelName, RepoPath
from publisher.project.kernel import KernelDefinition
from publisher.project.load import Project, load_project
from publisher.project.manifest import load_manifest
from publisher.project.settings import CatalogBounds
from publisher.records.index import Index
from publisher.release.build import Obtained
from publisher.release.layout import JUPYTER, release_folder
from publisher.release.plan import ReleasePlan, make_plan
from publisher.release.preview import cached_build
from publisher.release.stage import lay_out
from publisher.staging.catalogs import measure, split
from publisher.staging.normalize import Policy, normalize
from publisher.tree import Entry, FolderTree, Kind

FQRN = Fqrn("bench.afpub.example")
AT = RepoPath("/images/image/1.0")
HERE = Path(__file__).resolve()
CALLS = "%file,getdents64,clone,clone3,fork,vfork"
ELSEWHERE = ("/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/home", "/root", "/cvmfs")
"""What the container runtime puts over the image."""
REQUEST_S = 0.05
"""One request through a proxy, over some distance."""
BYTES_PER_S = 10e6
_LOOKUP = re.compile(r'(\d+) +\w+\((?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_CHILD = re.compile(r"(\d+) +(?:<\.\.\. )?(?:clone3?|v?fork)\b.* = (\d+)\s*$")
_LISTING = re.compile(r"(\d+) +getdents64\(\d+<([^>]*)>")
_INSIDE = "/.singularity.d"
"""Whoever looks at this path is the process that becomes the container's."""


# --- what a start looks at -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What a start looked up and listed, as paths of the image; also what is not there."""

    looked: frozenset[str]
    listed: frozenset[str]


def record(project: Project, kernel: KernelDefinition, kernel_dir: Path, work: Path, *, cells: bool) -> Iterator[str]:
    """The lines of strace for one start of a kernel."""
    if shutil.which("strace") is None:
        raise ToolError("strace is not installed: nobody can see what a kernel opens", hint="apt install strace")
    log = work / f"{kernel.name}.trace"
    words: list[str | Path] = ["strace", "-f", "-y", "-s", "4096", "-o", log, "-e", f"trace={CALLS}"]
    if os.geteuid() == 0:
        words.append("--seccomp-bpf")  # stops at these calls only; for others it would take set-id programs their power
    run: list[str | Path] = [
        sys.executable,
        HERE,
        "--project",
        project.root,
        "--start",
        kernel_dir,
        *(["--cells"] if cells else []),
    ]
    done = tools.run([*words, *run], check=False, timeout_s=300, env={**os.environ, "PYTHONPATH": f"{HERE.parents[1]}"})
    if not done.ok:
        raise ToolError(f"{kernel.name} did not start under strace", detail=done.tail)
    with log.open(encoding="utf-8", errors="surrogateescape") as lines:
        yield from lines
    log.unlink()


def start(project: Project, kernel_dir: Path, *, cells: bool) -> int:
    """Starts one kernel, and ends it; the part of the benchmark that strace watches."""
    smoke = project.kernel(KernelName(kernel_dir.name)).smoke if cells else ()
    with tempfile.TemporaryDirectory(prefix="afpub-bench-") as folder:
        target = Target(kernel_dir=kernel_dir, smoke=smoke)
        (result,) = probe([target], ProbeOptions(scratch=Path(folder), workers=1))
    for finding in result.report.errors:
        sys.stderr.write(f"{finding.message}\n")
    return 0 if result.report.ok else 1


def parse(lines: Iterable[str], rootfs: Path) -> Trace:
    """What the processes in the container looked at, in their image."""
    inside: set[str] = set()
    looked: set[str] = set()
    listed: set[str] = set()
    for line in lines:
        if (child := _CHILD.match(line)) and child[1] in inside:
            inside.add(child[2])
        elif listing := _LISTING.match(line):
            if listing[1] in inside:
                listed.add(listing[2])
        elif lookup := _LOOKUP.match(line):
            pid, folder, path = lookup.groups()
            if path.startswith(_INSIDE):
                inside.add(pid)
            if pid in inside:
                looked.add(path if path.startswith("/") else f"{folder or ''}/{path}")
    ways = {path for name in looked for path in steps(rootfs, name)}
    folders = {way[-1] for name in listed if (way := list(steps(rootfs, name))) and (rootfs / way[-1]).is_dir()}
    return Trace(looked=frozenset(ways), listed=frozenset(folders))


def steps(rootfs: Path, name: str, depth: int = 0) -> Iterator[str]:
    """Each path that the kernel looks up on the way to a name, links followed; ends at the first that is not there."""
    if name.startswith(ELSEWHERE) or depth > 40:
        return
    at = ""
    names = [part for part in name.split("/") if part not in {"", "."}]
    for number, part in enumerate(names):
        if part == "..":
            at = at.rpartition("/")[0]
            continue
        at = f"{at}/{part}".lstrip("/")
        yield at
        place = rootfs / at
        if place.is_symlink():
            target, rest = os.readlink(place), "/".join(names[number + 1 :])
            base = "" if target.startswith("/") else f"/{at.rpartition('/')[0]}"
            yield from steps(rootfs, f"{base}/{target}/{rest}", depth + 1)
            return
        if not place.exists():
            return


# --- what the catalogs are -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One catalog."""

    raw_bytes: int
    stored_bytes: int


def made_up(entry: Entry) -> Content:
    """The content of a file as a catalog tells of it."""
    digest = hashlib.sha1(os.fsencode(entry.path), usedforsecurity=False).digest()
    rule = Settings().chunk_rule
    pieces: tuple[Chunk, ...] = ()
    if entry.size_bytes > rule.average:
        offsets = range(0, entry.size_bytes, rule.average)
        pieces = tuple(
            Chunk(
                offset=offset,
                size_bytes=min(rule.average, entry.size_bytes - offset),
                digest=hashlib.sha1(b"%d" % offset + digest, usedforsecurity=False).digest(),
            )
            for offset in offsets
        )
    return Content(
        size_bytes=entry.size_bytes,
        algorithm=Algorithm.SHA1,
        compression=Compression.ZLIB,
        digest=None if pieces else digest,
        chunks=pieces,
    )


def write_catalogs(repository: Path, entries: Sequence[Entry], catalogs: frozenset[str]) -> dict[str, Size]:
    """The size of each catalog, by the directory in the image that begins it; that of the repository's root by None."""
    rows = ((entry, made_up(entry) if entry.kind is Kind.FILE else None) for entry in entries)
    sizes: dict[str, Size] = {}

    def store(mount: str, data: bytes) -> CatalogRef:
        stored = zlib.compress(data, 6)
        sizes[mount] = Size(raw_bytes=len(data), stored_bytes=len(stored))
        return CatalogRef(path=mount, digest=Algorithm.SHA1.digest(stored), size_bytes=len(data))

    with open_repository(repository) as reader:
        drafts = Drafts(reader, store, now_s=1_800_000_000, nanoseconds=False)
        drafts.graft(AT, rows, catalogs, made_up(Entry(path="", kind=Kind.FILE, mode=0o644)))
        drafts.write(ttl_s=240)
    return sizes


def loaded(catalogs: Iterable[str], trace: Trace) -> set[str]:
    """The mount paths of the catalogs that a client loads.

    A look-up loads every catalog that begins above the path, the listing of a directory also the one that begins at it
    (cvmfs/catalog_mgr_impl.h, MountSubtree).
    """
    found = {""}
    for catalog in catalogs:
        mount = f"{AT}/{catalog}".rstrip("/")
        below = f"{catalog}/" if catalog else ""
        if any(path.startswith(below) for path in trace.looked) or catalog in trace.listed:
            found.add(mount)
    return found


def by_depth(counts: Mapping[str, int], depth: int) -> frozenset[str]:
    """Every directory down to a depth that holds anything begins a catalog."""
    return frozenset(path for path in counts if path.count("/") + bool(path) <= depth and counts[path]) | {""}


def ways_to_split(counts: Mapping[str, int], bounds: CatalogBounds) -> dict[str, frozenset[str]]:
    """What is compared."""
    return {
        "computed": split(counts, bounds),
        "one for the image": frozenset({""}),
        **{f"depth {depth}": by_depth(counts, depth) for depth in (2, 3, 4)},
        "none": frozenset(),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of the table."""

    kernel: str
    split: str
    catalogs: int
    """In the repository."""
    loaded: int
    stored_bytes: int
    """Of those that are loaded."""
    raw_bytes: int
    seconds: float
    """One request after the other, and the bytes."""


def lines_of(
    repository: Path, entries: Sequence[Entry], traces: Mapping[str, Trace], bounds: CatalogBounds
) -> Iterator[Line]:
    """The table for the kernels of one image."""
    for name, catalogs in ways_to_split(measure(entries).counts, bounds).items():
        sizes = write_catalogs(repository, entries, catalogs)
        for kernel, trace in traces.items():
            needed = loaded(catalogs, trace)
            stored = sum(sizes[mount].stored_bytes for mount in needed)
            yield Line(
                kernel=kernel,
                split=name,
                catalogs=len(sizes),
                loaded=len(needed),
                stored_bytes=stored,
                raw_bytes=sum(sizes[mount].raw_bytes for mount in needed),
                seconds=round(len(needed) * REQUEST_S + stored / BYTES_PER_S, 3),
            )


# --- all of it -------------------------------------------------------------------------------------------------------


def all_lines(project: Project, plan: ReleasePlan, work: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Starts the kernels and adds up their catalogs, image by image."""
    built = {image.selection.name: cached_build(image, project.settings) for image in plan.images}
    missing = sorted(name for name, image in built.items() if image is None)
    if missing:
        raise ToolError(f"{', '.join(missing)} is not built", hint="build it: afpub build")
    images = {name: Obtained(rootfs=image.rootfs, built=image) for name, image in built.items() if image}
    release = release_folder(lay_out(plan, images, work / "stage"), plan.manifest.version)
    keys, repository = work / "keys", work / "repository"
    create_keys(FQRN, keys, now=dt.datetime.now(tz=dt.UTC))
    create_repository(repository, FQRN, keys_folder=keys, settings=Settings(), now=dt.datetime.now(tz=dt.UTC))
    for name, image in images.items():
        traces: dict[str, Trace] = {}
        for kernel in plan.kernels:
            if kernel.image == name and (not options.kernel or kernel.name in options.kernel):
                sys.stderr.write(f"starting {kernel.name}\n")
                lines = record(project, kernel, release / JUPYTER / "kernels" / kernel.name, work, cells=options.cells)
                traces[kernel.name] = parse(lines, image.rootfs)
        policy = Policy(unreadable=project.settings.unreadable)
        entries = normalize(FolderTree(folder=image.rootfs), where=name, policy=policy).entries
        if traces:
            yield from lines_of(repository, entries, traces, project.settings.catalogs)


def show(lines: Iterable[Line]) -> None:
    """The table, as it stands in the documentation."""
    out = sys.stdout
    out.write("| kernel | split | catalogs | loaded | fetched | raw | time |\n|---|---|---|---|---|---|---|\n")
    for line in lines:
        out.write(
            f"| `{line.kernel}` | {line.split} | {line.catalogs} | {line.loaded} | {line.stored_bytes / 1e3:,.0f} kB "
            f"| {line.raw_bytes / 1e3:,.0f} kB | {line.seconds:.2f} s |\n"
        )
        out.flush()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, nargs="?", help="a release manifest")
    parser.add_argument("--project", type=Path, default=Path(), help="the project; default: here")
    parser.add_argument("--kernel", action="append", help="only this one; may be given again")
    parser.add_argument("--cells", action="store_true", help="run the smoke cells of the kernels too")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        project = load_project(options.project.resolve())
        if options.start:
            return start(project, options.start, cells=options.cells)
        if not options.manifest:
            parser.error("which release? name its manifest")
        manifest = load_manifest(options.manifest)
        plan = make_plan(project, manifest, Index(fqrn=project.settings.fqrn, prefix=project.settings.prefix))
        with tempfile.TemporaryDirectory(prefix="afpub-bench-") as folder:
            lines = list(all_lines(project, plan, Path(folder), options))
    except AfpubError as exc:
        sys.stderr.write("\n".join(part for part in (exc.detail, f"error: {exc.message}", exc.hint) if part) + "\n")
        return exc.exit_code
    show(lines)
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
