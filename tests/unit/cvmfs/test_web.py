"""What a web server answers, without sockets: conditions, ranges, cache headers, the access log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.cvmfs.access_log import access_log, combined
from publisher.cvmfs.serve import Request
from publisher.cvmfs.web import FileFacts, answer, is_public
from publisher.errors import DiskError

HEX = "0123456789abcdef0123456789abcdef012345"
OBJECT = FileFacts(name=f"data/ab/{HEX}C", size_bytes=1000, mtime_ns=1_600_000_000_500_000_000, inode=7)
MANIFEST = FileFacts(name=".cvmfspublished", size_bytes=500, mtime_ns=1_600_000_000_500_000_000, inode=8)


def ask(facts, **headers):
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    made = answer(facts, message)
    return made, dict(made.headers)


@pytest.mark.parametrize(
    "name",
    [
        ".cvmfspublished",
        ".cvmfswhitelist",
        ".cvmfsreflog",
        ".cvmfs_master_replica",
        ".cvmfs_last_snapshot",
        ".cvmfs_status.json",
        f"data/00/{HEX}",
        f"data/ff/{HEX}P",
        f"data/ff/{HEX}-rmd160C",
        f"data/ff/{HEX}-shake128",
    ],
)
def test_files_of_a_repository_are_public(name):
    assert is_public(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "data",
        "data/",
        "data/ab/",
        f"data/AB/{HEX}",
        f"data/abc/{HEX}",
        f"data/ab/{HEX}Z",
        f"data/ab/{HEX}\n",
        f"data/ab//{HEX}",
        f"data/ab/../ab/{HEX}",
        f"data/%61b/{HEX}",
        "data/txn/afpub-1-0",
        ".afpub/settings.json",
        ".cvmfspublished.new-12",
        ".cvmfspublished/",
        ".htaccess",
        "keys/test.key",
    ],
)
def test_nothing_else_is(name):
    assert not is_public(name)


def test_objects_are_kept_for_a_year_and_state_for_61_seconds():
    made, headers = ask(OBJECT)
    assert (made.status, made.start, made.size_bytes) == (200, 0, 1000)
    assert headers == {
        "Content-Type": "application/octet-stream",
        "Content-Length": "1000",
        "Accept-Ranges": "bytes",
        "ETag": f'"ab{HEX}C"',
        "Last-Modified": "Sun, 13 Sep 2020 12:26:40 GMT",
        "Cache-Control": "public, max-age=31536000, immutable",
    }
    _, headers = ask(MANIFEST)
    assert (headers["Cache-Control"], headers["Content-Type"]) == ("max-age=61", "application/x-cvmfs")


def test_a_client_that_has_it_gets_nothing():
    tag = dict(answer(MANIFEST, Message()).headers)["ETag"]
    for value in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        made, headers = ask(MANIFEST, If_None_Match=value)
        assert (made.status, made.size_bytes) == (304, 0)
        assert headers.keys() == {"ETag", "Last-Modified", "Cache-Control"}
    assert ask(MANIFEST, If_None_Match='"other"')[0].status == 200
    newer = FileFacts(name=MANIFEST.name, size_bytes=500, mtime_ns=MANIFEST.mtime_ns, inode=9)
    assert ask(newer, If_None_Match=tag)[0].status == 200, "replaced within the same tick of the clock"


def test_dates_count_only_where_no_tag_is_given():
    same, before = "Sun, 13 Sep 2020 12:26:40 GMT", "Sun, 13 Sep 2020 12:26:39 GMT"
    assert ask(MANIFEST, If_Modified_Since=same)[0].status == 304
    assert ask(MANIFEST, If_Modified_Since=before)[0].status == 200
    assert ask(MANIFEST, If_Modified_Since="no date")[0].status == 200
    assert ask(MANIFEST, If_Modified_Since=same, If_None_Match='"other"')[0].status == 200


@pytest.mark.parametrize(
    ("wanted", "start", "size", "said"),
    [
        ("bytes=0-0", 0, 1, "bytes 0-0/1000"),
        ("bytes=10-19", 10, 10, "bytes 10-19/1000"),
        ("bytes=990-", 990, 10, "bytes 990-999/1000"),
        ("bytes=990-5000", 990, 10, "bytes 990-999/1000"),
        ("bytes=-1", 999, 1, "bytes 999-999/1000"),
    ],
)
def test_a_part(wanted, start, size, said):
    made, headers = ask(OBJECT, Range=wanted)
    assert (made.status, made.start, made.size_bytes) == (206, start, size)
    assert (headers["Content-Range"], headers["Content-Length"]) == (said, f"{size}")


@pytest.mark.parametrize(
    "wanted",
    ["bytes=0-", "bytes=-1000", "bytes=-5000", "bytes=5-4", "bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=x-"],
)
def test_what_is_no_single_part_is_the_whole(wanted):
    made, _ = ask(OBJECT, Range=wanted)
    assert (made.status, made.start, made.size_bytes) == (200, 0, 1000)


@pytest.mark.parametrize("wanted", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_a_part_behind_the_end(wanted):
    made, headers = ask(OBJECT, Range=wanted)
    assert (made.status, made.size_bytes) == (416, 0)
    assert headers == {"Content-Range": "bytes */1000", "Content-Length": "0"}


def test_a_part_of_other_bytes_is_not_continued():
    own = dict(answer(OBJECT, Message()).headers)
    for condition, status in (
        (own["ETag"], 206),
        (own["Last-Modified"], 206),
        ('"other"', 200),
        (f"W/{own['ETag']}", 200),
        ("Sun, 13 Sep 2020 12:26:41 GMT", 200),
    ):
        assert ask(OBJECT, Range="bytes=5-", If_Range=condition)[0].status == status


@given(st.text(), st.text(), st.text())
def test_no_header_is_too_odd(wanted, tags, since):
    made, _ = ask(OBJECT, Range=wanted, If_None_Match=tags, If_Modified_Since=since)
    assert made.status in {200, 206, 304, 416}
    assert 0 <= made.start <= made.start + made.size_bytes <= OBJECT.size_bytes


def test_a_line_of_the_access_log():
    request = Request(
        client="192.0.2.1",
        line='GET /a"b\\c\r\n\x1b[0m HTTP/1.1',
        path="/",
        status=200,
        sent_bytes=12,
        referer="",
        agent="cvmfs é",
    )
    line = combined(request, datetime(2026, 11, 25, 3, 4, 5, tzinfo=UTC))
    assert line == (
        "192.0.2.1 - - [25/Nov/2026:03:04:05 +0000] "
        '"GET /a\\"b\\\\c\\x0d\\x0a\\x1b[0m HTTP/1.1" 200 12 "-" "cvmfs \\xe9"'
    )


def test_the_access_log_follows_a_rotation(tmp_path):
    request = Request(client="::1", line="GET / HTTP/1.1", path="/", status=404, sent_bytes=0, referer="", agent="")
    with access_log(f"{tmp_path}/log") as write:
        write(request)
        (tmp_path / "log").rename(tmp_path / "log.1")
        write(request)
    for name in ("log", "log.1"):
        assert (tmp_path / name).read_text().endswith('"GET / HTTP/1.1" 404 - "-" "-"\n')
    assert not logging.getLogger("afpub").handlers
    with pytest.raises(DiskError, match="cannot write"), access_log(f"{tmp_path}/none/log"):
        pass
