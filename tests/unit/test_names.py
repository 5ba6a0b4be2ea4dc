import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import NameInvalidError
from publisher.names import (
    ChannelName,
    Fqrn,
    ImageName,
    ImageVersion,
    KernelName,
    ReleaseVersion,
    RepoPath,
    SiteName,
    TagName,
)

PLAIN = (ChannelName, ImageName, ImageVersion, KernelName, SiteName)
UNSAFE = [
    "",
    ".",
    "..",
    "-x",
    ".hidden",
    "_x",
    "A",
    "a b",
    "a:b",
    "a@b",
    "a/b",
    "a\n",
    "a.",
    "é",
    "a\0",
    "a,b",
    "$x",
]


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("text", ["a", "7", "python3-ml", "root_6.40", "2026.11.1", "x" * 200])
def test_safe_names_are_taken_as_they_are(kind, text):
    name = kind(text)
    assert name == text
    assert type(name) is kind


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("text", UNSAFE)
def test_unsafe_names_are_refused(kind, text):
    with pytest.raises(NameInvalidError) as caught:
        kind(text)
    assert caught.value.message == f"{text!r} is no {kind.what}"
    assert caught.value.hint == ("use lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit")


@given(st.text())
def test_a_name_is_safe_in_every_list_of_paths(text):
    try:
        name = KernelName(text)
    except NameInvalidError:
        return
    assert not set(name) & set(":@,;/\\ \t\n'\"$`*?[]{}()&|<>#%\0")
    assert name == name.lower()


def test_names_survive_pickling():
    for value in (KernelName("a"), Fqrn("a.b"), RepoPath("/a/b"), TagName("T1"), ReleaseVersion("1.0")):
        again = pickle.loads(pickle.dumps(value))
        assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize("text", ["2026.11.1", "2026.11.1rc1", "2026.11.1.dev3", "1.0.post1", "0"])
def test_release_versions(text):
    assert ReleaseVersion(text) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2026.11.01", "write '2026.11.1'"),
        ("v1.0", "write '1.0'"),
        ("1.0-RC1", "write '1.0rc1'"),
        ("1.0+local", "write '1.0'"),
        ("1!2.0", "write '2.0'"),
    ],
)
def test_a_release_version_has_one_way_to_be_written(text, hint):
    with pytest.raises(NameInvalidError) as caught:
        ReleaseVersion(text)
    assert (caught.value.message, caught.value.hint) == (f"{text!r} is not in normal form", hint)


@pytest.mark.parametrize("text", ["", "latest", "1..0", "1.0 beta x", "../1"])
def test_what_is_no_release_version(text):
    with pytest.raises(NameInvalidError) as caught:
        ReleaseVersion(text)
    assert caught.value.message == f"{text!r} is no release version"
    assert caught.value.hint == "use a PEP 440 version, calendar by convention, such as 2026.11.1"


def test_releases_sort_by_version_not_by_text():
    texts = ["2026.11.10", "2026.11.2", "2026.11.2rc1", "2026.11.2.post1"]
    assert sorted(map(ReleaseVersion, texts), key=lambda version: version.order) == [
        "2026.11.2rc1",
        "2026.11.2",
        "2026.11.2.post1",
        "2026.11.10",
    ]


@pytest.mark.parametrize("text", ["v1", "Release_2026.11.1", "0-a"])
def test_tag_names(text):
    assert TagName(text) == text


@pytest.mark.parametrize("text", ["", "trunk", "trunk-previous", "a b", "a;b", "-D", "a/b", "a@b"])
def test_tags_that_a_server_tool_would_stumble_over(text):
    with pytest.raises(NameInvalidError) as caught:
        TagName(text)
    assert caught.value.message == f"{text!r} is no tag name"
    assert caught.value.hint == "use letters, digits, '.', '_' and '-', but not 'trunk' or 'trunk-previous'"


@pytest.mark.parametrize("text", ["demo.afpub.example", "a.b", "atlas-nightlies.cern.ch", "9.9"])
def test_repository_names(text):
    assert Fqrn(text) == text


@pytest.mark.parametrize("text", ["", "demo", "a..b", ".a.b", "a.b.", "A.b", "a_b.c", "-a.b", "a-.b", "a.b\n", "a/b.c"])
def test_what_is_no_repository_name(text):
    with pytest.raises(NameInvalidError) as caught:
        Fqrn(text)
    assert caught.value.message == f"{text!r} is no repository name"
    assert caught.value.hint == "use a name such as kernels.example.org, of at most 60 characters"


def test_the_longest_repository_name():
    assert len(Fqrn("a" * 58 + ".b")) == 60
    with pytest.raises(NameInvalidError):
        Fqrn("a" * 59 + ".b")


def test_the_root_of_a_repository_has_one_spelling():
    assert RepoPath("/") == RepoPath("") == ""
    assert RepoPath("/").parent == ""
    assert RepoPath("/").name == ""
    assert RepoPath("/") / "af" == "/af"


def test_paths_in_a_repository():
    path = RepoPath("/af/images") / "root"
    assert path == "/af/images/root"
    assert (path.name, path.parent, path.parent.parent.parent) == ("root", "/af/images", "")
    assert isinstance(path.parent, RepoPath)


@pytest.mark.parametrize("text", ["af", "af/images", "/af/", "//af", "/af//x", "/./af", "/af/..", "/..", "/a\0b"])
def test_what_is_no_path_in_a_repository(text):
    with pytest.raises(NameInvalidError) as caught:
        RepoPath(text)
    assert caught.value.message == f"{text!r} is no path in a repository"
    assert caught.value.hint == "write it from the root, such as /af/images"


@pytest.mark.parametrize("name", ["..", "", ".", "a/../b"])
def test_a_path_cannot_be_left_by_joining(name):
    with pytest.raises(NameInvalidError):
        RepoPath("/af") / name


@given(st.text())
def test_a_path_never_leaves_the_repository(text):
    try:
        path = RepoPath(text)
    except NameInvalidError:
        return
    assert path == "" or path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/")[1:])
