"""Publishing into a bucket: killed at any request, and over a network that fails."""

from __future__ import annotations

import datetime as dt
import os
import sys
import threading
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import file, graft
from front import Front, front_of

from publisher import tools
from publisher.cvmfs.bucket import Bucket
from publisher.cvmfs.check import check
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.location import storage_of
from publisher.cvmfs.publish import publish

KILLER = Path(__file__).with_name("bucket_killer.py")
FQRN = repository.FQRN


def tree(files):
    return graft("/a", *(file(f"f{number}", b"%d" % number) for number in range(files)))


def now():
    return dt.datetime.now(tz=dt.UTC)


def make(location, spool, files=20):
    keys = repository.shared_keys()
    storage = storage_of(location, spool=spool)
    create_repository(storage, FQRN, keys_folder=keys, settings=repository.SMALL, now=now())
    return storage, {"keys_folder": keys, "grafts": (tree(files),)}


def findings(url):
    return check(url, public_key=(repository.shared_keys() / f"{FQRN}.pub").read_bytes()).findings


@pytest.mark.parametrize(("number", "files"), [(0, 20), (12, 20), (22, 20), (23, 20), (40, 1100)])
def test_a_publisher_that_is_killed(s3_keys, tmp_path, number, files):
    """At the first object, in the middle, before the reflog, before the manifest; while workers and threads work."""
    prefix = f"killed/{tmp_path.name}"
    storage, words = make(s3_keys.location(prefix), tmp_path / "spool", files)
    before = storage.read_state(".cvmfspublished")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([f"{KILLER.parents[1]}", os.environ.get("PYTHONPATH", "")])}
    argv = [sys.executable, KILLER, s3_keys.location(prefix), tmp_path / "spool", words["keys_folder"]]
    argv += [f"{number}", f"{files}"]
    done = tools.run(argv, env=env, check=False)
    assert done.returncode == -9, done.tail
    assert storage.read_state(".cvmfspublished") == before
    # a reflog that knows more than the manifest is all that a kill can leave
    assert {finding.check for finding in findings(s3_keys.url(prefix))} <= ({"reflog"} if number == 23 else set())
    again = publish(storage, now=now(), **words)
    assert (again.revision, again.changed) == (2, True)
    assert list((tmp_path / "spool/txn").iterdir()) == []
    assert findings(s3_keys.url(prefix)) == ()


class Flaky(Front):
    """The first time that something is written, it is refused or the connection is cut."""

    def stands_in(self):
        with self.server.lock:
            self.server.seen[self.command, self.path] = count = self.server.seen.get((self.command, self.path), 0) + 1
        fails = self.command == "PUT" and count == 1
        if fails and len(self.server.seen) % 2:
            self.close_connection = True
        elif fails:
            self.answer(503, {}, b"")
        return fails


def test_a_network_that_fails_is_tried_again(s3_keys, tmp_path):
    prefix = f"flaky/{tmp_path.name}"
    with front_of(s3_keys.endpoint, Flaky, seen={}, lock=threading.Lock()) as (front, endpoint):
        location = Bucket(name=s3_keys.bucket, prefix=prefix, endpoint=endpoint).location
        storage, words = make(location, tmp_path / "spool")
        assert publish(storage, now=now(), **words).revision == 2
        assert publish(storage, now=now(), **words).changed is False
        tries = [count for (method, _), count in front.seen.items() if method == "PUT"]
    assert len(tries) > 20
    assert min(tries) >= 2, "everything that was written was refused once"
    assert findings(s3_keys.url(prefix)) == ()
