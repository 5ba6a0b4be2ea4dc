import pytest

from publisher.errors import DiskError
from publisher.staging.digest import sha256_of, tree_digest
from publisher.tree import Entry, FolderTree, Kind

ROOT = Entry(path="", kind=Kind.DIRECTORY, mode=0o755)
FILE = Entry(path="a", kind=Kind.FILE, mode=0o644, content=b"one", size_bytes=3)
LINK = Entry(path="b", kind=Kind.SYMLINK, mode=0o777, target="a", size_bytes=1)


def test_times_and_owners_do_not_count():
    moved = FILE._replace(mtime_s=5, uid=3)
    assert tree_digest([ROOT, FILE, LINK]) == tree_digest([ROOT, moved, LINK])


@pytest.mark.parametrize(
    "change",
    [
        {"path": "c"},
        {"mode": 0o755},
        {"content": b"two"},
        {"content": b"ones", "size_bytes": 4},
        {"kind": Kind.DIRECTORY, "content": None},
    ],
)
def test_everything_else_counts(change):
    assert tree_digest([ROOT, FILE]) != tree_digest([ROOT, FILE._replace(**change)])


def test_link_targets_count():
    assert tree_digest([ROOT, LINK]) != tree_digest([ROOT, LINK._replace(target="c")])


def test_a_folder_and_its_values_agree(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "a").chmod(0o644)
    tmp_path.chmod(0o755)
    seen = []
    assert tree_digest(FolderTree(folder=tmp_path), progress=seen.append) == tree_digest([ROOT, FILE])
    assert seen == [0, 3]


def test_content_can_be_read_from_elsewhere():
    bare = FILE._replace(content=None)
    assert tree_digest([bare], content=lambda entry: sha256_of([b"o", b"ne"])) == tree_digest([FILE])


def test_a_file_that_is_gone(tmp_path):
    entry = FILE._replace(content=f"{tmp_path}/gone")
    with pytest.raises(DiskError, match=r"cannot read .*gone: No such file or directory"):
        tree_digest([entry])


def test_markers_of_nested_catalogs_do_not_count():
    marker = Entry(path=".cvmfscatalog", kind=Kind.FILE, mode=0o644, content=b"")
    assert tree_digest([ROOT, marker, FILE]) == tree_digest([ROOT, FILE])
