import os
import random
import stat

import pytest

from publisher import tree
from publisher.errors import DiskError
from publisher.tree import FORMAT_OF_KIND, Entry, FolderTree, Kept, Kind, pre_order


def paths(folder, **options):
    return [entry.path for entry in FolderTree(folder=folder, **options)]


def by_path(folder, **options):
    return {entry.path: entry for entry in FolderTree(folder=folder, **options)}


def test_a_folder_comes_in_pre_order(tmp_path):
    for name in ("b/x", "b-/x", "b.d/x", "a", "B", "b/a/z"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    expected = ["", "B", "a", "b", "b/a", "b/a/z", "b/x", "b-", "b-/x", "b.d", "b.d/x"]
    assert paths(tmp_path) == expected


def test_sorting_gives_the_order_of_a_folder(tmp_path):
    for name in ("a/b", "a-b/c", "a.b", "a/\N{SNOWMAN}/x", "a b"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    entries = list(FolderTree(folder=tmp_path))
    mixed = entries.copy()
    random.Random(7).shuffle(mixed)
    assert pre_order(mixed) == entries


def test_a_file_keeps_mode_times_size_and_place_of_its_bytes(tmp_path):
    file = tmp_path / "tool"
    file.write_bytes(b"12345")
    file.chmod(0o4750)
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    entry = by_path(tmp_path)["tool"]
    assert (entry.kind, entry.mode, entry.size_bytes) == (Kind.FILE, 0o4750, 5)
    assert (entry.mtime_s, entry.mtime_ns) == (1_700_000_000, 123_456_789)
    assert entry.content == str(file)
    assert (entry.uid, entry.gid) == (os.getuid(), os.getgid())


def test_times_before_1970_are_split_upwards(tmp_path):
    file = tmp_path / "old"
    file.write_bytes(b"")
    os.utime(file, ns=(0, -1_500_000_000))
    entry = by_path(tmp_path)["old"]
    assert (entry.mtime_s, entry.mtime_ns) == (-2, 500_000_000)


def test_links_are_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "broken").symlink_to("nowhere/\N{SNOWMAN}")
    entries = by_path(tmp_path)
    assert "link/x" not in entries
    assert (entries["link"].kind, entries["link"].target, entries["link"].size_bytes) == (
        Kind.SYMLINK,
        "real",
        4,
    )
    assert entries["broken"].size_bytes == len("nowhere/☃".encode())


def test_special_files_are_seen(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o640)
    entry = by_path(tmp_path)["pipe"]
    assert (entry.kind, entry.mode, entry.content, entry.size_bytes) == (Kind.FIFO, 0o640, None, 0)


def test_any_bytes_in_a_name_survive(tmp_path):
    raw = b"bad-\xff\xfe name"
    (tmp_path / os.fsdecode(raw)).write_bytes(b"")
    assert [os.fsencode(path) for path in paths(tmp_path)] == [b"", raw]


def test_siblings_are_in_the_order_of_their_bytes(tmp_path):
    """Which is not that of the texts where bytes are no UTF-8."""
    names = [b"a", b"z", "é".encode(), b"\x80", b"\xff", "\ue000".encode(), "\U0001f600".encode()]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    assert [os.fsencode(path) for path in paths(tmp_path)] == [b"", *sorted(names)]
    assert sorted(names) != sorted(names, key=os.fsdecode)


def test_hard_links_in_one_folder_share_a_group(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "alone").write_bytes(b"x")
    os.link(tmp_path / "a", tmp_path / "b")
    os.link(tmp_path / "a", tmp_path / "d" / "c")
    entries = by_path(tmp_path)
    assert entries["a"].link_group == entries["b"].link_group != 0
    assert entries["d/c"].link_group not in {0, entries["a"].link_group}
    assert entries["alone"].link_group == 0


def test_extended_attributes_are_read_when_asked_for(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"")
    try:
        os.setxattr(file, "user.b", b"\0two")
        os.setxattr(file, "user.a", b"one")
    except OSError as exc:
        pytest.skip(f"no extended attributes in {tmp_path}: {exc.strerror}")
    assert by_path(tmp_path)["f"].xattrs == ()
    assert by_path(tmp_path, xattrs=True)["f"].xattrs == (("user.a", b"one"), ("user.b", b"\0two"))


def test_a_tree_is_read_anew_each_time(tmp_path):
    tree = FolderTree(folder=tmp_path)
    assert len(list(tree)) == 1
    (tmp_path / "new").write_bytes(b"")
    assert [entry.path for entry in tree] == ["", "new"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DiskError) as caught:
        list(FolderTree(folder=tmp_path / "nowhere"))
    assert caught.value.message == f"cannot read {tmp_path}/nowhere: No such file or directory"


def test_name_and_parent():
    entry = Entry(path="a/b/c", kind=Kind.FILE, mode=0o644)
    assert (entry.name, entry.parent) == ("c", "a/b")
    top = Entry(path="a", kind=Kind.FILE, mode=0o644)
    assert (top.name, top.parent) == ("a", "")
    root = Entry(path="", kind=Kind.DIRECTORY, mode=0o755)
    assert (root.name, root.parent) == ("", "")


def test_every_kind_has_its_type_bits():
    assert set(FORMAT_OF_KIND) == set(Kind)
    assert FORMAT_OF_KIND[Kind.SYMLINK] == stat.S_IFLNK


@pytest.mark.parametrize(("plain", "pack"), [(0, 1), (0, 7), (5, 7), (50, 7), (500, 1024)])
def test_kept_entries_come_back_as_they_were(monkeypatch, plain, pack):
    monkeypatch.setattr(tree, "_PLAIN", plain)
    monkeypatch.setattr(tree, "_PACK", pack)
    kinds = tuple(Kind)
    entries = tuple(
        Entry(
            path=f"d/{number}-\udcff-\N{SNOWMAN}",
            kind=kinds[number % len(kinds)],
            mode=number,
            uid=number + 1,
            gid=number + 2,
            mtime_s=-number,
            mtime_ns=number + 3,
            size_bytes=number << 40,
            content=(None, b"\0bytes", "/a/\udcfe")[number % 3],
            target="t" * number,
            rdev=number + 4,
            xattrs=(("user.a", b"\xff"),) * (number % 2),
            link_group=number + 5,
        )
        for number in range(100)
    )
    kept = Kept(iter(entries))
    assert tuple(kept) == tuple(kept) == entries
    assert len(kept) == 100
    assert [kept[at] for at in (0, 4, 5, 6, 12, 99, -1, -100)] == [entries[at] for at in (0, 4, 5, 6, 12, 99, -1, -100)]
    assert kept[3:60:4] == entries[3:60:4]
    with pytest.raises(IndexError):
        kept[100]


def test_nothing_can_be_kept():
    assert (len(Kept(())), list(Kept(()))) == (0, [])
