"""Where nested catalogs begin."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.errors import NameInvalidError, ProjectError
from publisher.patterns import PathPattern, matcher
from publisher.project.settings import CatalogBounds
from publisher.staging.catalogs import (
    WHOLE,
    State,
    check_split,
    measure,
    parts,
    split,
    split_tree,
    states,
)
from publisher.tree import Entry, Kind, pre_order

BOUNDS = CatalogBounds(min_entries=10, max_entries=100)


def tree(files, *more):
    """A tree with so many files in each directory."""
    folders = {""}
    for path in files:
        names = path.split("/") if path else []
        folders |= {"/".join(names[:depth]) for depth in range(len(names) + 1)}
    entries = [Entry(path=path, kind=Kind.DIRECTORY, mode=0o755) for path in folders]
    for path, count in files.items():
        prefix = f"{path}/" if path else ""
        entries += [
            Entry(path=f"{prefix}f{number}", kind=Kind.FILE, mode=0o644, content=b"", size_bytes=number)
            for number in range(count)
        ]
    return pre_order([*entries, *more])


def cut(files, previous=(), bounds=BOUNDS):
    return split(measure(tree(files)).counts, bounds, previous=frozenset(previous))


def sizes(files, cuts):
    return {part.path: part.entries for part in parts(tree(files), cuts)}


def test_a_small_tree_begins_no_catalog():
    assert cut({"a": 2, "b": 4}) == frozenset()
    assert split({}, BOUNDS) == frozenset(), "a single file is no tree"


def test_a_tree_within_the_bounds_is_one_catalog():
    assert cut({"a": 30, "b": 40}) == {""}


@pytest.mark.parametrize(
    "path",
    [
        "usr/share/doc",
        "usr/share/locale",
        "usr/include",
        "usr/lib/python3.11/site-packages/numpy",
        "usr/local/lib/python3.11/dist-packages/pandas/tests",
        "opt/env/lib/python3.9/test",
        "usr/local/lib/python3.11/dist-packages/jedi/third_party",
    ],
)
def test_natural_boundaries_begin_a_catalog_as_soon_as_they_are_large_enough(path):
    assert cut({"bin": 20, path: 12}) == {"", path}
    assert cut({"bin": 20, path: 5}) == {""}


def test_what_is_needed_together_stays_together():
    package = "usr/lib/python3.11/site-packages/ROOT"
    files = {"bin": 20, f"{package}/include": 20, f"{package}/lib": 5, f"{package}/tutorials": 12}
    assert cut(files) == {"", package, f"{package}/tutorials"}
    files[f"{package}/lib"] = 12
    assert cut(files, previous={f"{package}/include"}) == {"", package, f"{package}/include", f"{package}/tutorials"}


def test_the_project_names_more_of_them():
    bounds = CatalogBounds(min_entries=10, max_entries=100, cut=(PathPattern("data/*"),))
    assert cut({"bin": 5, "data/a": 20, "data/b": 3}, bounds=bounds) == {"", "data/a"}


def test_the_heaviest_directories_are_cut_off_where_a_catalog_would_be_too_large():
    assert cut({"a": 60, "b": 40, "c": 5}) == {"", "a"}


def test_the_deepest_directories_are_cut_first():
    files = {"": 5, "lib/x": 70, "lib/y": 60, "lib/z": 3}
    assert cut(files) == {"", "lib/x", "lib/y"}
    assert sizes(files, cut(files)) == {"": 5 + 1 + 1 + 2 + 1 + 3, "lib/x": 71, "lib/y": 61}


def test_seams_go_before_heavier_directories():
    def files(folder):
        return {"bin": 28, "etc": 12} | {f"{folder}/{name}": 8 for name in "abcdefg"}

    site = "usr/lib/python3.11/site-packages"
    assert cut(files(site)) == {"", site}
    assert cut(files("usr/lib/ocaml/packages")) == {"", "usr"}


def test_nothing_begins_inside_of_what_a_start_walks_whole():
    files = {"bin": 20, "usr/share/jupyter/kernels/include": 20, "x/.singularity.d/share/doc": 20}
    assert cut(files) == {""}
    assert cut(files, previous={"", "usr/share/jupyter/kernels"}) == {""}
    bounds = CatalogBounds(min_entries=10, max_entries=100, whole=(PathPattern("bin"),))
    assert cut({"bin/include": 20}, bounds=bounds) == {""}
    assert cut({"bin/include": 20}) == {"", "bin/include"}


def test_a_boundary_stays_while_it_has_half_of_the_least_entries():
    doc = "usr/share/doc"
    assert cut({"bin": 20, doc: 10}) == {"", doc}
    assert cut({"bin": 20, doc: 5}, previous={"", doc}) == {"", doc}
    assert cut({"bin": 20, doc: 3}, previous={"", doc}) == {""}
    assert cut({"bin": 20}, previous={"", doc}) == {""}


def test_what_was_cut_off_for_its_size_stays_when_that_shrinks():
    assert cut({"a": 60, "b": 45}) == {"", "a"}
    assert cut({"a": 50, "b": 40}, previous={"", "a"}) == {"", "a"}
    assert cut({"a": 50, "b": 40}) == {""}


def test_growing_a_little_moves_no_catalog():
    assert cut({"a": 60, "b": 40, "c": 5}) == cut({"a": 63, "b": 38, "c": 6})


def test_a_marker_counts_whatever_the_size():
    marker = Entry(path="a/b/.cvmfscatalog", kind=Kind.FILE, mode=0o644, content=b"")
    entries = tree({"a/b": 1}, marker)
    assert measure(entries).marked == {"a/b"}
    found = split_tree(entries, BOUNDS)
    assert found.catalogs == {"", "a/b"}
    assert [(item.severity, item.message) for item in check_split(found, where="t", bounds=BOUNDS).findings] == [
        ("note", "begins a nested catalog of 3 entries, as it says, fewer than 10: one more that clients fetch")
    ]


def test_markers_that_are_none_and_rules_are_explained():
    link = Entry(path="a/.cvmfscatalog", kind=Kind.SYMLINK, mode=0o777, target="x")
    rules = Entry(path="a/.cvmfsdirtab", kind=Kind.FILE, mode=0o644, content=b"/x\n")
    entries = tree({"a": 1}, link, rules)
    report = check_split(split_tree(entries, BOUNDS), where="img", bounds=BOUNDS)
    assert [(item.severity, item.where, item.message) for item in report.findings] == [
        ("error", "img:/a/.cvmfscatalog", "a .cvmfscatalog must be a file, not a symlink"),
        (
            "note",
            "img:/a/.cvmfsdirtab",
            "published as a file like any other: its rules count in the root of a repository only",
        ),
    ]


def test_a_directory_that_cannot_be_split_is_an_error():
    entries = tree({"a": 150})
    found = split_tree(entries, BOUNDS)
    report = check_split(found, where="images/x", bounds=BOUNDS)
    assert [(f.where, f.message) for f in report.errors] == [
        ("images/x:/a", "one catalog would hold 151 entries, more than 100")
    ]


def test_small_directories_are_cut_off_where_the_bound_needs_it():
    files = {"b": 90, "b/a": 6, "b/c": 2}
    assert cut(files) == {"", "b/a"}


@pytest.mark.parametrize(
    "files", [{}, {"a": 5}, {"b": 90, "b/a": 6, "b/c": 2}, {"a": 60, "b/c": 40, "c": 5, "c/d": 70}]
)
def test_sizes_are_those_of_the_parts(files):
    entries = tree(files)
    found = split_tree(entries, BOUNDS)
    assert found.sizes == {part.path: part.entries for part in parts(entries, found.catalogs)}


def test_what_became_of_each_catalog():
    before = parts(tree({"a": 3, "b": 3, "c": 3}), frozenset({"", "a", "b"}))
    after = parts(tree({"a": 3, "b": 4, "c": 3}), frozenset({"", "a", "b", "c"}))
    assert states(after, before) == {"": State.CHANGED, "a": State.UNCHANGED, "b": State.CHANGED, "c": State.NEW}
    assert [(part.path, part.entries, part.size_bytes) for part in before] == [("", 7, 3), ("a", 4, 3), ("b", 4, 3)]


@pytest.mark.parametrize("change", [{"mode": 0o755}, {"size_bytes": 9}, {"path": "a/x"}, {"kind": Kind.FIFO}])
def test_everything_but_times_and_contents_makes_a_catalog_another_one(change):
    def digest(**values):
        entry = {"path": "a/f", "kind": Kind.FILE, "mode": 0o644, "content": b"x", "size_bytes": 1} | values
        return parts(tree({"a": 0}, Entry(**entry)), frozenset({"", "a"}))[1].digest

    assert digest() == digest(mtime_s=7, content=b"y")
    assert digest(**change) != digest()


@pytest.mark.parametrize(("least", "most"), [(0, 10), (-1, 5), (100, 399), (9, 5)])
def test_bounds_must_leave_room(least, most):
    with pytest.raises(ProjectError, match="leave no room to be stable"):
        CatalogBounds(min_entries=least, max_entries=most)
    with pytest.raises(NameInvalidError):
        PathPattern("a//b")


PLAIN = ("a", "b", "share", "doc", "lib", "python3.11", "site-packages", "tests")
FREE = st.dictionaries(st.lists(st.sampled_from(PLAIN), max_size=5).map("/".join), st.integers(0, 45), max_size=14)
ANY = st.dictionaries(
    st.lists(st.sampled_from((*PLAIN, "include", "etc", "x.dist-info")), max_size=5).map("/".join),
    st.integers(0, 45),
    max_size=14,
)


def home(path, cuts):
    """The directory that begins the catalog in which the entries of a directory are."""
    while path and path not in cuts:
        path = path.rpartition("/")[0]
    return path


def inner(path, cuts):
    """The boundaries directly below that of a catalog."""
    return {each for each in cuts if each and each != path and home(each.rpartition("/")[0], cuts) == path}


@given(FREE)
@settings(max_examples=150, deadline=None)
def test_bounds_hold_for_any_tree(files):
    cuts = cut(files)
    found = sizes(files, cuts)
    assert sum(found.values()) == len(tree(files)) + len(cuts - {""})
    assert max(found.values()) <= BOUNDS.max_entries
    for path, size in found.items():
        if path and size < BOUNDS.min_entries:  # only where the catalog around it would be too large with it
            assert found[home(path.rpartition("/")[0], cuts)] + size > BOUNDS.max_entries // 2


@given(ANY)
@settings(max_examples=100, deadline=None)
def test_nothing_is_cut_inside_of_what_is_walked_whole(files):
    whole = matcher(WHOLE)
    above = {f"/{path[:at]}" for path in cut(files) for at in range(len(path)) if path[at] == "/"}
    assert [path for path in above if whole(path)] == []


@given(ANY)
@settings(max_examples=100, deadline=None)
def test_publishing_the_same_again_moves_no_catalog(files):
    cuts = cut(files)
    assert cut(files, previous=cuts) == cuts


@given(ANY, st.data())
@settings(max_examples=150, deadline=None)
def test_a_small_change_takes_no_boundary_away_and_leaves_other_catalogs_as_they_are(files, data):
    cuts = cut(files)
    changed = {path: max(0, count + data.draw(st.integers(-3, 3))) for path, count in files.items()}
    after = cut(changed, previous=cuts)
    for path in cuts - after - {""}:
        assert sizes(changed, after | {path})[path] * 2 < BOUNDS.min_entries
    before = {part.path: part.digest for part in parts(tree(files), cuts)}
    for part in parts(tree(changed), after):
        touched = any(changed[path] != files[path] for path in files if home(path, after) == part.path)
        if not touched and part.path in before and inner(part.path, cuts) == inner(part.path, after):
            assert part.digest == before[part.path]
