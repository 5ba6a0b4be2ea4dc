import pytest

from publisher.errors import ProjectError
from publisher.names import ImageName
from publisher.project.toml import Table, nearest, read_toml


def table(**data):
    return Table(data, file="x.toml")


def test_unknown_keys_are_errors_with_the_nearest_right_one():
    row = table(display_nam="x")
    row.text("display_name", "")
    with pytest.raises(ProjectError) as caught:
        row.done()
    assert caught.value.message == "x.toml: unknown key 'display_nam'"
    assert caught.value.hint == "did you mean 'display_name'?"


def test_a_word_that_is_near_nothing_gets_the_whole_list():
    assert nearest("zzz", ("alpha", "beta")) == "known here: alpha, beta"


def test_the_message_names_the_table():
    inner = table(build={"a": {"b": 1}}).table("build").table("a")
    with pytest.raises(ProjectError, match=r"x.toml: \[build.a\]: 'b' must be text"):
        inner.text("b")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda row: row.text("missing"), "x.toml: the key 'missing' is missing"),
        (lambda row: row.text("number"), "x.toml: 'number' must be text"),
        (lambda row: row.integer("flag"), "x.toml: 'flag' must be a whole number"),
        (lambda row: row.flag("number", default=True), "x.toml: 'number' must be true or false"),
        (lambda row: row.texts("numbers"), "x.toml: 'numbers' must be a list of texts"),
        (lambda row: row.tables("numbers"), "x.toml: 'numbers' must be tables, written [[numbers]]"),
        (lambda row: row.choice("word", ("auto",)), "x.toml: 'word' is 'Auto', which is none of auto"),
        (lambda row: row.named("word", ImageName), "x.toml: 'word': 'Auto' is no image name"),
        (lambda row: row.pairs("inner"), "x.toml: [inner]: 'n' must be text"),
    ],
)
def test_wrong_types(ask, message):
    row = table(number=1, flag=True, numbers=[1], word="Auto", inner={"n": 1})
    with pytest.raises(ProjectError) as caught:
        ask(row)
    assert caught.value.message == message


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ProjectError, match="does not exist"):
        read_toml(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ProjectError, match=r"bad.toml is not TOML"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(ProjectError, match=r"latin.toml cannot be read"):
        read_toml(tmp_path / "latin.toml")
