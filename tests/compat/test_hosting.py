"""The web servers of docs/hosting.md, as the document configures them, over a real repository."""

from __future__ import annotations

import datetime as dt
import os

import cvmfs_repository as repository
import pytest
from compat.client import mounted
from hosting import adapted, apache, ask, documented, free_port, nginx
from wanted import wanted

from publisher.cvmfs.check import check
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.publish import publish

FQRN = repository.FQRN
STATE = (".cvmfspublished", ".cvmfswhitelist", ".cvmfsreflog", ".cvmfs_master_replica")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of repositories as web servers have it, with what must not be served in it and beside it."""
    folder = tmp_path_factory.mktemp("site")
    base = tmp_path_factory.getbasetemp()
    top = (base.parent if base.name.startswith("popen-") else base).parent  # each process of pytest-xdist has its own
    for above in (folder, *folder.parents):  # web servers run as somebody else
        if above.owner() == "root" and above.is_relative_to(top):
            above.chmod(0o755)
    repo = folder / "srv" / FQRN
    repo.parent.mkdir()
    now = dt.datetime.now(tz=dt.UTC)
    keys = repository.shared_keys()
    create_repository(repo, FQRN, keys_folder=keys, settings=repository.SMALL, now=now)
    big = bytes(range(256)) * 4000
    tree = repository.graft("/sw", repository.file("big", big), repository.file("run", b"#!/bin/sh\n", mode=0o755))
    publish(repo, keys_folder=keys, now=now, grafts=(tree,))
    (repo / "keys").mkdir()
    (repo / "keys/secret.key").write_text("secret")
    (repo / ".cvmfspublished.new-1").write_text("secret")
    (repo / "data/txn/afpub-1-0").write_text("secret")
    (folder / "srv/outside").write_text("secret")
    (repo / ".cvmfs_status.json").symlink_to("../outside")
    return folder


def run_nginx(site):
    program, port = wanted("nginx"), free_port()
    changes = {"listen 80;": f"listen 127.0.0.1:{port};", "/srv/cvmfs": f"{site}/srv"}
    return nginx(program, adapted(documented("nginx"), changes), port, site / "nginx")


def run_apache(site):
    program, port = wanted("apache2"), free_port()
    changes = {"*:80": f"127.0.0.1:{port}", "/srv/cvmfs": f"{site}/srv"}
    return apache(program, adapted(documented("apache"), changes), port, site / "apache")


SERVERS = {"nginx": run_nginx, "apache": run_apache}


@pytest.fixture(scope="module", params=sorted(SERVERS))
def url(request, site):
    """The address of a running web server."""
    with SERVERS[request.param](site) as url:
        yield url


def path_of(name):
    return f"/cvmfs/{FQRN}/{name}"


def test_state_is_kept_for_61_seconds(url, site):
    for name in STATE:
        status, headers, body = ask(url, path_of(name))
        assert (status, body) == (200, (site / "srv" / FQRN / name).read_bytes())
        assert headers["Cache-Control"] == "max-age=61"
        assert headers["Content-Type"] == "application/x-cvmfs"
        assert ask(url, path_of(name), If_None_Match=headers["ETag"])[0] == 304
        assert ask(url, path_of(name), If_Modified_Since=headers["Last-Modified"])[0] == 304


def test_objects_are_kept_for_a_year(url, site):
    repo = site / "srv" / FQRN
    names = [f"{path.relative_to(repo)}" for path in repo.glob("data/??/*")]
    assert len(names) > 5
    for name in names:
        status, headers, body = ask(url, path_of(name))
        assert (status, body) == (200, (repo / name).read_bytes())
        assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert headers["Content-Type"] == "application/octet-stream"
        status, headers, part = ask(url, path_of(name), Range="bytes=3-9")
        assert (status, part) == (206, body[3:10])
        status, headers, nothing = ask(url, path_of(name), "HEAD")
        assert (status, headers["Content-Length"], nothing) == (200, f"{len(body)}", b"")


def test_nothing_else_is_served(url, site):
    an_object = next((site / "srv" / FQRN / "data").glob("??/*"))
    for name in (
        "",
        "data",
        "data/",
        f"data/{an_object.parent.name}/",
        "data/txn/afpub-1-0",
        ".afpub/settings.json",
        ".afpub/lock",
        ".cvmfspublished.new-1",
        ".cvmfspublished/",
        ".cvmfs_status.json",  # a link that leads out
        "keys/secret.key",
        "../outside",
        "%2e%2e/outside",
        "data/../keys/secret.key",
        f"data/{an_object.parent.name}/../../keys/secret.key",
    ):
        status, _, body = ask(url, path_of(name))
        assert status in {400, 403, 404}, name
        assert b"secret" not in body
    for path in ("/", "/cvmfs/", "/cvmfs", "/outside", "/cvmfs/outside", "/cvmfs/../outside"):
        assert ask(url, path)[0] in {400, 403, 404}, path


def test_only_reading_is_offered(url):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        assert ask(url, path_of(".cvmfspublished"), method)[0] in {403, 405}, method


def test_it_is_a_repository(url):
    key = (repository.shared_keys() / f"{FQRN}.pub").read_bytes()
    assert check(f"{url}{path_of('')}", public_key=key).ok


def test_the_client_mounts_it(url, tmp_path, require_tool, require_root):
    require_tool("cvmfs2")
    key = repository.shared_keys() / f"{FQRN}.pub"
    with mounted(FQRN, f"{url}/cvmfs/{FQRN}", public_key=key, work=tmp_path) as folder:
        assert (folder / "sw/big").read_bytes() == bytes(range(256)) * 4000
        assert os.access(folder / "sw/run", os.X_OK)
