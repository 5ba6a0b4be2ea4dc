"""Which commands there are."""

from __future__ import annotations

import pytest
import typer

from publisher.cli.main import COMMANDS, program

ALL = [name for names in COMMANDS.values() for name in names]


def names(app):
    return list(typer.main.get_command(app).commands)


def test_every_command_is_named_where_it_is():
    assert sorted(names(program())) == sorted(ALL)
    for words in COMMANDS.values():
        for word in words:
            assert set(names(program([word, "--help"]))) == set(words), word


@pytest.mark.parametrize("words", [(), ("--help",), ("relase",), ("-h", "init")])
def test_without_a_known_command_all_are_there(words):
    assert sorted(names(program(words))) == sorted(ALL)
