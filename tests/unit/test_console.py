"""What is written is what stands there: fingerprints and paths are no pictures and no colors."""

from __future__ import annotations

from publisher.cli.console import Screen
from publisher.errors import AfpubError
from publisher.report import collect, warning

ODD = "CA:AB:25:smile:[bold]x[/]"


def test_text_stays_as_it_is(capsys):
    screen = Screen(as_json=False, quiet=False, verbose=False)
    screen.result({}, lines=(ODD,))
    screen.table(ODD, (ODD,), [(ODD,)])
    screen.say(ODD)
    screen.report(collect([warning("check", ODD, ODD, hint=ODD)]))
    screen.failure(AfpubError(ODD, hint=ODD, detail=ODD))
    out, err = capsys.readouterr()
    assert out.count(ODD) >= 2
    assert err.count(ODD) == 7
