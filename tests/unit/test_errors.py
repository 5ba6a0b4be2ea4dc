import ast
import re
from pathlib import Path

import pytest

from publisher import errors
from publisher.errors import AfpubError, ProjectError, StaleBaseError, ToolError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AfpubError)]
ROOT = Path(errors.__file__).parents[1]


def test_an_error_says_what_and_what_to_do():
    error = ToolError("apptainer failed", hint="install it", detail="last line")
    assert str(error) == error.message == "apptainer failed"
    assert (error.hint, error.detail, error.exit_code) == ("install it", "last line", 5)


def test_hint_and_detail_may_be_left_out():
    error = AfpubError("no")
    assert (error.hint, error.detail) == ("", "")


@pytest.mark.parametrize("kind", CLASSES)
def test_names_and_documentation_of_errors(kind):
    assert kind.__name__.endswith("Error")
    assert kind.__doc__
    assert 0 < kind.exit_code < 126, "the shell keeps 126 and above for itself"


def test_a_family_shares_its_exit_code():
    codes = {}
    for kind in CLASSES:
        family = kind
        while AfpubError not in (family, *family.__bases__):
            family = family.__bases__[0]
        assert codes.setdefault(kind.exit_code, family) is family
    assert errors.RecipeError.exit_code == ProjectError.exit_code
    assert StaleBaseError.exit_code == errors.BusyError.exit_code


def test_every_exit_code_is_documented():
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert {kind.exit_code for kind in CLASSES} | {0} <= documented
    for kind in CLASSES:
        assert f"`{kind.__name__}`" in text


def test_no_error_class_outside_the_tree():
    for file in (ROOT / "publisher").rglob("*.py"):
        if file.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = {ast.unparse(base) for base in node.bases}
                assert not bases & {"Exception", "ValueError", "RuntimeError", "OSError"}, node.name
