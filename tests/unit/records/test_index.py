import json
from dataclasses import replace

import pytest

from publisher.errors import FormatError, NotFoundError
from publisher.names import ChannelName, Fqrn, ImageName, ImageVersion, KernelName, ReleaseVersion, RepoPath
from publisher.records.index import Index, IndexImage, IndexRelease, parse_index

STABLE = ChannelName("stable")


def release(version):
    return IndexRelease(
        version=ReleaseVersion(version),
        digest=f"sha256:{version}",
        created="2026-11-01T00:00:00+00:00",
        images=((ImageName("root"), ImageVersion("6.40")),),
        kernels=(KernelName("rootcpp"),),
    )


IMAGE = IndexImage(
    name=ImageName("root"),
    version=ImageVersion("6.40"),
    inputs_digest="sha256:1",
    tree_digest="sha256:2",
    entries=3,
    size_bytes=4,
)


def index(*versions):
    made = Index(fqrn=Fqrn("demo.example.org"), prefix=RepoPath("/af"))
    for version in versions:
        made = made.with_release(release(version), (IMAGE,)).moved(STABLE, ReleaseVersion(version))
    return made


def test_the_document_reads_back():
    made = index("1.0", "2.0", "3.0")
    assert parse_index(made.to_bytes()) == made


def test_an_image_is_listed_once():
    assert index("1.0", "2.0").images == (IMAGE,)


def test_rollback_goes_back_release_by_release():
    made = index("1.0", "2.0", "3.0").rolled_back(STABLE)
    assert (made.channel("stable").release, made.channel("stable").history) == ("2.0", ("1.0",))
    made = made.rolled_back(STABLE)
    assert (made.channel("stable").release, made.channel("stable").history) == ("1.0", ())
    with pytest.raises(NotFoundError) as caught:
        made.rolled_back(STABLE)
    assert caught.value.message == "the channel 'stable' has had no release before 1.0"


def test_a_release_is_in_a_history_once():
    made = index("1.0", "2.0")
    for version in ("1.0", "2.0", "1.0"):
        made = made.moved(STABLE, ReleaseVersion(version))
    assert made.channel("stable").history == ("2.0",)


def test_moving_to_where_it_is_changes_nothing():
    made = index("1.0")
    assert made.moved(STABLE, ReleaseVersion("1.0")) is made


def test_what_is_not_there_is_named_with_the_nearest():
    with pytest.raises(NotFoundError) as caught:
        index("2026.11.1").require_release("2026.11.2")
    assert caught.value.message == "the release '2026.11.2' is not published in demo.example.org"
    assert caught.value.hint == "did you mean '2026.11.1'?"
    with pytest.raises(NotFoundError) as caught:
        index().require_channel("stable")
    assert caught.value.hint == "nothing is published yet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda doc: doc.update(schema=2), "index.json has schema 2, this afpub knows 1"),
        (lambda doc: doc.pop("fqrn"), "index.json: the key 'fqrn' is missing"),
        (lambda doc: doc.update(fqrn="no"), "index.json: 'fqrn': 'no' is no repository name"),
        (lambda doc: doc["images"][0].update(entries="3"), "[images[0]]: 'entries' must be a whole number"),
        (lambda doc: doc["releases"][0].update(kernels=["../x"]), "'../x' is no kernel name"),
        (lambda doc: doc["channels"][0].update(release="9.0"), "the channel 'stable' is at '9.0', which"),
    ],
)
def test_published_input_is_not_trusted(change, message):
    document = index("1.0").to_json()
    document = json.loads(json.dumps(document))
    change(document)
    with pytest.raises(FormatError) as caught:
        parse_index(json.dumps(document).encode())
    assert message in caught.value.message


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{"])
def test_bytes_that_are_no_index(data):
    with pytest.raises(FormatError, match=r"index\.json is no"):
        parse_index(data)


def test_unknown_keys_of_a_newer_afpub_are_left_alone():
    document = index("1.0").to_json() | {"new": 1}
    assert parse_index(json.dumps(document).encode()) == index("1.0")


def test_a_retired_release_leaves_histories_and_takes_its_own_images_along():
    newer = IndexImage(
        name=ImageName("root"),
        version=ImageVersion("7.0"),
        inputs_digest="sha256:1",
        tree_digest="sha256:2",
        entries=3,
        size_bytes=4,
    )
    row = replace(release("3.0"), images=((newer.name, newer.version),))
    made = index("1.0", "2.0").with_release(row, (newer,)).moved(STABLE, ReleaseVersion("3.0"))
    one = made.without(ReleaseVersion("1.0"), keep=frozenset())
    assert one.images == (IMAGE, newer), "2.0 still uses it"
    assert one.channel("stable").history == ("2.0",)
    two = one.without(ReleaseVersion("2.0"), keep=frozenset())
    assert (two.images, two.channel("stable").history) == ((newer,), ())
    assert [row.retired for row in two.releases] == [True, True, False]
    assert one.without(ReleaseVersion("2.0"), keep=frozenset({(IMAGE.name, IMAGE.version)})).images == (IMAGE, newer)
    assert parse_index(two.to_bytes()) == two
    assert two.without(ReleaseVersion("2.0"), keep=frozenset()) == two
