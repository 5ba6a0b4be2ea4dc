import pytest

from publisher.machine import (
    filesystem_kind,
    missing_capabilities,
    runtime_version,
    space,
    subid_end,
    subordinate_ids,
)


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("apptainer version 1.4.5", (1, 4, 5)),
        ("apptainer version 1.3.6-1.el9", (1, 3, 6)),
        ("singularity-ce version 4.1.1-noble", (4, 1, 1)),
        ("singularity version 3.8.7-1.el8", (3, 8, 7)),
        ("2.6-dist", (2, 6)),
        ("what?", ()),
    ],
)
def test_runtimes_tell_their_version_in_many_ways(answer, version):
    assert runtime_version(answer) == version


def test_capabilities_that_the_bounding_set_lacks():
    assert missing_capabilities("CapEff:\t0\nCapBnd:\t000001fffeffffff\n", last=40) == {24}
    assert missing_capabilities("CapBnd:\t000001ffffffffff\n", last=40) == frozenset()
    assert missing_capabilities("CapBnd:\t0000000000000000\n", last=2) == {0, 1, 2}
    assert missing_capabilities("no such line", last=40) == frozenset()


def test_subordinate_ids_by_name_and_by_number():
    text = "ada:100000:65536\n1001:165536:1000\nbob:200000:65536\n# comment\nbroken:1\n"
    assert subordinate_ids(text, user="ada", uid=1001) == 66536
    assert subordinate_ids(text, user="bob", uid=7) == 65536
    assert subordinate_ids(text, user="eve", uid=8) == 0
    assert subordinate_ids("", user="ada", uid=1001) == 0


def test_the_next_free_subordinate_id():
    assert subid_end("ada:100000:65536\nbob:300000:10\n") == 300010
    assert subid_end("") == 100000


MOUNTS = """\
rootfs / overlay rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb /home/ada/scratch xfs rw 0 0
/dev/sdb /home/ada/scratch ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/homes/x", "overlay"),
        ("/home", "nfs4"),
        ("/home/ada/x", "nfs4"),
        ("/home/ada/scratch/build", "ext4"),
    ],
)
def test_the_file_system_below_a_path(path, kind):
    assert filesystem_kind(MOUNTS, path) == kind


def test_no_mounts_are_known():
    assert filesystem_kind("", "/x") == "unknown"


def test_room_for_a_folder_that_is_not_there_yet(tmp_path):
    found = space(tmp_path / "not" / "yet")
    assert found.folder == str(tmp_path / "not" / "yet")
    assert found.free_bytes > 0
    assert found.kind != "unknown"
