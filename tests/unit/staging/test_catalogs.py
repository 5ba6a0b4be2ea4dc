from hypothesis import given
from hypothesis import strategies as st

from publisher.staging.catalogs import catalog_sizes, check_split, split
from publisher.tree import Entry, Kind, pre_order


def tree(**files):
    """A tree with so many files in each directory (``__`` is a slash, ``_`` the root)."""
    folders = {""}
    for path in files:
        parts = [part for part in path.split("__") if part != "_"]
        folders |= {"/".join(parts[:depth]) for depth in range(len(parts) + 1)}
    entries = [Entry(path=path, kind=Kind.DIRECTORY, mode=0o755) for path in folders]
    for path, count in files.items():
        prefix = "" if path == "_" else path.replace("__", "/") + "/"
        entries += [Entry(path=f"{prefix}f{n}", kind=Kind.FILE, mode=0o644, content=b"") for n in range(count)]
    return pre_order(entries)


def cut(entries):
    return split(entries, min_entries=10, max_entries=100)


def test_a_small_tree_begins_no_catalog():
    assert cut(tree(a=2, b=4)) == frozenset()


def test_a_tree_within_the_bounds_is_one_catalog():
    assert cut(tree(a=30, b=40)) == {""}


def test_the_heaviest_directories_are_cut_off():
    assert cut(tree(a=60, b=40, c=5)) == {"", "a"}


def test_the_deepest_directories_are_cut_first():
    entries = tree(_=5, lib__x=70, lib__y=60, lib__z=3)
    assert cut(entries) == {"", "lib/x", "lib/y"}
    assert catalog_sizes(entries, cut(entries)) == {"": 5 + 1 + 1 + 2 + 1 + 3, "lib/x": 71, "lib/y": 61}


def test_growing_a_little_moves_no_catalog():
    assert cut(tree(a=60, b=40, c=5)) == cut(tree(a=63, b=38, c=6))


def test_a_directory_that_cannot_be_split_is_an_error():
    entries = tree(a=150)
    report = check_split(entries, cut(entries), where="images/x", max_entries=100)
    assert [(f.where, f.message) for f in report.errors] == [
        ("images/x:/a", "one catalog would hold 151 entries, more than 100")
    ]


def test_small_directories_are_cut_off_where_the_bound_needs_it():
    entries = tree(b=90, b__a=6, b__c=2)
    assert cut(entries) == {"", "b/a"}
    assert check_split(entries, cut(entries), where="t", max_entries=100).ok


@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("__".join),
        st.integers(0, 40),
        max_size=12,
    )
)
def test_bounds_hold_for_any_tree(files):
    entries = tree(**files)
    cuts = cut(entries)
    sizes = catalog_sizes(entries, cuts)
    assert sum(sizes.values()) == len(entries) + len(cuts - {""})
    assert check_split(entries, cuts, where="t", max_entries=100).ok
    assert all(size >= 10 for path, size in sizes.items() if path)
