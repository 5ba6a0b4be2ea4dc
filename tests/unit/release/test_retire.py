import pytest

from publisher.errors import UsageError
from publisher.names import ChannelName, Fqrn, ImageName, ImageVersion, KernelName, ReleaseVersion, RepoPath
from publisher.records.index import Index, IndexImage, IndexRelease
from publisher.records.release import ReleaseRecord
from publisher.release.retire import retired_conf, retired_index
from publisher.release.state import PublishedState

FQRN, PREFIX = Fqrn("demo.example.org"), RepoPath("/af")
IMAGES = (ImageName("root"), ImageVersion("1")), (ImageName("ml"), ImageVersion("1"))


def state(*, aliases=()):
    """1.0 and 2.0 with an image each; the channel is at 2.0."""
    made = Index(fqrn=FQRN, prefix=PREFIX)
    records = {}
    for version, image in zip(("1.0", "2.0"), IMAGES, strict=True):
        name = ReleaseVersion(version)
        row = IndexRelease(version=name, digest="x", created="now", images=(image,), kernels=(KernelName("k"),))
        new = IndexImage(name=image[0], version=image[1], inputs_digest="x", tree_digest="y", entries=1, size_bytes=1)
        made = made.with_release(row, (new,)).moved(ChannelName("stable"), name)
        record = ReleaseRecord(
            version=name, digest="x", created="now", fqrn=FQRN, prefix=PREFIX, channel=ChannelName("stable"),
            notes="", images=(), kernels=(), files=(), tools=(), aliases=aliases if version == "1.0" else (),
        )  # fmt: skip
        records[f"/af/releases/{version}/release.json"] = record.to_bytes()
    return PublishedState(index=made, read=records.get)


def test_its_own_images_go():
    assert [row.name for row in retired_index(state(), "1.0", "2.0").images] == ["ml"]


def test_images_that_an_old_path_leads_to_stay():
    kept = retired_index(state(aliases=(("/old.sif", "af/images/root/1"),)), "1.0", "")
    assert [row.name for row in kept.images] == ["root", "ml"]


@pytest.mark.parametrize(
    ("release", "successor", "message"),
    [
        ("2.0", "", "the channel 'stable' is at 2.0: its users would lose every kernel"),
        ("1.0", "1.0", "the successor 1.0 is retired itself"),
    ],
)
def test_what_is_refused(release, successor, message):
    with pytest.raises(UsageError) as caught:
        retired_index(state(), release, successor)
    assert caught.value.message == message


def test_the_data_file_of_a_kernel():
    before = b"# comment\nFORMAT=1\nMODE=image\nREASON=old\nIMAGE=root/1\n"
    assert retired_conf(before, successor="2.0", reason="too slow") == (
        b"# comment\nFORMAT=1\nIMAGE=root/1\nMODE=retired\nREASON=too slow\nSUCCESSOR=release 2.0\n"
    )
    assert b"SUCCESSOR" not in retired_conf(before, successor="", reason="")
