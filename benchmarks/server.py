#!/usr/bin/env python3
"""How long a transaction of cvmfs_server is open, and a release takes in all, by who publishes it.

    sudo unshare -m --propagation private .venv/bin/python benchmarks/server.py [FOLDER] [--rounds N]

The folder (by default the Python packages of this virtual environment) is published with a real ``cvmfs_server`` on
this machine, which needs root: each way into a new repository, first the whole folder, then to another path with one
file in fifty changed and all times new, as a rebuilt image is. ``rsync`` is what an administrator does by hand:
``cvmfs_server transaction``, ``rsync -a``, ``cvmfs_server publish``; ``ingest`` is ``cvmfs_server ingest`` of a tar
made by ``tar``. The repositories are removed again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from publisher import tools
from publisher.backends.base import Changeset
from publisher.backends.server.backend import ServerBackend
from publisher.backends.server.site import ServerOptions, Way
from publisher.names import Fqrn, RepoPath
from publisher.project.settings import CatalogBounds
from publisher.staging.catalogs import split_tree
from publisher.staging.normalize import Policy, normalize
from publisher.tree import FolderTree, Graft

FQRN = Fqrn("bench.afpub.example")
FLAG = Path("/var/spool/cvmfs") / FQRN / "in_transaction.lock"
Publish = Callable[[Path, str], None]


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def repository() -> Iterator[None]:
    """A new repository of the real server while the context is open."""
    if FLAG.parent.exists():
        sys.exit(f"there is a repository {FQRN} on this machine: remove it first")
    Path("/srv/cvmfs").mkdir(parents=True, exist_ok=True)
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory="/srv"))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}/cvmfs/{FQRN}"
    try:
        tools.run(["cvmfs_server", "mkfs", "-p", "-o", "root", "-w", url, "-f", "overlayfs", FQRN])
        yield
    finally:
        tools.run(["cvmfs_server", "rmfs", "-f", "-p", FQRN], check=False)
        web.shutdown()
        web.server_close()


class Watch:
    """How long the server's flag file was there."""

    def __init__(self) -> None:
        self.open_s = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        since = None
        while not self._end.is_set():
            there = FLAG.exists()
            if there and since is None:
                since = time.monotonic()
            elif not there and since is not None:
                self.open_s, since = self.open_s + time.monotonic() - since, None
            time.sleep(0.005)


def by_afpub(work: Path, way: Way) -> Publish:
    """Publishing with afpub."""
    backend = ServerBackend(FQRN, ServerOptions(work=work / way.value, way=way))

    def publish(folder: Path, name: str) -> None:
        entries = normalize(FolderTree(folder=folder), where=name, policy=Policy()).entries
        catalogs = split_tree(entries, CatalogBounds()).catalogs
        graft = Graft(at=RepoPath(f"/bench/{name}"), tree=entries, catalogs=catalogs)
        done = backend.publish(Changeset(base=backend.head(), grafts=(graft,)))
        for note in done.notes:
            print(f"{way.value}, {name}: {note}")

    return publish


def by_rsync(_work: Path) -> Publish:
    """Publishing as an administrator does by hand."""

    def publish(folder: Path, name: str) -> None:
        target = Path("/cvmfs") / FQRN / "bench" / name
        tools.run(["cvmfs_server", "transaction", FQRN])
        target.mkdir(parents=True)
        tools.run(["rsync", "-a", f"{folder}/", f"{target}/"])
        (target / ".cvmfscatalog").touch()
        tools.run(["cvmfs_server", "publish", "-f", FQRN], cwd=Path("/"))

    return publish


def by_ingest(work: Path) -> Publish:
    """Publishing a tar."""

    def publish(folder: Path, name: str) -> None:
        tar = work / f"{name}.tar"
        tools.run(["tar", "-C", folder, "-cf", tar, "."])
        tools.run(["cvmfs_server", "ingest", "-t", tar, "-b", f"bench/{name}", "-c", FQRN], cwd=Path("/"))

    return publish


def rebuilt(folder: Path, target: Path) -> Path:
    """The folder as after a rebuild: all times new, one file in fifty changed."""
    shutil.copytree(folder, target, symlinks=True, copy_function=shutil.copyfile)
    files = sorted(path for path in target.rglob("*") if path.is_file() and not path.is_symlink())
    for path in files[::50]:
        with path.open("ab") as file:
            file.write(b"\n# built again\n")
    return target


WAYS: dict[str, Callable[[Path], Publish]] = {
    "afpub describe": partial(by_afpub, way=Way.DESCRIBE),
    "afpub copy": partial(by_afpub, way=Way.COPY),
    "afpub ingest": partial(by_afpub, way=Way.INGEST),
    "rsync": by_rsync,
    "cvmfs_server ingest": by_ingest,
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_path("purelib")))
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    if os.geteuid() != 0 or not all(map(tools.which, ("cvmfs_server", "rsync"))):
        sys.exit("needs root, cvmfs_server and rsync")
    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="afpub-bench-") as name:
        work = Path(name)
        first = shutil.copytree(given.folder, work / "first", symlinks=True)
        trees = {"first": first, "rebuilt": rebuilt(first, work / "rebuilt")}
        for _ in range(given.rounds):
            for way, make in WAYS.items():
                with repository():
                    publish = make(Path(tempfile.mkdtemp(dir=work)))
                    for kind, tree in trees.items():
                        start = time.monotonic()
                        with Watch() as watch:
                            publish(tree, kind)
                        rows.setdefault((kind, way), []).append((watch.open_s, time.monotonic() - start))
        files = [path for path in first.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    print(f"{len(files):,} files, {size / 1e6:,.0f} MB, {given.rounds} rounds, medians\n")
    print(f"{'':<10}{'':<22}{'open':>9}{'in all':>9}")
    for (kind, way), seen in sorted(rows.items(), key=lambda row: row[0][0]):
        open_s, all_s = (statistics.median(column) for column in zip(*seen, strict=True))
        print(f"{kind:<10}{way:<22}{open_s:>8.1f}s{all_s:>8.1f}s")


if __name__ == "__main__":
    main()
