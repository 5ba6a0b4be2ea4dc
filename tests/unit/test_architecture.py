"""The shape of the package: imports point down, and each foreign library has its one place."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import publisher

PACKAGE = Path(publisher.__file__).parent
LAYERS = (
    {"report"},
    {"errors"},
    {"names", "patterns", "progress"},
    {"tools", "tree", "machine", "doctor"},
    {"project", "records", "cvmfs"},
    {"backends"},
    {"images", "kernels", "staging", "validation", "sites", "propagation", "adoption"},
    {"pipeline", "release"},
    {"cli"},
)
"""Parts of the package, lowest first; a part may use its own layer and those below."""
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
ONLY_IN = {
    "blake3": "cvmfs.packer",
    "deflate": "cvmfs.compression",
    "subprocess": "tools",
    "rich": "cli.console",
    "typer": "cli",
    "obstore": "cvmfs.s3",
    "spython": "images.dockerfile",
    "prometheus_client": "propagation.metrics",
}
"""Where a foreign library may be imported: a module, or a folder with everything in it."""


def modules():
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix("__init__").rstrip("."), ast.parse(file.read_text(encoding="utf-8"))


NAMES = {name for name, _ in modules()}


def imported(tree):
    """Every import in a module as (dotted name, whether it stands at the top)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node in tree.body) for alias in node.names)


def own(tree):
    """The modules of the package that a module imports."""
    for name, _ in imported(tree):
        if name.startswith("publisher."):
            inner = name.removeprefix("publisher.")
            yield inner if inner in NAMES else inner.rpartition(".")[0]


def forbidden(name, tree):
    """The parts that a module imports and must not."""
    part = name.partition(".")[0]
    used = {target.partition(".")[0] for target in own(tree)} - {""}
    beside = {"project", "records"} if part in {"cvmfs", "backends"} else set()
    return {target for target in used if RANK[target] > RANK[part]} | used & beside


CASES = [pytest.param(name, tree, id=name) for name, tree in modules() if name]


def test_every_part_has_a_layer():
    assert {name.partition(".")[0] for name in NAMES if name} <= set(RANK)


@pytest.mark.parametrize(("name", "tree"), CASES)
def test_imports_point_down(name, tree):
    assert forbidden(name, tree) == set()


@pytest.mark.parametrize(("name", "tree"), CASES)
def test_foreign_libraries_have_their_place(name, tree):
    for library, place in ONLY_IN.items():
        if name != place and not name.startswith(f"{place}."):
            assert library not in {target.partition(".")[0] for target, _ in imported(tree)}


@pytest.mark.parametrize(("name", "tree"), CASES)
def test_nothing_is_imported_late(name, tree):
    assert [target for target, at_top in imported(tree) if not at_top] == []


def test_no_import_cycle():
    graph = {name: set(own(tree)) - {name} for name, tree in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(f"import cycle: {' -> '.join(exc.args[1])}")


def test_the_check_sees_what_it_should():
    tree = ast.parse("from publisher.cli import main\nfrom publisher import tools, project, __version__\n")
    assert forbidden("cvmfs.writer", tree) == {"cli", "project"}
    assert forbidden("cli.main", tree) == set()
    assert dict(imported(ast.parse("def f():\n    import json\n"))) == {"json": False}
