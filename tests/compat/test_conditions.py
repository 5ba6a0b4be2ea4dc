"""Servers that cannot keep two publishers apart: a real S3 server behind proxies that change what it is asked."""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import file, graft
from front import Front, front_of
from s3_server import OPEN

from publisher import tools
from publisher.backends.embedded import examine_bucket
from publisher.cvmfs.adjust import change_settings
from publisher.cvmfs.bucket import Bucket
from publisher.cvmfs.check import check
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.gc import collect_garbage
from publisher.cvmfs.location import storage_of
from publisher.cvmfs.publish import publish
from publisher.cvmfs.s3.conditions import HINT, PROBES
from publisher.cvmfs.settings import with_values
from publisher.errors import RepositoryError

AFPUB = Path(sys.executable).with_name("afpub")
FQRN = repository.FQRN
ONE = with_values(repository.SMALL, ["one_publisher=true"])


class Less(Front):
    """Hands requests on without some of their headers, or refuses those that have them."""

    def stands_in(self):
        self.server.seen.append((self.command, self.path))
        refused = self.server.refuses and any(name in self.headers for name in self.server.dropped)
        if refused:
            self.answer(501, {}, b"<Error><Code>NotImplemented</Code></Error>")
        return refused

    def passes(self, name):
        return name.title() not in self.server.dropped


def less(endpoint, dropped, *, refuses=False):
    """An address at which the server answers, but knows less."""
    return front_of(endpoint, Less, dropped=dropped, refuses=refuses, seen=[])


@pytest.fixture
def nobody(s3, monkeypatch):
    """The server, for somebody without keys: what was signed could not be changed on the way."""
    for name in tuple(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    return s3


def now():
    return dt.datetime.now(tz=dt.UTC)


def create(location, spool, settings=repository.SMALL):
    storage = storage_of(location, spool=spool)
    create_repository(storage, FQRN, keys_folder=repository.shared_keys(), settings=settings, now=now())
    return storage


def put(storage, content):
    return publish(storage, keys_folder=repository.shared_keys(), now=now(), grafts=(graft("/a", file("f", content)),))


def names_in(endpoint, prefix, *folders):
    """What is in these folders, which leaves out the S3 server's own."""
    storage = storage_of(Bucket(name=OPEN, prefix=prefix, endpoint=endpoint).location, spool=Path("/nowhere"))
    return {name for folder in folders for name, _ in storage._server.listing(folder)}


FAULTS = [
    pytest.param(
        {"If-None-Match"},
        False,
        "replaced an object that was to be written only if there was none (If-None-Match)",
        id="creates-always",
    ),
    pytest.param({"If-Match"}, False, "replaced an object that had changed meanwhile (If-Match)", id="replaces-always"),
    pytest.param(
        {"If-Match", "If-None-Match"},
        False,
        "replaced an object that was to be written only if there was none (If-None-Match)",
        id="knows-none",
    ),
    pytest.param({"If-Match", "If-None-Match"}, True, "does not know conditional writes", id="refuses"),
]


@pytest.mark.parametrize(("dropped", "refuses", "fault"), FAULTS)
def test_such_a_server_gets_no_repository(nobody, tmp_path, dropped, refuses, fault):
    with less(nobody.endpoint, dropped, refuses=refuses) as (_, endpoint):
        location = Bucket(name=OPEN, prefix=tmp_path.name, endpoint=endpoint).location
        with pytest.raises(RepositoryError) as caught:
            create(location, tmp_path / "spool")
    assert caught.value.message == (
        f"s3://open/{tmp_path.name}: two publishers at once could undo what the other one did, since {endpoint} {fault}"
    )
    assert caught.value.hint == HINT
    assert names_in(nobody.endpoint, tmp_path.name, ".afpub", "data") == set(), "nothing was left"


def test_the_first_publish_from_a_machine_finds_out(nobody, tmp_path):
    """The repository was made elsewhere, or the server was replaced by another one."""
    prefix = tmp_path.name
    create(Bucket(name=OPEN, prefix=prefix, endpoint=nobody.endpoint).location, tmp_path / "a")
    with less(nobody.endpoint, {"If-Match"}) as (_, endpoint):
        storage = storage_of(Bucket(name=OPEN, prefix=prefix, endpoint=endpoint).location, spool=tmp_path / "b")
        for act in (lambda: put(storage, b"1"), lambda: collect_garbage(storage, keys_folder=Path("x"), now=now())):
            with pytest.raises(RepositoryError, match=r"two publishers at once could undo .* \(If-Match\)"):
                act()
        change_settings(storage, ["one_publisher=true"], algorithm=Algorithm.SHA1)
        assert put(storage, b"1").revision == 2
        assert put(storage, b"2").revision == 3
    assert names_in(nobody.endpoint, prefix, ".afpub") == {".afpub/settings.json"}


@pytest.mark.parametrize("refuses", [False, True])
def test_one_publisher_needs_no_conditions(nobody, tmp_path, refuses):
    with less(nobody.endpoint, {"If-Match", "If-None-Match"}, refuses=refuses) as (front, endpoint):
        storage = create(Bucket(name=OPEN, prefix=tmp_path.name, endpoint=endpoint).location, tmp_path / "spool", ONE)
        assert [put(storage, text).revision for text in (b"1", b"2", b"2")] == [2, 3, 3]
        done = collect_garbage(storage, keys_folder=repository.shared_keys(), now=now(), grace=dt.timedelta(0))
        assert done.objects_removed > 0
        assert not [path for _, path in front.seen if PROBES in path]


def test_a_server_is_tried_once(nobody, tmp_path):
    with less(nobody.endpoint, set()) as (front, endpoint):
        storage = create(Bucket(name=OPEN, prefix=tmp_path.name, endpoint=endpoint).location, tmp_path / "spool")
        tried = [method for method, path in front.seen if PROBES in path]
        assert tried == ["PUT"] * 4
        put(storage, b"1")
        assert len([path for _, path in front.seen if PROBES in path]) == len(tried)


def test_what_a_killed_trial_left_goes_with_the_garbage(nobody, tmp_path):
    storage = create(Bucket(name=OPEN, prefix=tmp_path.name, endpoint=nobody.endpoint).location, tmp_path / "spool")
    assert check(storage).findings == ()
    storage.put_state(f"{PROBES}0123", b"1")
    collect_garbage(storage, keys_folder=repository.shared_keys(), now=now())
    assert names_in(nobody.endpoint, tmp_path.name, ".afpub") == {".afpub/settings.json"}


def test_the_doctor_tries_the_bucket(nobody, tmp_path):
    def said(endpoint):
        (found,) = examine_bucket(Bucket(name=OPEN, prefix=tmp_path.name, endpoint=endpoint).location).findings
        return f"{found.severity}", found.message

    good = (f"{nobody.endpoint} takes objects, and keeps two publishers apart",)
    assert said(nobody.endpoint) == ("note", *good)
    with less(nobody.endpoint, {"If-Match"}) as (_, endpoint):
        severity, message = said(endpoint)
        assert severity == "error"
        assert "two publishers at once could undo" in message
        create(Bucket(name=OPEN, prefix=tmp_path.name, endpoint=endpoint).location, tmp_path / "spool", ONE)
        assert said(endpoint)[0] == "warning"
    (found,) = examine_bucket(f"s3://{nobody.bucket}/x?endpoint={nobody.endpoint}").findings
    assert (
        found.message
        == f"cannot write {found.message.split()[2]} to s3://cvmfs/x: {nobody.endpoint} answered 403 Forbidden"
    )
    assert found.hint.startswith("set AWS_ACCESS_KEY_ID")


def test_the_command_says_so(nobody, tmp_path):
    project = tmp_path / "project"
    tools.run([AFPUB, "init", project], env={**os.environ, "HOME": f"{tmp_path}"})
    text = (project / "afpub.toml").read_text()
    text = text.replace('repository = "repository"', f'repository = "s3://{OPEN}/{tmp_path.name}"')
    (project / "afpub.toml").write_text(f'{text}\n[s3]\nendpoint = "{nobody.endpoint}"\n')
    # whatever else this machine lacks
    done = tools.run([AFPUB, "doctor", "--json"], cwd=project, env={**os.environ, "HOME": f"{tmp_path}"}, check=False)
    assert f"{nobody.endpoint} takes objects, and keeps two publishers apart" in f"{done.stdout}{done.tail}"
