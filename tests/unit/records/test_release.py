import json

import pytest

from publisher.errors import FormatError, NotFoundError
from publisher.names import ChannelName, Fqrn, ImageName, ImageVersion, KernelName, ReleaseVersion, RepoPath
from publisher.records.release import (
    CatalogPart,
    Change,
    FileDigest,
    ImageRecord,
    KernelRecord,
    Package,
    ReleaseRecord,
    parse_release,
    release_digest,
)

IMAGE = ImageRecord(
    name=ImageName("root"),
    version=ImageVersion("6.40"),
    variant="",
    description="ROOT",
    base="base",
    features=("gpu",),
    licenses=("LGPL-2.1",),
    inputs_digest="sha256:1",
    tree_digest="sha256:2",
    entries=3,
    size_bytes=4,
    recipe="Bootstrap: scratch\n",
    builder="apptainer 1.4.5",
    os="Debian 12",
    packages=(Package(kind="deb", name="bash", version="5.2", license=""),),
    changes=(Change(check="set-id", path="/usr/bin/su", message="set-id bits were removed"),),
    catalogs=(CatalogPart(path="usr/lib", entries=7, size_bytes=9, digest="sha256:" + "4" * 64),),
)
RECORD = ReleaseRecord(
    version=ReleaseVersion("1.0"),
    digest="sha256:3",
    created="2026-11-01T00:00:00+00:00",
    fqrn=Fqrn("demo.example.org"),
    prefix=RepoPath("/af"),
    channel=ChannelName("stable"),
    notes="Schön.",
    images=(IMAGE,),
    kernels=(
        KernelRecord(
            name=KernelName("rootcpp"),
            display_name="ROOT C++",
            language="c++",
            image=ImageName("root"),
            image_version=ImageVersion("6.40"),
        ),
    ),
    files=(FileDigest(path="libexec/launch", sha256="00"),),
    tools=(("afpub", "1"),),
)


def test_the_document_reads_back():
    assert parse_release(RECORD.to_bytes()) == RECORD


def test_records_from_before_catalogs_were_noted_are_read():
    document = RECORD.to_json()
    del document["images"][0]["catalogs"]
    assert parse_release(json.dumps(document).encode()).images[0].catalogs == ()


def test_images_are_found_by_name():
    assert RECORD.image("root") is IMAGE
    with pytest.raises(NotFoundError, match=r"the release 1\.0 holds no image 'x'"):
        RECORD.image("x")


def test_published_input_is_not_trusted():
    document = json.loads(RECORD.to_bytes())
    document["images"][0]["name"] = "../../etc"
    with pytest.raises(FormatError, match=r"'../../etc' is no image name"):
        parse_release(json.dumps(document).encode())


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert release_digest({"a": 1, "b": 2}) == release_digest({"b": 2, "a": 1})
    assert release_digest({"a": 1}) != release_digest({"a": 2})
