"""Every back-end that there is, each with an empty repository of its own."""

from __future__ import annotations

import datetime as dt
import os
import pwd
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from server_standin import StandIn
from wanted import wanted

from publisher import tools
from publisher.backends.embedded import EmbeddedBackend
from publisher.backends.server.backend import ServerBackend
from publisher.backends.server.site import ServerOptions, Way
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.keys import create_keys
from publisher.cvmfs.location import storage_of
from publisher.cvmfs.settings import Settings
from publisher.names import Fqrn

FQRN = Fqrn("contract.afpub.example")
REAL = "AFPUB_TEST_CVMFS_SERVER"
"""Set to 1 by who allows the tests to make and remove a repository with the cvmfs_server of this machine."""


def embedded(location, folder):
    now = dt.datetime.now(tz=dt.UTC)
    create_keys(FQRN, folder / "keys", now=now)
    create_repository(location, FQRN, keys_folder=folder / "keys", settings=Settings(), now=now)
    return EmbeddedBackend(location, fqrn=FQRN, keys=folder / "keys")


def in_folder(folder, _request):
    return embedded(folder / "repository", folder)


def in_bucket(folder, request):
    server = request.getfixturevalue("s3_keys")
    return embedded(storage_of(server.location(f"contract/{folder.name}"), spool=folder / "spool"), folder)


def standin(folder, _request, *, way):
    server = StandIn(folder / "server", FQRN)
    server.create(user=pwd.getpwuid(os.geteuid()).pw_name)
    options = ServerOptions(work=folder / "work", config=folder / "server/etc", program=f"{server.program()}", way=way)
    return ServerBackend(FQRN, options)


def real(folder, request, *, way):
    """A repository of the real server, served over HTTP while the test runs."""
    wanted("cvmfs_server")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if os.environ.get(REAL) != "1":
        pytest.skip(f"makes a repository with cvmfs_server on this machine only where {REAL}=1 allows it")
    Path("/srv/cvmfs").mkdir(parents=True, exist_ok=True)
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory="/srv"))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    request.addfinalizer(web.server_close)
    request.addfinalizer(web.shutdown)
    url = f"http://127.0.0.1:{web.server_port}/cvmfs/{FQRN}"
    request.addfinalizer(lambda: tools.run(["cvmfs_server", "rmfs", "-f", "-p", FQRN], check=False))
    tools.run(["cvmfs_server", "mkfs", "-p", "-o", "root", "-w", url, "-f", "overlayfs", FQRN], timeout_s=120)
    return ServerBackend(FQRN, ServerOptions(work=folder / "work", way=way))


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing."""

    def log_message(self, *_):
        pass


BACKENDS = {
    "embedded": in_folder,
    "embedded-s3": in_bucket,
    "server-describe": partial(standin, way=Way.DESCRIBE),
    "server-copy": partial(standin, way=Way.COPY),
    "server-ingest": partial(standin, way=Way.INGEST),
    "cvmfs_server-describe": partial(real, way=Way.DESCRIBE),
    "cvmfs_server-copy": partial(real, way=Way.COPY),
    "cvmfs_server-ingest": partial(real, way=Way.INGEST),
}


@pytest.fixture(params=BACKENDS)
def backend(request, tmp_path):
    """A back-end with an empty repository."""
    return BACKENDS[request.param](tmp_path, request)
