from datetime import UTC, datetime, timedelta

import pytest

from publisher.errors import FormatError, UsageError
from publisher.names import Fqrn
from publisher.propagation.judge import Quorum, judge
from publisher.propagation.metrics import exposition
from publisher.propagation.observe import Observation, told_by_site
from publisher.propagation.places import Place, PlaceKind
from publisher.propagation.wait import Patience, wait_for

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
FQRN = Fqrn("test.afpub.example")
ALL = Quorum(text="all")


def seen(kind, name, revision=0, **more):
    place = Place(kind=kind, name=name, location=f"/srv/{name}")
    return Observation(place=place, revision=revision, **({"root_hash": f"{revision:040x}"} | more))


def zero(revision=5, **more):
    return seen(PlaceKind.STRATUM0, "zero", revision, **more)


def one(name, revision=5, **more):
    return seen(PlaceKind.STRATUM1, name, revision, **more)


def findings(report):
    return [(row.severity.value, row.check, row.where, row.message) for row in report.findings]


def test_everywhere():
    now = judge([zero(), one("a"), one("b")], release="", quorum=ALL)
    assert now.reached
    assert now.what == "revision 5"
    assert now.report(NOW).findings == ()


def test_one_is_behind():
    now = judge([zero(), one("a"), one("b", 4)], release="", quorum=ALL)
    assert not now.reached
    assert [row.place.name for row in now.missing] == ["b"]
    message = "1 of 2 places have it, 2 are needed; missing: b"
    assert findings(now.report(NOW)) == [("warning", "quorum", "revision 5", message)]
    assert findings(now.report(NOW, final=True)) == [("error", "quorum", "revision 5", message)]


def test_a_release_counts_not_the_revision():
    rows = [zero(9, releases=("1", "2")), one("a", 8, releases=("1", "2")), one("b", 7, releases=("1",))]
    assert judge(rows, release="1", quorum=ALL).reached
    assert [row.place.name for row in judge(rows, release="2", quorum=ALL).missing] == ["b"]


def test_the_mount_of_this_machine_is_shown_but_not_counted():
    now = judge([zero(), one("a"), seen(PlaceKind.MOUNT, "this machine", 1)], release="", quorum=ALL)
    assert now.reached
    assert [row.place.name for row in now.counted] == ["a"]


def test_what_does_not_answer_does_not_have_it():
    now = judge([zero(), one("a", 5, trouble="cannot read http://a: refused")], release="", quorum=ALL)
    assert not now.reached
    assert findings(now.report(NOW))[0] == ("warning", "unreachable", "a", "cannot read http://a: refused")


@pytest.mark.parametrize(
    ("text", "places", "needed"), [("all", 3, 3), ("majority", 3, 2), ("majority", 4, 3), ("1", 3, 1), ("9", 3, 3)]
)
def test_quorum(text, places, needed):
    assert Quorum(text=text).needed(places) == needed


@pytest.mark.parametrize("text", ["", "0", "-1", "most"])
def test_no_quorum(text):
    with pytest.raises(UsageError, match="is no quorum"):
        Quorum(text=text)


def test_a_copy_that_is_ahead_or_different_is_an_error():
    other = one("b", 5, root_hash="f" * 40)
    report = judge([zero(), one("a", 6), other], release="", quorum=ALL).report(NOW)
    assert [(row.check, row.where) for row in report.errors] == [("ahead", "a"), ("different", "b")]


@pytest.mark.parametrize(("days", "severity"), [(8, None), (6, "warning"), (-1, "error")])
def test_whitelist(days, severity):
    expires = int((NOW + timedelta(days=days)).timestamp())
    report = judge([zero(whitelist_expires_s=expires), one("a")], release="", quorum=ALL).report(NOW)
    assert [row.severity for row in report.findings if row.check == "whitelist"] == ([severity] if severity else [])


def test_waiting_ends_when_enough_have_it():
    rounds = iter([4, 4, 5])
    told = []
    end = wait_for(
        lambda: judge([zero(), one("a", next(rounds))], release="", quorum=ALL),
        Patience(seconds=60, first_s=0.001),
        on_round=lambda now, _: told.append(now.missing[0].revision),
    )
    assert end.reached
    assert told == [4, 4]


def test_waiting_ends_when_the_time_is_up():
    look = judge([zero(), one("a", 4)], release="", quorum=ALL)
    assert not wait_for(lambda: look, Patience(seconds=0.01, first_s=0.02), on_round=lambda *_: None).reached


def test_metrics():
    text = exposition(
        judge([zero(ttl_s=240, releases=("1",)), one("a", 4), one("b", 9, trouble="x")], release="", quorum=ALL),
        fqrn=FQRN,
    )
    lines = text.splitlines()
    where = 'fqrn="test.afpub.example",kind="stratum 1",place="a"'
    assert f"afpub_revision{{{where}}} 4.0" in lines
    assert f"afpub_up{{{where}}} 1.0" in lines
    assert f'afpub_release{{{where},release="1"}} 0.0' in lines
    assert 'afpub_up{fqrn="test.afpub.example",kind="stratum 1",place="b"} 0.0' in lines
    assert not any('place="b"' in line and line.startswith("afpub_revision") for line in lines)
    assert 'afpub_ttl_seconds{fqrn="test.afpub.example",kind="stratum 0",place="zero"} 240.0' in lines


NAMED = b'{"fqrn": "test.afpub.example"'


@pytest.mark.parametrize("data", [b"", b"[]", NAMED + b"}", NAMED + b', "places": [1]}'])
def test_a_site_that_tells_nonsense(data):
    place = Place(kind=PlaceKind.SITE, name="BNL", location="http://bnl.example/status.json")
    with pytest.raises(FormatError, match="is not what 'afpub status --here --json' writes"):
        told_by_site(data, place, fqrn=FQRN)
