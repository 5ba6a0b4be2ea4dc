"""``afpub status``: real servers with copies of different age."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from compat.client import mounted

from publisher import tools
from publisher.names import ChannelName, Fqrn, ReleaseVersion, RepoPath
from publisher.records.index import Index, IndexRelease

AFPUB = Path(sys.executable).with_name("afpub")
FQRN = Fqrn("status.afpub.example")
PREFIX = RepoPath("/jupyter")
SETTINGS = """\
fqrn = "status.afpub.example"
prefix = "/jupyter"
repository = "repository"

[propagation]
stratum1 = [{urls}]
mount = "{mount}"
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Serves a folder as a plain web server does."""
    running = []

    def start(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def afpub(tmp_path):
    def run(*words, code=0):
        done = tools.run([AFPUB, *words], cwd=tmp_path, env=dict(os.environ), check=False, timeout_s=120)
        assert done.returncode == code, done.tail
        return done

    run("repo", "create", FQRN, "--at", "repository", "--keys", "keys")
    return run


@pytest.fixture
def publish(tmp_path, afpub):
    """Publishes the index of some releases, the last of them in the channel ``stable``."""

    def publish(*versions):
        index = Index(fqrn=FQRN, prefix=PREFIX)
        for version in versions:
            name = ReleaseVersion(version)
            row = IndexRelease(version=name, digest="x", created="2026-11-24T12:00:00Z", images=(), kernels=())
            index = index.with_release(row, ()).moved(ChannelName("stable"), name)
        tree = tmp_path / "tree"
        tree.mkdir(exist_ok=True)
        (tree / "index.json").write_bytes(index.to_bytes())
        afpub("repo", "publish", "tree", PREFIX, "--repo", "repository")

    return publish


def snapshot(tmp_path, name):
    """What a stratum 1 does: objects first, then what points to them."""
    copy = tmp_path / name
    shutil.copytree(tmp_path / "repository/data", copy / "data", dirs_exist_ok=True)
    (copy / ".cvmfs_last_snapshot").write_text(time.strftime("%a %b %d %H:%M:%S UTC %Y\n", time.gmtime()))
    for file in (".cvmfswhitelist", ".cvmfspublished"):
        shutil.copy(tmp_path / "repository" / file, copy / file)
    return copy


@pytest.fixture
def strata(tmp_path, publish, serve):
    """Two stratum 1s: ``fresh`` has everything, ``stale`` the release before."""
    publish("1.0")
    stale = snapshot(tmp_path, "stale")
    publish("1.0", "2.0")
    fresh = snapshot(tmp_path, "fresh")
    urls = [serve(fresh), serve(stale)]
    text = SETTINGS.format(urls=", ".join(f'"{url}"' for url in urls), mount=tmp_path / "cvmfs")
    (tmp_path / "afpub.toml").write_text(text)
    return urls


def test_who_has_it(afpub, strata):
    done = json.loads(afpub("status", "--json").stdout)
    zero, fresh, stale, here = done["places"]
    assert [row["kind"] for row in done["places"]] == ["stratum 0", "stratum 1", "stratum 1", "mount"]
    assert [row["has_it"] for row in done["places"]] == [True, True, False, False]
    assert (zero["revision"], fresh["revision"], stale["revision"]) == (3, 3, 2)
    assert (fresh["releases"], stale["releases"]) == (["1.0", "2.0"], ["1.0"])
    assert stale["channels"] == {"stable": "1.0"}
    assert zero["root_hash"] == fresh["root_hash"] != stale["root_hash"]
    assert abs(fresh["snapshot_s"] - time.time()) < 120
    assert fresh["whitelist_expires_s"] > time.time() + 29 * 86400
    assert (done["reached"], done["newest_revision"], zero["ttl_s"]) == (False, 3, 240)
    assert here["trouble"].endswith(f"cvmfs/{FQRN} is not there: this machine does not mount {FQRN}")


def test_a_release_that_all_have(afpub, strata):
    done = afpub("status", "--release", "1.0", "--wait", "5")
    assert "release 1.0 is at 2 of 2 places; clients see it within 240 s of that" in done.stdout


def test_waiting_in_vain_says_who_is_missing(afpub, strata):
    done = afpub("status", "--release", "2.0", "--wait", "0.5", code=1)
    stale = strata[1].removeprefix("http://")
    assert f"release 2.0: 1 of 2 places have it, 2 are needed; missing: {stale}" in done.tail
    assert afpub("status", "--release", "2.0", "--wait", "5", "--quorum", "1").returncode == 0


def test_waiting_until_it_is_there(tmp_path, afpub, strata):
    timer = threading.Timer(1.0, snapshot, (tmp_path, "stale"))
    timer.start()
    done = json.loads(afpub("status", "--wait", "60", "--json").stdout)
    timer.join()
    assert done["reached"]
    assert [row["revision"] for row in done["places"][:3]] == [3, 3, 3]


def test_a_stratum_1_that_is_down_and_one_with_another_key(tmp_path, afpub, strata, serve):
    afpub("repo", "create", FQRN, "--at", "other/repository")
    wrong = serve(tmp_path / "other/repository")
    done = afpub("status", "--stratum1", wrong, "--stratum1", "http://127.0.0.1:9/x", "--json")
    _, other, down, _ = json.loads(done.stdout)["places"]
    assert other["trouble"] == (f"the whitelist of {wrong} was not signed with the key that belongs to the public key")
    assert down["trouble"].startswith("cannot read http://127.0.0.1:9/x/.cvmfspublished: ")


def test_nothing_to_wait_for(tmp_path, afpub, publish):
    publish("1.0")
    (tmp_path / "afpub.toml").write_text(SETTINGS.format(urls="", mount="/nowhere"))
    done = afpub("status", "--wait", "1", code=2)
    assert "no stratum 1 and no site is known, so there is nothing to wait for" in done.tail


def test_metrics(afpub, strata):
    lines = afpub("status", "--metrics").stdout.splitlines()
    stale = strata[1].removeprefix("http://")
    assert f'afpub_revision{{fqrn="{FQRN}",kind="stratum 1",place="{stale}"}} 2.0' in lines
    assert f'afpub_release{{fqrn="{FQRN}",kind="stratum 1",place="{stale}",release="2.0"}} 0.0' in lines


@pytest.mark.usefixtures("require_root")
def test_this_machine_and_a_site_that_tells_it(tmp_path, afpub, strata, serve, require_tool):
    require_tool("cvmfs2")
    fresh = strata[0]
    work = tmp_path / "client"
    work.mkdir()
    with mounted(FQRN, fresh, public_key=tmp_path / f"keys/{FQRN}.pub", work=work) as folder:
        (tmp_path / "cvmfs").mkdir()
        (tmp_path / "cvmfs" / FQRN).symlink_to(folder)
        told = afpub("status", "--here", "--json").stdout
        (row,) = json.loads(told)["places"]
        assert (row["trouble"], row["revision"], row["releases"]) == ("", 3, ["1.0", "2.0"])
        told_folder = tmp_path / "told"
        told_folder.mkdir()
        (told_folder / "status.json").write_text(told)
        with (tmp_path / "afpub.toml").open("a") as file:
            file.write(f'[propagation.sites]\nBNL = "{serve(told_folder)}/status.json"\n')
        done = json.loads(afpub("status", "--release", "2.0", "--quorum", "2", "--wait", "5", "--json").stdout)
    assert {row["name"]: row["has_it"] for row in done["places"] if row["kind"] == "site"} == {"BNL": True}
    assert done["reached"]
