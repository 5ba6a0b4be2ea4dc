from __future__ import annotations

import pytest

from publisher.errors import RecipeError
from publisher.images.templating import argument_lines, fill


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a {{ X }}\n{{Y}} {{ X }}", {"X": 1, "Y": 2}),
        ("# a comment {{ X }}", {}),
        ("#!{{ X }}", {"X": 1}),
        ("echo '# no' {{ X }}\n{{ Y }}", {"Y": 2}),
        ("{{ X }} # {{ Y }}", {"X": 1}),
        ("{{ .Field }} {{ a b }} { { X } }", {}),
    ],
)
def test_only_what_apptainer_sees_is_an_argument(text, found):
    assert argument_lines(text) == found


def test_values_may_name_other_arguments():
    assert fill("{{ URL }}/x", {"URL": "http://{{ HOST }}/{{ GONE }}", "HOST": "h"}) == "http://h/{{ GONE }}/x"


def test_an_argument_without_value_is_refused():
    with pytest.raises(RecipeError) as caught:
        fill("a {{ NAME }}", {})
    assert caught.value.message == "the argument 'NAME' has no value"
    assert caught.value.hint == "give it a default in %arguments, or a build argument"
