import pytest

from publisher.report import Severity
from publisher.staging.links import check_links
from publisher.tree import Entry, Kind


def tree(**links):
    folders = [Entry(path=path, kind=Kind.DIRECTORY, mode=0o755) for path in ("", "usr", "usr/lib", "proc")]
    files = [Entry(path="usr/lib/libx.so.1", kind=Kind.FILE, mode=0o644, content=b"")]
    made = [
        Entry(path=path.replace("__", "/"), kind=Kind.SYMLINK, mode=0o777, target=target)
        for path, target in links.items()
    ]
    return [*folders, *files, *made]


@pytest.mark.parametrize(
    "links",
    [
        {"lib": "usr/lib"},
        {"lib": "/usr/lib/../lib"},
        {"usr__lib__libx": "libx.so.1"},
        {"usr__lib__libx": "../../usr/lib/libx.so.1"},
        {"lib": "usr/lib", "x": "lib/libx.so.1"},
        {"lib": "/usr/lib", "usr__x": "../lib/libx.so.1"},
        {"mtab": "/proc/mounts"},
        {"root": "/"},
        {"x": "/cvmfs/some.repo.org/file"},
    ],
)
def test_good_links(links):
    assert check_links(tree(**links), where="t", strict=True).findings == ()


@pytest.mark.parametrize(
    ("links", "check"),
    [
        ({"x": "nowhere"}, "broken-link"),
        ({"x": "/usr/nowhere/y"}, "broken-link"),
        ({"x": "y", "y": "x"}, "broken-link"),
        ({"x": "../etc/passwd"}, "escaping-link"),
        ({"usr__x": "../../home/me"}, "escaping-link"),
    ],
)
def test_bad_links(links, check):
    report = check_links(tree(**links), where="t", strict=True)
    assert {finding.check for finding in report.errors} == {check}


def test_links_of_an_image_are_only_noted():
    report = check_links(tree(x="nowhere"), where="images/x", strict=False)
    assert [(f.severity, f.where, f.message) for f in report.findings] == [
        (Severity.NOTE, "images/x:/x", "leads nowhere: 'nowhere'")
    ]
