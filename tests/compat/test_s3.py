"""Repositories in a bucket of a real S3 server, read back over plain HTTP and by the real client."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import cvmfs_repository as repository
import obstore
import pytest
from compat import small_project
from compat.client import mounted
from cvmfs_repository import file, graft
from hosting import adapted, ask, documented, free_port, nginx

from publisher import tools
from publisher.cvmfs import commit as committing
from publisher.cvmfs import gc as collecting
from publisher.cvmfs.check import check
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.export import export
from publisher.cvmfs.gc import collect_garbage, preview_garbage
from publisher.cvmfs.location import storage_of
from publisher.cvmfs.publish import publish
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.repair import repair
from publisher.cvmfs.republish import republish
from publisher.cvmfs.rotation import finish_rotation, rotate_key
from publisher.cvmfs.s3 import connection
from publisher.cvmfs.s3 import storage as s3_module
from publisher.cvmfs.signing import resign_whitelist
from publisher.cvmfs.source import WebSource
from publisher.cvmfs.tags import add_tag
from publisher.errors import BusyError, RepositoryError, StaleBaseError, TransactionOpenError
from publisher.names import TagName
from publisher.progress import Silent

AFPUB = Path(sys.executable).with_name("afpub")
FQRN = repository.FQRN
BIG = bytes(range(256)) * 4000


@dataclasses.dataclass(frozen=True)
class BucketRepo:
    """A repository in a bucket, as one machine sees it."""

    location: str
    url: str
    spool: Path
    keys: Path

    def storage(self, machine: str = "a"):
        return storage_of(self.location, spool=self.spool / machine)

    def publish(self, *grafts, machine="a", **more):
        now = dt.datetime.now(tz=dt.UTC)
        return publish(self.storage(machine), keys_folder=self.keys, now=now, grafts=grafts, **more)

    @property
    def public_key(self):
        return (self.keys / f"{FQRN}.pub").read_bytes()

    def names(self):
        return {name for listed in self.storage().folders() for name, _ in listed}

    def check(self):
        """Findings of a check over the S3 protocol, and of one over plain HTTP without keys."""
        return [
            *check(self.storage(), public_key=self.public_key, all_tags=True, jobs=8).findings,
            *check(self.url, public_key=self.public_key, all_tags=True, jobs=8).findings,
        ]


@pytest.fixture
def repo(s3_keys, tmp_path):
    prefix = f"cvmfs/{tmp_path.name}"
    made = BucketRepo(s3_keys.location(prefix), s3_keys.url(prefix), tmp_path, repository.shared_keys())
    now = dt.datetime.now(tz=dt.UTC)
    create_repository(made.storage(), FQRN, keys_folder=made.keys, settings=repository.SMALL, now=now)
    return made


def now():
    return dt.datetime.now(tz=dt.UTC)


def test_what_is_published_is_read_over_plain_http(repo, tmp_path):
    done = repo.publish(graft("/sw", file("big", BIG), file("d/small", b"1")), tag=TagName("one"))
    assert (done.changed, done.revision, done.files) == (True, 2, 2)
    assert repo.check() == []
    with open_repository(repo.url, fqrn=FQRN, public_key=repo.public_key) as reader:
        assert b"".join(reader.read("sw/big")) == BIG
        assert {tag.name for tag in reader.tags()} == {"trunk", "trunk-previous", "one"}
        export(reader, "/sw", tmp_path / "copy")
    assert (tmp_path / "copy/big").read_bytes() == BIG
    assert not repo.publish(graft("/sw", file("big", BIG), file("d/small", b"1"))).changed


def test_caches_are_told_what_changes(repo):
    for name, age in ((".cvmfspublished", 61), (".cvmfswhitelist", 61), (min(repo.names()), 259200)):
        with WebSource(f"{repo.url}").open(name) as answer:
            assert answer.headers["Cache-Control"] == f"max-age={age}"


def test_the_client_mounts_the_bucket(repo, tmp_path, require_tool, require_root):
    require_tool("cvmfs2")
    repo.publish(graft("/sw", file("big", BIG), file("run", b"#!/bin/sh\n", mode=0o755)))
    key = repo.keys / f"{FQRN}.pub"
    work = tmp_path / "client"
    work.mkdir()
    with mounted(FQRN, repo.url, public_key=key, work=work) as folder:
        assert (folder / "sw/big").read_bytes() == BIG
        assert os.access(folder / "sw/run", os.X_OK)


def test_the_life_of_a_repository(repo):
    """Tags, republishing, resigning, rotating, garbage collection, repair: all that a folder has."""
    old = repo.publish(graft("/sw", file("f", b"old" * 1000)))
    storage = repo.storage()
    add_tag(storage, TagName("keep"), keys_folder=repo.keys, now=now())
    repo.publish(graft("/sw", file("f", b"new" * 1000)))
    repo.publish(graft("/sw", file("f", b"newest" * 1000)))
    keys = {"keys_folder": repo.keys, "now": now()}
    assert republish(storage, "keep", **keys).changed
    with open_repository(storage) as reader:
        assert b"".join(reader.read("sw/f")) == b"old" * 1000
    resign_whitelist(storage, **keys)
    would = preview_garbage(storage, now=now(), grace=dt.timedelta(0))
    before = repo.names()
    done = collect_garbage(storage, grace=dt.timedelta(0), **keys)
    assert (done.objects_removed, done.removed_bytes) == (would.objects_removed, would.removed_bytes)
    assert done.objects_removed == len(before) - len(repo.names()) > 0
    assert repo.check() == []
    with open_repository(storage).at("keep") as reader:
        assert reader.root_hash == old.root_hash
    assert not collect_garbage(storage, grace=dt.timedelta(0), **keys).objects_removed


def test_a_key_is_rotated(repo, tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir()
    for path in repo.keys.iterdir():
        (keys / path.name).write_bytes(path.read_bytes())
        (keys / path.name).chmod(0o600)
    own = dataclasses.replace(repo, keys=keys)
    rotate_key(own.storage(), keys_folder=keys, now=now())
    own.publish(graft("/sw", file("f", b"1")))
    assert own.check() == []
    finish_rotation(own.storage(), keys_folder=keys, now=now())
    assert own.check() == []


def test_damage_is_found_and_repaired_from_a_mirror(repo, tmp_path):
    repo.publish(graft("/sw", file("f", b"content" * 1000)))
    storage = repo.storage()
    names = sorted(repo.names())
    mirror = tmp_path / "mirror"
    for name in names:
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_bytes(storage.open(name).read())
    gone = next(name for name in names if name[-1].islower() or name[-1].isdigit())  # the bytes of the file
    bent = next(name for name in names if name.endswith("X"))  # the certificate
    storage.remove_objects([gone])
    flipped = bytearray((mirror / bent).read_bytes())
    flipped[len(flipped) // 2] ^= 1
    obstore.put(storage._server.store, bent, bytes(flipped))
    obstore.put(storage._server.store, "data/00/stray", b"")
    found = {finding.check for finding in check(storage, public_key=repo.public_key).errors}
    assert found & {"object-missing", "catalog-unreadable", "tags", "metainfo", "trust", "reflog"}
    assert "stray-file" in found
    storage.remove_objects(["data/00/stray"])
    with_trust = {"keys_folder": repo.keys, "now": now(), "mirror": storage_of(mirror)}
    report = repair(storage, **with_trust)
    assert {finding.where for finding in report.findings} == {gone, bent}
    assert repo.check() == []


def test_a_repository_is_not_made_twice(repo):
    with pytest.raises(RepositoryError, match=r"there is a repository in s3://cvmfs/cvmfs/\S+ already"):
        create_repository(repo.storage("b"), FQRN, keys_folder=repo.keys, settings=repository.SMALL, now=now())


@contextmanager
def before_commit(monkeypatch, act):
    """Runs something once, when a publisher has stored everything and is about to put the manifest in place."""
    usual = committing._put_in_place
    pending = [act]

    def put(*words):
        if pending:
            pending.pop()()
        return usual(*words)

    with monkeypatch.context() as patched:
        patched.setattr(committing, "_put_in_place", put)
        yield


def test_two_machines_do_not_lose_an_update(repo, monkeypatch):
    """The other one publishes while this one is about to."""

    def other():
        repo.publish(graft("/b", file("f", b"theirs")), machine="b")

    with before_commit(monkeypatch, other), pytest.raises(StaleBaseError, match="somebody else published into s3://"):
        repo.publish(graft("/a", file("f", b"ours")))
    with open_repository(repo.url) as reader:
        assert reader.revision == 2
        assert b"".join(reader.read("b/f")) == b"theirs"
    again = repo.publish(graft("/a", file("f", b"ours")))
    assert again.revision == 3
    with open_repository(repo.url) as reader:
        assert [b"".join(reader.read(path)) for path in ("a/f", "b/f")] == [b"ours", b"theirs"]
    assert repo.check() == []


@pytest.mark.parametrize("name", [".cvmfsreflog", ".cvmfspublished"])
def test_the_last_moment_is_guarded_by_the_server(repo, monkeypatch, name):
    """The other one publishes between the check and the write: only a conditional request notices."""
    usual = s3_module.S3Storage.put_state
    pending = [name]

    def put(self, which, data):
        if which == name and pending and self.spool.name == "a":
            pending.pop()
            repo.publish(graft("/b", file("f", b"theirs")), machine="b")
        usual(self, which, data)

    monkeypatch.setattr(s3_module.S3Storage, "put_state", put)
    outcome = []
    with pytest.raises(StaleBaseError, match=rf"somebody else changed \{name} of s3://\S+ meanwhile"):
        outcome.append(repo.publish(graft("/a", file("f", b"ours"))))
    assert outcome == []
    with open_repository(repo.url) as reader:
        assert (reader.revision, b"".join(reader.read("b/f"))) == (2, b"theirs")
    assert repo.publish(graft("/a", file("f", b"ours"))).revision == 3
    assert repo.check() == []


def test_many_machines_at_once(repo):
    """Each tries until it has published: nothing is lost, and nothing is damaged."""
    refused = []

    def machine(number):
        while True:
            try:
                repo.publish(graft(f"/m{number}", file("f", b"%d" % number)), machine=f"m{number}")
            except BusyError as exc:
                refused.append(type(exc))
                time.sleep(0.05 * number)
            else:
                return

    threads = [threading.Thread(target=machine, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_repository(repo.url) as reader:
        assert reader.revision == 5
        assert [b"".join(reader.read(f"m{number}/f")) for number in range(4)] == [b"0", b"1", b"2", b"3"]
    # a reflog may know of what was never published; the next publish says so in the manifest
    repo.publish(graft("/last", file("f", b"last")))
    assert repo.check() == []


def test_no_publisher_relies_on_what_a_collection_removes(repo, monkeypatch):
    """A publisher that began before the collection must not commit; one that comes meanwhile is sent away."""
    repo.publish(graft("/x", file("f", b"x" * 5000)))
    repo.publish(graft("/x", file("f", b"y" * 5000)))
    outcome = []
    usual = collecting._sweep

    def sweep(*words, **more):
        with pytest.raises(TransactionOpenError, match=r"garbage is being collected in s3://\S+: process \d+ on "):
            repo.publish(graft("/b", file("f", b"x" * 5000)), machine="b")
        usual(*words, **more)

    monkeypatch.setattr(collecting, "_sweep", sweep)

    def collect():
        storage = repo.storage("c")
        outcome.append(collect_garbage(storage, keys_folder=repo.keys, now=now(), grace=dt.timedelta(0)))

    with before_commit(monkeypatch, collect), pytest.raises(StaleBaseError):
        # the content of revision 2 is still there when this one looks, and gone when it commits
        repo.publish(graft("/a", file("f", b"x" * 5000)))
    assert outcome[0].objects_removed > 0
    assert repo.publish(graft("/a", file("f", b"x" * 5000))).changed
    assert repo.check() == []


def test_a_collection_that_died(repo):
    """On the same machine the next collection goes on; publishers and others are told."""
    left = repo.storage()
    left.prepare()
    with left.sweeping():
        data = left.read_state(s3_module._SWEEP)
    repo.storage().put_state(s3_module._SWEEP, data)
    with pytest.raises(TransactionOpenError, match="garbage is being collected") as caught:
        repo.publish(graft("/a", file("f", b"1")))
    assert "afpub repo gc" in caught.value.hint
    with pytest.raises(TransactionOpenError, match="already: process"):
        collect_garbage(repo.storage("b"), keys_folder=repo.keys, now=now())
    collect_garbage(repo.storage(), keys_folder=repo.keys, now=now())
    assert repo.publish(graft("/a", file("f", b"1"))).changed


def test_an_old_collection_of_another_machine_is_over(repo):
    old = {"host": "other.example.org", "spool": "/x", "pid": 1, "since": "2026-01-01T00:00:00+00:00"}
    repo.storage().put_state(s3_module._SWEEP, json.dumps(old).encode())
    collect_garbage(repo.storage(), keys_folder=repo.keys, now=now())
    assert repo.publish(graft("/a", file("f", b"1"))).changed


def count_puts(monkeypatch):
    """The names that are sent from now on."""
    sent = []
    usual = obstore.put

    def put(store, name, data, **more):
        sent.append(name)
        return usual(store, name, data, **more)

    monkeypatch.setattr(s3_module.obstore, "put", put)
    return sent


def test_an_upload_that_was_interrupted_is_resumed(repo, monkeypatch):
    files = [file(f"f{number}", os.urandom(3000)) for number in range(200)]
    repo.publish(graft("/warm", file("f", b"1")))

    def die():
        raise KeyboardInterrupt

    sent = count_puts(monkeypatch)
    with before_commit(monkeypatch, die), pytest.raises(KeyboardInterrupt):
        repo.publish(graft("/a", *files))
    objects = [name for name in sent if name.startswith("data/")]
    assert len(set(objects)) == len(objects) > 200
    with open_repository(repo.url) as reader:
        assert reader.revision == 2
    sent.clear()
    assert repo.publish(graft("/a", *files), machine="b").changed
    assert len([name for name in sent if name.startswith("data/")]) < 10, "catalogs and tags carry the time"
    assert sent[-2:] == [".cvmfsreflog", ".cvmfspublished"], "the manifest is the last thing that happens"
    assert repo.check() == []


def test_uploads_tell_how_far_they_are(repo):
    seen = []

    class Listener(Silent):
        def advance(self, done, total, what):
            seen.append((done, total, what))

    storage = storage_of(repo.location, spool=repo.spool / "a", progress=Listener())
    tree = graft("/a", *(file(f"f{number}", b"%d" % number) for number in range(30)))
    publish(storage, keys_folder=repo.keys, now=now(), grafts=(tree,))
    done, total, what = seen[-1]
    assert (done, what) == (total, "objects uploaded")
    assert total > 30
    assert sorted(seen) == seen, "it never goes back"


def test_known_contents_are_not_sent_again_and_lost_ones_are(repo, monkeypatch):
    files = [file(f"f{number}", os.urandom(3000)) for number in range(100)]
    repo.publish(graft("/a", *files))
    with open_repository(repo.storage()) as reader:
        digest = reader.lookup("a/f7").digest
    name = f"data/{str(digest)[:2]}/{str(digest)[2:]}"
    repo.storage().remove_objects([name])
    sent = count_puts(monkeypatch)
    repo.publish(graft("/b", *files))
    assert name in sent
    assert len([each for each in sent if each.startswith("data/")]) < 10
    assert repo.check() == []


def test_the_local_folder_may_be_lost(repo):
    repo.publish(graft("/a", file("f", BIG)))
    tools.run(["rm", "-rf", repo.spool / "a"])
    assert not repo.publish(graft("/a", file("f", BIG))).changed
    assert repo.publish(graft("/b", file("f", BIG))).objects_new < 5


def test_trouble_with_the_server_is_explained(repo, s3_keys, monkeypatch):
    monkeypatch.setattr(connection, "_RETRIES", 0)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    where = repo.storage().where
    with pytest.raises(RepositoryError) as caught:
        repo.publish(graft("/a", file("f", b"1")))
    assert caught.value.message == f"cannot read .cvmfspublished of {where}: {s3_keys.endpoint} answered 403 Forbidden"
    assert caught.value.hint.startswith("set AWS_ACCESS_KEY_ID")
    assert "wrong" not in f"{caught.value.message} {caught.value.__cause__}"
    nobody = storage_of("s3://cvmfs/x?endpoint=http://127.0.0.1:9", spool=repo.spool)
    with pytest.raises(RepositoryError, match=r"of s3://cvmfs/x: http://127\.0\.0\.1:9: HTTP error") as caught:
        open_repository(nobody)
    assert caught.value.hint == "check the endpoint, the region and the network"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_keys.secret_key)
    nothing = storage_of(s3_keys.location("no/such/prefix"), spool=repo.spool)
    with pytest.raises(RepositoryError, match="s3://cvmfs/no/such/prefix is no repository"):
        open_repository(nothing)


@pytest.fixture
def afpub(s3_keys, tmp_path):
    """Runs afpub in a folder of its own; its keys of the bucket come from the usual file."""
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws/credentials").write_text(
        f"[default]\naws_access_key_id = {s3_keys.access_key}\naws_secret_access_key = {s3_keys.secret_key}\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"HOME": f"{home}", "XDG_CACHE_HOME": f"{tmp_path}/cache"}

    def run(*words, code=0):
        done = tools.run([AFPUB, *words], cwd=tmp_path, env=env, check=False, timeout_s=120)
        assert done.returncode == code, done.tail
        assert s3_keys.secret_key not in done.tail
        return done

    return run


def test_commands_take_the_address_of_a_bucket(afpub, s3_keys, tmp_path):
    place = s3_keys.location(f"cli/{tmp_path.name}")
    keys = ("--repo", place, "--keys", "keys")
    key = ("--repo", place, "--key", "keys/cli.afpub.example.pub")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_text("content")
    afpub("repo", "create", "cli.afpub.example", "--at", place, "--keys", "keys")
    assert "already" in afpub("repo", "create", "cli.afpub.example", "--at", place, "--keys", "keys", code=7).tail
    afpub("repo", "publish", "tree", "/sw/1", *keys, "--tag", "one", "-v")
    assert afpub("repo", "cat", "/sw/1/f", *key).stdout == "content"
    assert "no problems found" in afpub("repo", "fsck", *key).stdout
    assert "one" in afpub("repo", "tag", *keys).stdout
    assert "0 objects" in afpub("repo", "gc", *keys).stdout
    assert "days left" in afpub("keys", "show", *keys).stdout
    url = s3_keys.url(f"cli/{tmp_path.name}")
    assert afpub("repo", "cat", "/sw/1/f", "--repo", url).stdout == "content"
    done = afpub("serve", "--repo", place, code=2)
    assert "is no folder" in done.tail
    secret = s3_keys.secret_key.encode()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and ".aws" not in path.parts]
    assert written
    assert not any(secret in path.read_bytes() for path in written)


@pytest.mark.images
def test_a_release_goes_into_a_bucket(s3_keys, tmp_path, require_tool):
    require_tool("apptainer")
    place = f"s3://{s3_keys.bucket}/release/{tmp_path.name}"
    project = small_project.make(tmp_path / "project", place, f'[s3]\nendpoint = "{s3_keys.endpoint}"\n')
    done = project.release()
    assert (done["revision"], done["new"], done["release"]) == (2, True, "1.0")
    assert project.release()["new"] is False
    url = s3_keys.url(f"release/{tmp_path.name}")
    assert check(url, public_key=project.public_key.read_bytes()).ok
    assert project.json("list")["channels"][0]["release"] == "1.0"
    assert (project.root / "work/spool/contents.sqlite").exists()


def test_nginx_stands_before_a_bucket(repo, s3_keys, tmp_path, require_tool):
    program, port = require_tool("nginx"), free_port()
    repo.publish(graft("/sw", file("big", BIG)))
    changes = {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "kernels\\.example\\.org": re.escape(FQRN),
        "http://s3.example.org": s3_keys.endpoint,
        "/kernels/stratum0/": f"{urlsplit(repo.url).path}/",
    }
    with nginx(program, adapted(documented("nginx", 1), changes), port, tmp_path / "nginx") as url:
        assert check(f"{url}/cvmfs/{FQRN}", public_key=repo.public_key).findings == ()
        status, headers, _ = ask(url, f"/cvmfs/{FQRN}/.cvmfspublished")
        assert (status, headers["Cache-Control"]) == (200, "max-age=61")
        for hidden in (".afpub/settings.json", "data/", "", "../x"):
            assert ask(url, f"/cvmfs/{FQRN}/{hidden}")[0] in {400, 404}, hidden
        for method in ("PUT", "DELETE", "POST"):
            assert ask(url, f"/cvmfs/{FQRN}/.cvmfspublished", method)[0] == 403


def test_a_public_bucket_is_read_without_keys(repo, monkeypatch):
    repo.publish(graft("/a", file("f", b"1")))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with open_repository(repo.location, public_key=repo.public_key) as reader:
        assert b"".join(reader.read("a/f")) == b"1"
    with pytest.raises(RepositoryError, match="answered 403 Forbidden"):
        repo.publish(graft("/a", file("f", b"2")))


def test_a_stranger_reads_but_does_not_write(repo, s3_keys):
    request = urllib.request.Request(f"{repo.url}/.cvmfspublished", data=b"x", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
