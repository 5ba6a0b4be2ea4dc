from __future__ import annotations

import pytest

from publisher.errors import NameInvalidError
from publisher.patterns import PathPattern, matcher


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.png", ["/a.png", "/x/y/a.png", "/.png"], ["/a.PNG", "/a.png/b", "/a.png2"]),
        ("f?o", ["/foo", "/a/f.o"], ["/fo", "/f/o"]),
        ("share/doc", ["/share/doc", "/usr/share/doc"], ["/usr/share/doc/x", "/usr/myshare/doc", "/doc"]),
        ("lib/python*/site-packages", ["/usr/lib/python3.11/site-packages"], ["/usr/lib/python3/x/site-packages"]),
        ("/data/*", ["/data/x"], ["/a/data/x", "/data", "/data/x/y"]),
        ("/data/**/raw", ["/data/raw", "/data/a/b/raw"], ["/data/raw/x", "/raw"]),
        ("/data/**", ["/data/a", "/data/a/b"], ["/other"]),
        ("[a-c]x", ["/ax", "/q/cx"], ["/dx", "/[a-c]x"]),
        ("[!a]x", ["/bx"], ["/ax", "/x"]),
        ("a.b+(c)", ["/a.b+(c)"], ["/aab+(c)", "/a.bb(c)"]),
        ("*", ["/a", "/b/\udcff\n"], []),
    ],
)
def test_what_a_pattern_is_about(pattern, yes, no):
    matches = matcher([PathPattern(pattern)])
    assert [path for path in yes if not matches(path)] == []
    assert [path for path in no if matches(path)] == []


def test_any_of_several_will_do():
    matches = matcher([PathPattern("*.zip"), PathPattern("/raw/**")])
    assert [matches(path) for path in ("/a.zip", "/raw/x", "/a.txt")] == [True, True, False]
    assert not matcher([])("/a")


@pytest.mark.parametrize("text", ["", "/", "a//b", "a/", "../a", "a/./b", "a**", "**", "/**/a**b", "[a", "a\0"])
def test_what_cannot_match_is_refused(text):
    with pytest.raises(NameInvalidError, match="is no pattern for paths"):
        PathPattern(text)
