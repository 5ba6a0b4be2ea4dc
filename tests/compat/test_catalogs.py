"""Nested catalogs and files stored in different ways, as the real client and the CVMFS tools see them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path

import cvmfs_repository as repository
import pytest
from compat.client import mounted
from cvmfs_repository import file, graft

import publisher
from publisher import tools
from publisher.cvmfs.serve import serving
from publisher.cvmfs.signing import resign_whitelist
from publisher.names import RepoPath
from publisher.patterns import PathPattern
from publisher.project.settings import CatalogBounds
from publisher.staging.catalogs import split_tree
from publisher.tree import Graft

NOISE = hashlib.shake_128(b"noise").digest(700_000)
MIXED = (
    file("plot.png", b"\x89PNG" * 100),
    file("twin.txt", b"\x89PNG" * 100),
    file("events.root", NOISE),
    file("events.dat", NOISE),
    file("zeros.root", bytes(600_000)),
    file("raw/deep/f", b"raw"),
    file("empty.png"),
    file("empty.txt"),
)


@pytest.fixture
def benchmark():
    """The benchmark, whose measure is to be what the client does."""
    path = Path(publisher.__file__).parents[1] / "benchmarks" / "catalogs.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_catalogs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def client(require_tool, require_root, tmp_path):
    """A function that mounts a repository with the real client."""
    require_tool("cvmfs2")

    stack = contextlib.ExitStack()

    def mount(repo):
        name = repository.FQRN
        resign_whitelist(repo.folder, keys_folder=repo.keys, now=repository.datetime.now(repository.UTC))
        url = stack.enter_context(serving({name: repo.folder}))
        key = repo.keys / f"{name}.pub"
        return stack.enter_context(mounted(name, f"{url}/cvmfs/@fqrn@", public_key=key, work=tmp_path))

    with stack:
        yield mount


def mixed(tmp_path):
    settings = replace(repository.SMALL, uncompressed=("*.png", "*.root", "/sw/**/raw/**"))
    repo = repository.make(tmp_path / "repo", settings)
    repo.publish(graft("/sw/x", *MIXED, catalogs=("", "raw")), at=repository.datetime.now(repository.UTC))
    return repo


def test_the_tools_accept_files_that_are_stored_in_different_ways(tmp_path, require_tool):
    program = require_tool("cvmfs_swissknife")
    repo = mixed(tmp_path)
    done = tools.run([program, "check", "-c", "-r", repo.folder, "-t", tmp_path], check=False)
    assert "no problems found" in done.tail
    assert tools.run([program, "scrub", "-r", repo.folder / "data"], check=False).ok


def test_the_client_reads_files_that_are_stored_in_different_ways(tmp_path, client):
    top = client(mixed(tmp_path))
    for entry in MIXED:
        path = top / "sw/x" / entry.path
        assert path.read_bytes() == entry.content, path
        plain = entry.path.endswith((".png", ".root")) or entry.path.startswith("raw/")
        assert os.getxattr(path, "user.compression") == (b"none" if plain else b"zlib"), path


def test_the_client_loads_the_catalogs_that_the_benchmark_counts(tmp_path, client, benchmark):
    names = ["bin/sh", "usr/share/doc/a", "usr/lib/x.so", "usr/lib/python3.11/site-packages/numpy/core.py", "opt/a/b"]
    entries = repository.tree(*(file(name, b"x") for name in names))
    patterns = ("/opt", "/usr", "usr/lib", "site-packages/numpy", "share/doc")
    bounds = CatalogBounds(min_entries=1, max_entries=100, cut=tuple(map(PathPattern, patterns)))
    cuts = split_tree(entries, bounds).catalogs
    assert len(cuts) == 6
    repo = repository.make(tmp_path / "repo")
    moment = repository.datetime.now(repository.UTC)
    repo.publish(Graft(at=RepoPath(benchmark.AT), tree=entries, catalogs=cuts), at=moment)
    top = client(repo)
    image = top / benchmark.AT[1:]
    looked, listed = set(), set()
    for action, more_looked, more_listed in STEPS:
        action(image)
        looked |= more_looked
        listed |= more_listed
        counted = benchmark.loaded(cuts, benchmark.Trace(looked=frozenset(looked), listed=frozenset(listed)))
        assert int(os.getxattr(top, "user.nclg")) == len(counted), (looked, listed, counted)


MODULE = "usr/lib/python3.11/site-packages/numpy/core.py"
STEPS = (
    (lambda image: image.lstat(), set(), set()),
    (lambda image: (image / "bin").lstat(), {"bin"}, set()),
    (lambda image: (image / "usr").lstat(), {"usr"}, set()),
    (lambda image: (image / "usr/lib/none").exists(), {"usr/lib", "usr/lib/none"}, set()),
    (lambda image: (image / "usr/share/doc").lstat(), {"usr/share", "usr/share/doc"}, set()),
    (lambda image: list((image / "usr/share/doc").iterdir()), set(), {"usr/share/doc"}),
    (lambda image: (image / MODULE).read_bytes(), {MODULE}, set()),
    (lambda image: list((image / "opt").iterdir()), {"opt"}, {"opt"}),
)
"""What is done in the mounted image, and what a trace of it would hold: look-ups and listings."""
