#!/usr/bin/env python3
"""The embedded back-end beside the CVMFS server tools: time, processor, memory and bytes stored, in one run.

    .venv/bin/python benchmarks/engine.py [FOLDER] [--rounds N] [--settle 300] [--elsewhere N] [--many N] [--json FILE]

Each case runs in a process of its own, which the operating system measures: a first publish, the same again, a
rebuilt image (all times new, 2 % of the files changed), one small file in a repository with very many entries
elsewhere, and a tree of very many small files. Where cvmfs_server is installed and may be run, the same trees go
through ``cvmfs_server publish`` and ``ingest`` in the same run. A bare loop in two processes that reads, hashes,
compresses, writes and renames the same files shows what is left to gain. Nothing is deleted before the end:
ext4 without a journal passes over the inodes of files that were deleted in the last minutes one by one, so that making
new ones takes several times longer. What the server tools delete themselves is waited out with ``--settle 300``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import hashlib
import http.server
import json
import os
import shutil
import statistics
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import deflate
from engine_case import PART

from publisher.cvmfs.create import create_repository
from publisher.cvmfs.keys import create_keys
from publisher.cvmfs.settings import Settings
from publisher.names import Fqrn

FQRN = Fqrn("engine.afpub.example")
INGEST = Fqrn("ingest.afpub.example")
MANY = Fqrn("many.afpub.example")
HERE = Path(__file__).resolve()


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one case took."""

    wall_s: float
    cpu_s: float
    memory_mb: float
    """Highest of the process and its children."""
    objects: int = 0
    """New objects."""
    stored_mb: float = 0.0
    """Their bytes."""


# --- what cannot be beaten: each is a process of its own -------------------------------------------------------------


def read_and_hash(_: Path, folder: Path) -> None:
    """Reads and hashes each file once."""
    for top, _dirs, names in os.walk(folder):
        for name in names:
            path = Path(top, name)
            if path.is_file() and not path.is_symlink():
                hashlib.sha1(path.read_bytes()).digest()


def bare_loop(work: Path, folder: Path) -> None:
    """Two processes that read, hash, compress, write and rename, and know nothing else: what is left to gain."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    store = work / "bare"
    for number in range(256):
        (store / f"{number:02x}").mkdir(parents=True)
    with ProcessPoolExecutor(2) as pool:
        named = [pair for pairs in pool.map(_pack, [files[0::2], files[1::2]], [store, store]) for pair in pairs]
    os.sync()
    for temporary, digits in named:
        os.replace(temporary, f"{store}/{digits[:2]}/{digits[2:]}")  # noqa: PTH105 - as fast as can be
    os.sync()


def _pack(files: list[Path], store: Path) -> list[tuple[str, str]]:
    known: set[bytes] = set()
    named = []
    for path in files:
        with path.open("rb") as source:
            data = source.read()
        key = hashlib.sha256(data).digest()
        if key not in known:
            known.add(key)
            packed = deflate.zlib_compress(data, 5)
            temporary = f"{store}/{os.getpid()}-{len(named)}"
            with open(temporary, "xb") as target:  # noqa: PTH123 - as fast as can be
                target.write(packed)
            named.append((temporary, hashlib.sha1(packed).hexdigest()))
    return named


BOUNDS: dict[str, Callable[[Path, Path], None]] = {"hash": read_and_hash, "bare": bare_loop}
"""Cases that publish nothing; the others are in a program of their own."""

# --- measuring -------------------------------------------------------------------------------------------------------


def measure(words: list[str], store: Path | None = None) -> Figures:
    """Runs a program to its end; what the system says that it took, and what it added to an object store."""
    # As it is installed, with bytecode; and what was written before is on disk.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    os.sync()
    before = stored(store)
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), number) for number in (1, 2)]
        child = os.posix_spawnp(words[0], words, environ, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
        wall = time.perf_counter() - start
        if status:
            output.seek(0)
            sys.exit(f"{' '.join(words)} failed:\n{output.read().decode(errors='replace')}")
    after = stored(store)
    return Figures(
        wall_s=wall,
        cpu_s=usage.ru_utime + usage.ru_stime,
        memory_mb=usage.ru_maxrss / 1024,
        objects=after[0] - before[0],
        stored_mb=(after[1] - before[1]) / 1e6,
    )


def stored(store: Path | None) -> tuple[int, int]:
    """Objects and bytes in a repository's store."""
    if store is None:
        return 0, 0
    sizes = [path.stat().st_size for path in store.glob("data/??/*")]
    return len(sizes), sum(sizes)


def case(name: str, work: Path, folder: Path | str) -> Figures:
    """One case of our own."""
    if name in BOUNDS:
        return measure([sys.executable, str(HERE), "--case", name, "--work", str(work), str(folder)])
    return measure([sys.executable, str(HERE.with_name("engine_case.py")), name, str(work), str(folder)], work / "repo")


def rebuild(source: Path, target: Path) -> None:
    """A copy as another build would make it: all times new, every 50th file with other bytes."""
    shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile)
    paths = sorted(target.rglob("*"))
    for path in (target, *paths):
        os.utime(path, follow_symlinks=False)  # the copy has the times of directories and links
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    for path in files[::50]:
        with path.open("ab") as stream:
            stream.write(b"\n# built again\n")


def small_files(folder: Path, count: int) -> Path:
    """A tree of small files, all of them different, 250 in a directory."""
    for number in range(count // 250):
        place = folder / f"d{number % 20:02}" / f"package{number:04}"
        place.mkdir(parents=True)
        for each in range(250):
            (place / f"module{each:03}.py").write_text(f"NUMBER = {number}, {each}\n" * 6)
    return folder


# --- the two publishers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Trees:
    """What is published."""

    first: Path
    rebuilt: Path
    many: Path | None


def embedded(work: Path, trees: Trees, elsewhere: int) -> dict[str, Figures]:
    """All cases through the embedded back-end."""
    now = dt.datetime.now(tz=dt.UTC)
    create_keys(FQRN, work / "keys", now=now)
    create_repository(work / "repo", FQRN, keys_folder=work / "keys", settings=Settings(), now=now)
    rows = {"read and hash": case("hash", work, trees.first)}
    rows["bare loop, two processes"] = case("bare", work, trees.first)
    rows["first publish"] = case("publish", work, trees.first)
    rows["same again"] = case("publish", work, trees.first)
    case("hash", work, trees.rebuilt)  # so that it is in memory, as what the server publishes is
    rows["rebuilt image"] = case("publish", work, trees.rebuilt)
    rows["one small file"] = case("small", work, trees.first)
    if trees.many:
        rows["many small files"] = case("publish", work, trees.many)
        rows["many, again"] = case("publish", work, trees.many)
    for number in range(elsewhere // PART):
        case("fill", work, str(number))
    if elsewhere:
        rows["one, with many elsewhere"] = case("small", work, trees.first)
    return rows


@contextmanager
def stratum0(work: Path, fqrn: Fqrn) -> Iterator[Path]:
    """A repository of the CVMFS server tools, its storage served on the loopback; removed in the end."""
    handler = functools.partial(_Quiet, directory="/srv")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/cvmfs/{fqrn}"
    storage = Path("/srv/cvmfs", fqrn)
    if storage.exists():
        sys.exit(f"{storage} is there already: remove it with cvmfs_server rmfs {fqrn}")
    storage.parent.mkdir(exist_ok=True)
    os.chdir(work)  # a publish is refused from a folder inside the repository
    try:
        measure(["cvmfs_server", "mkfs", "-p", "-o", "root", "-w", address, "-f", "overlayfs", fqrn])
        yield storage
    finally:
        measure(["cvmfs_server", "rmfs", "-f", "-p", fqrn])
        server.shutdown()
        for path in (storage, *Path("/etc/cvmfs/keys").glob(f"{fqrn}.*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


def server_tools(work: Path, number: int, trees: Trees, settle_s: float, stack: ExitStack) -> dict[str, Figures]:
    """The cases through cvmfs_server; copying into the transaction is not measured."""
    rows = {}
    first, ingested, third = (Fqrn(f"round{number}-{fqrn}") for fqrn in (FQRN, INGEST, MANY))
    storage = stack.enter_context(stratum0(work, first))
    rows["first publish"] = transaction(first, storage, trees.first)
    rows["same again"] = transaction(first, storage, trees.first)
    rows["rebuilt image"] = transaction(first, storage, trees.rebuilt)
    measure(["cvmfs_server", "transaction", first])
    Path("/cvmfs", first, "kernel.json").write_text("{}\n")
    rows["one small file"] = measure(["cvmfs_server", "publish", first], storage)
    with tarfile.open(work / "tree.tar", "w") as archive:
        archive.add(trees.first, arcname="tree")
    time.sleep(settle_s)
    storage = stack.enter_context(stratum0(work, ingested))
    words = ["cvmfs_server", "ingest", "-t", str(work / "tree.tar"), "-b", "bench", ingested]
    rows["first publish (ingest)"] = measure(words, storage)
    if trees.many:
        time.sleep(settle_s)
        storage = stack.enter_context(stratum0(work, third))
        rows["many small files"] = transaction(third, storage, trees.many)
        rows["many, again"] = transaction(third, storage, trees.many)
    return rows


def transaction(fqrn: Fqrn, storage: Path, source: Path) -> Figures:
    """A tree, copied into the repository and published."""
    measure(["cvmfs_server", "transaction", fqrn])
    tree = Path("/cvmfs", fqrn, "tree")
    if tree.exists():
        shutil.rmtree(tree)
    shutil.copytree(source, tree, symlinks=True, copy_function=shutil.copyfile)
    return measure(["cvmfs_server", "publish", fqrn], storage)


# --- showing ---------------------------------------------------------------------------------------------------------


def medians(rounds: list[dict[str, Figures]]) -> dict[str, Figures]:
    """The median of each figure of each case."""
    result = {}
    for name in rounds[0]:
        values = [asdict(row[name]) for row in rounds]
        result[name] = Figures(**{key: statistics.median(value[key] for value in values) for key in values[0]})
    return result


def show(title: str, rows: dict[str, Figures], peer: dict[str, Figures]) -> None:
    """Prints a table; the ratios are those of the peer's figures to ours."""
    print(f"\n{title}\n{'':<26}{'wall':>9}{'cpu':>9}{'memory':>9}{'objects':>9}{'stored':>10}  peer/ours wall, cpu")
    for name, row in rows.items():
        line = f"{name:<26}{row.wall_s:>8.2f}s{row.cpu_s:>8.2f}s{row.memory_mb:>6.0f} MB{row.objects:>9,}"
        line += f"{row.stored_mb:>7.1f} MB"
        other = peer.get(name)
        if other:
            line += f"  {other.wall_s / row.wall_s:.1f}x, {other.cpu_s / row.cpu_s:.1f}x"
        print(line)


def one_round(
    work: Path, number: int, given: argparse.Namespace, stack: ExitStack, *, peer: bool
) -> tuple[dict[str, Figures], dict[str, Figures]]:
    """All cases of ours, then those of the server tools."""
    many = small_files(work / "many", given.many) if given.many else None
    trees = Trees(first=work / "first", rebuilt=work / "second", many=many)
    shutil.copytree(given.folder, trees.first, symlinks=True)
    rebuild(trees.first, trees.rebuilt)
    ours = embedded(work, trees, given.elsewhere)
    return ours, server_tools(work, number, trees, given.settle, stack) if peer else {}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_path("purelib")))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--elsewhere", type=int, default=0, help="entries to fill the repository with")
    parser.add_argument("--many", type=int, default=0, help="small files in a tree of their own")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--only-ours", action="store_true", help="leave the CVMFS server tools out")
    parser.add_argument("--settle", type=float, default=0.0, help="seconds to wait before the next new repository")
    parser.add_argument("--scratch", type=Path, help="folder for the trees and repositories")
    parser.add_argument("--case", choices=BOUNDS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        BOUNDS[given.case](given.work, given.folder)
        return
    peer = bool(shutil.which("cvmfs_server")) and os.geteuid() == 0 and not given.only_ours
    if not peer:
        print("cvmfs_server is not installed, may not be run, or is not wanted: compare with the bare loop")
    with tempfile.TemporaryDirectory(prefix="afpub-bench-", dir=given.scratch) as scratch, ExitStack() as stack:
        rounds = []
        for number in range(given.rounds):
            work = Path(scratch, f"round-{number}")
            work.mkdir()
            if number:
                time.sleep(given.settle)
            rounds.append(one_round(work, number, given, stack, peer=peer))
        ours, theirs = medians([each[0] for each in rounds]), medians([each[1] for each in rounds])
    show(
        "embedded back-end",
        ours,
        theirs | {"bare loop, two processes": theirs.get("first publish", ours["read and hash"])},
    )
    if theirs:
        show("cvmfs_server", theirs, {})
    if given.json:
        rows = {"embedded": ours, "cvmfs_server": theirs}
        figures = {who: {name: asdict(row) for name, row in each.items()} for who, each in rows.items()}
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
