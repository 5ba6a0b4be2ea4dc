from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import RecipeError
from publisher.images.parser import parse_definition, read_definition

PYTHON_IN_POST = """\
# made by hand
Bootstrap: debootstrap
OSVersion: bookworm   # the release
MirrorURL: {{ MIRROR }}
Include: ca-certificates, \\
    python3

%arguments
    MIRROR=none
    # a comment
    NAME = value with = sign

%files
    a.txt /opt/a.txt
    "with blank.txt" /opt/b.txt

%files from other
    /usr/bin/tool

%post -c /bin/bash
    cat >/tmp/x.py <<PY
if True:
    print("indented")  # {{ NOT_AN_ARGUMENT }}
PY
\tpython3 /tmp/x.py {{MIRROR}}

%apprun viewer
    exec view "$@"

%labels
    Author Jane Doe
    empty

%runscript
    exec python3 "$@"
"""


def parse(text):
    return parse_definition(text, where="x.def")


def test_every_part_of_a_definition_is_kept():
    definition = parse(PYTHON_IN_POST)
    stage = definition.final
    assert definition.text == PYTHON_IN_POST
    assert definition.opening == "# made by hand\n"
    assert [(h.keyword, h.value, h.line) for h in stage.headers] == [
        ("bootstrap", "debootstrap", 2),
        ("osversion", "bookworm", 3),
        ("mirrorurl", "{{ MIRROR }}", 4),
        ("include", "ca-certificates, python3", 5),
    ]
    assert [(s.name, s.arguments, s.line) for s in stage.sections] == [
        ("arguments", "", 8),
        ("files", "", 13),
        ("files", "from other", 17),
        ("post", "-c /bin/bash", 20),
        ("apprun", "viewer", 27),
        ("labels", "", 30),
        ("runscript", "", 34),
    ]
    assert stage.defaults() == {"MIRROR": "none", "NAME": "value with = sign"}
    assert stage.labels() == {"Author": "Jane Doe", "empty": ""}
    assert '    print("indented")' in stage.script("post")


def test_files_with_blanks_and_from_other_stages():
    copies = parse(PYTHON_IN_POST).final.copies()
    assert [(c.source, c.target, c.line, c.stage) for c in copies] == [
        ("a.txt", "/opt/a.txt", 14, ""),
        ("with blank.txt", "/opt/b.txt", 15, ""),
        ("/usr/bin/tool", "", 18, "other"),
    ]


def test_arguments_are_those_that_apptainer_fills_in():
    definition = parse(PYTHON_IN_POST)
    assert definition.arguments() == {"MIRROR"}
    assert definition.final.arguments() == {"MIRROR": 4}
    assert definition.required() == frozenset()
    filled = definition.filled({"MIRROR": "http://m"})
    assert "MirrorURL: http://m\n" in filled
    assert "x.py http://m\n" in filled
    assert "# {{ NOT_AN_ARGUMENT }}" in filled


def test_stages_begin_at_bootstrap_in_any_spelling():
    text = "Bootstrap: scratch\nStage: one\n%post\n    true\nbootstrap: localimage\nFrom: /x\n%test\n    true\n"
    definition = parse(text)
    assert [stage.header("bootstrap") for stage in definition.stages] == ["scratch", "localimage"]
    assert definition.stages[0].header("stage") == "one"
    assert definition.final.header("from") == "/x"
    assert definition.final.line == 5
    assert definition.text == text


def test_sections_of_one_name_are_joined():
    definition = parse("Bootstrap: scratch\n%post\n    a\n%test\n    t\n%post\n    b\n")
    assert definition.final.script("post") == "    a\n    b\n"


def test_carriage_returns_and_a_missing_last_newline_are_kept():
    text = "Bootstrap: scratch\r\n\r\n%post\r\n    true"
    assert parse(text).text == text


LINES = st.sampled_from(
    [
        "",
        "# comment",
        "    indented # {{ X }}",
        "\ttabbed {{ Y }}",
        "%post",
        "%post -c /bin/sh",
        "%files from one",
        "%appinstall app",
        "%labels",
        "key value  ",
        "    cat <<'EOF'",
        "\u00e9\u2028\u00fc\x0b",
        "Bootstrap: scratch\n%test",
        "BOOTSTRAP:docker\nFrom: x \\\n  y\n%setup",
    ]
)


@given(st.lists(LINES), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_parsing_and_writing_is_the_identity(lines, newline, last):
    text = newline.join(["Bootstrap: scratch", "%help", *lines]) + (newline if last else "")
    assert parse(text).text == text


@given(st.text())
def test_any_script_is_kept(text):
    # a line that begins with a percent sign or with "Bootstrap:" is no part of a script
    script = "".join(f"    :{line}\n" for line in text.split("\n"))
    source = f"Bootstrap: scratch\n%post\n{script}"
    definition = parse(source)
    assert definition.text == source
    assert definition.final.script("post") == script


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "Bootstrap: scratch\n%psot\n    true\n",
            "x.def:2: unknown section '%psot'",
            "did you mean '%post'?",
        ),
        (
            "Bootstrap: scratch\nMirorURL: x\n",
            "x.def:2: unknown header keyword 'MirorURL'",
            "did you mean 'MirrorURL'?",
        ),
        (
            "Bootstrap: debotstrap\n",
            "x.def:1: unknown bootstrap agent 'debotstrap'",
            "did you mean 'debootstrap'?",
        ),
        (
            "Bootstrap: scratch\n%post\n    cat <<X\n    %matplotlib inline\nX\n",
            "x.def:4: '%matplotlib inline' is indented, but begins with '%' and so starts a section",
            "move it to the beginning of the line; inside a script put something before the '%'",
        ),
        (
            "Bootstrap: scratch\nwhatever\n",
            "x.def:2: 'whatever' is neither a header ('Keyword: value') nor a section",
            "sections begin with '%', comments with '#'",
        ),
        (
            "# hello\nFrom: x\nBootstrap: docker\n",
            "x.def:2: 'From: x' stands before the 'Bootstrap:' header",
            "'Bootstrap:' must be the first keyword, at the beginning of its line",
        ),
        (
            "%post\n    true\n",
            "x.def: there is no 'Bootstrap:' header",
            "begin with what the image is made from, such as 'Bootstrap: localimage'",
        ),
        ("Bootstrap: scratch\n%apprun\n", "x.def:2: '%apprun' names no app", "write '%apprun NAME'"),
    ],
)
def test_what_apptainer_would_refuse_is_refused_with_its_line(text, message, hint):
    with pytest.raises(RecipeError) as caught:
        parse(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_numbered_headers_are_known():
    assert parse("Bootstrap: yum\nOtherURL1: http://x\n").final.header("otherurl1") == "http://x"


def test_reading_says_what_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError) as caught:
        read_definition(tmp_path / "no.def")
    assert caught.value.message == f"{tmp_path}/no.def cannot be read: No such file or directory"
    (tmp_path / "latin.def").write_bytes(b"Bootstrap: scratch\n# \xe9\n")
    with pytest.raises(RecipeError) as caught:
        read_definition(tmp_path / "latin.def")
    assert caught.value.message == f"{tmp_path}/latin.def is not text in UTF-8"
