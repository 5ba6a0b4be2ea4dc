"""``afpub serve`` over real sockets: conditional and partial requests, many and slow clients, tricks with paths."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import cvmfs_repository as repository
import pytest

from publisher import tools
from publisher.cvmfs.connections import Limits
from publisher.cvmfs.serve import RepositoryServer, running
from publisher.errors import UsageError

AFPUB = Path(sys.executable).with_name("afpub")
FQRN = repository.FQRN
BIG = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    made = repository.make(tmp_path_factory.mktemp("served") / "repository")
    made.publish(repository.graft("/sw", repository.file("big", BIG), repository.file("small", b"x" * 5000)))
    return made


@contextmanager
def served(repo, **more):
    limits = Limits(**more)
    requests = []
    made = RepositoryServer(("127.0.0.1", 0), {FQRN: repo.folder}, on_request=requests.append, limits=limits)
    with made as server, running(server):
        yield server, requests


@pytest.fixture(scope="module")
def server(repo):
    with served(repo) as (server, _):
        yield server


def connect(server, timeout=20):
    return closing(http.client.HTTPConnection(*server.server_address[:2], timeout=timeout))


def ask(connection, name, method="GET", **headers):
    path = name if name.startswith(("/", "http")) else f"/cvmfs/{FQRN}/{name}"
    connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    response = connection.getresponse()
    return response, response.read()


def objects(repo):
    return sorted(f"{path.relative_to(repo.folder)}" for path in repo.folder.glob("data/??/*"))


def test_every_file_comes_whole_over_one_connection(server, repo):
    with connect(server) as connection:
        own = None
        for name in (".cvmfspublished", ".cvmfswhitelist", ".cvmfsreflog", ".cvmfs_master_replica", *objects(repo)):
            response, body = ask(connection, name)
            assert (response.status, body) == (200, (repo.folder / name).read_bytes())
            own = own or connection.sock
            assert connection.sock is own, "the connection was kept"
            head, nothing = ask(connection, name, "HEAD")
            assert (head.status, head.headers["Content-Length"], nothing) == (200, f"{len(body)}", b"")
            again, nothing = ask(connection, name, If_None_Match=head.headers["ETag"])
            assert (again.status, nothing) == (304, b"")


def test_parts_make_the_whole(server, repo):
    name = max(objects(repo), key=lambda name: (repo.folder / name).stat().st_size)
    whole = (repo.folder / name).read_bytes()
    with connect(server) as connection:
        parts = [ask(connection, name, Range=f"bytes={at}-{at + 9999}")[1] for at in range(0, len(whole), 10_000)]
        assert b"".join(parts) == whole
        response, body = ask(connection, name, Range=f"bytes={len(whole)}-")
        assert (response.status, response.headers["Content-Range"], body) == (416, f"bytes */{len(whole)}", b"")


def test_a_new_revision_is_seen_at_once(tmp_path):
    repo = repository.make(tmp_path / "repository")
    with served(repo) as (server, _), connect(server) as connection:
        tag = ask(connection, ".cvmfspublished")[0].headers["ETag"]
        repo.publish(repository.graft("/a", repository.file("f", b"1")))
        response, body = ask(connection, ".cvmfspublished", If_None_Match=tag)
        assert (response.status, body) == (200, (repo.folder / ".cvmfspublished").read_bytes())


def hidden_names(repo):
    first = objects(repo)[0]
    return (
        "",
        "data",
        "data/",
        "data/txn/afpub-1-0",
        ".afpub/settings.json",
        ".afpub/lock",
        ".cvmfspublished.new-1",
        "../keys/test.key",
        "data/../.cvmfspublished",
        f"./{first}",
        f"data//{first[5:]}",
        f"{first}%00",
        first.replace("/", "%2f"),
        f"/{FQRN}/.cvmfspublished",
        "/cvmfs/other.example.org/.cvmfspublished",
        f"/cvmfs/{FQRN}/../{FQRN}/.cvmfspublished",
        f"/cvmfs/../cvmfs/{FQRN}/.cvmfspublished",
        "/etc/passwd",
        "/",
    )


def test_nothing_else_is_served(server, repo):
    with connect(server) as connection:
        for name in hidden_names(repo):
            response, body = ask(connection, name)
            assert (response.status, body) == (404, b"404 Not Found\n"), name
            assert response.headers["Cache-Control"] == "no-store"


def test_links_folders_and_pipes_are_not_served(tmp_path):
    repo = repository.make(tmp_path / "repository")
    (tmp_path / "secret").write_text("secret")
    (repo.folder / ".cvmfs_status.json").symlink_to(tmp_path / "secret")
    os.mkfifo(repo.folder / ".cvmfs_last_snapshot")
    place = repo.folder / "data/00"
    place.mkdir(exist_ok=True)
    (place / ("0" * 38)).mkdir()
    (place / ("1" * 38)).symlink_to(tmp_path / "secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ("2" * 38)).write_text("secret")
    far = next(f"{number:02x}" for number in range(1, 256) if not (repo.folder / f"data/{number:02x}").exists())
    (repo.folder / "data" / far).symlink_to(tmp_path / "elsewhere")
    names = (".cvmfs_status.json", ".cvmfs_last_snapshot", *(f"data/00/{str(n) * 38}" for n in (0, 1)))
    with served(repo) as (server, _), connect(server) as connection:
        for name in (*names, f"data/{far}/{'2' * 38}"):
            assert ask(connection, name)[0].status == 404, name


def test_the_address_may_come_with_the_path(server):
    """As proxies may send it (RFC 9112, 3.2.2)."""
    with connect(server) as connection:
        assert ask(connection, f"{server.url}/cvmfs/{FQRN}/.cvmfspublished")[0].status == 200


def test_only_reading_is_offered(server):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
        with connect(server) as connection:
            response, _ = ask(connection, ".cvmfspublished", method)
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
            assert response.headers["Connection"] == "close"


def exchange(server, data):
    """All that comes back for some bytes."""
    with socket.create_connection(server.server_address[:2], timeout=20) as own:
        own.sendall(data)
        own.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: own.recv(65536), b""))


def test_a_body_is_not_taken_for_another_request(server):
    inner = f"GET /cvmfs/{FQRN}/.cvmfspublished HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    for header in (f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked"):
        outer = f"GET /cvmfs/{FQRN}/.cvmfswhitelist HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n".encode()
        assert exchange(server, outer + inner).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "data",
    [b"\r\n", b"\0\1\2\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 70_000 + b"\r\n\r\n"],
    ids=["empty", "binary", "no path", "version", "long"],
)
def test_garbage_is_refused_and_the_server_goes_on(server, data):
    assert b" 200 " not in exchange(server, data)
    with connect(server) as connection:
        assert ask(connection, ".cvmfspublished")[0].status == 200


def test_many_clients_at_once(repo):
    names = objects(repo)
    with served(repo, connections=64) as (server, requests):

        def client(number):
            with connect(server) as connection:
                return all(
                    ask(connection, name)[1] == (repo.folder / name).read_bytes() for name in names[number % 7 :]
                )

        with ThreadPoolExecutor(32) as pool:
            assert all(pool.map(client, range(32)))
    assert {request.status for request in requests} == {200}
    assert len(requests) == sum(len(names[number % 7 :]) for number in range(32))


def test_connections_that_only_wait_make_room(repo):
    with served(repo, connections=4) as (server, _):
        waiting = [socket.create_connection(server.server_address[:2], timeout=20) for _ in range(4)]
        try:
            with connect(server) as connection:
                response, _ = ask(connection, ".cvmfspublished")
                assert (response.status, response.headers["Connection"]) == (200, "close"), "it is crowded"
            assert waiting[0].recv(1) == b"", "the one that waited longest has gone"
        finally:
            for own in waiting:
                own.close()


def test_a_client_that_never_asks_is_sent_away(repo):
    with served(repo, idle_s=0.3) as (server, _), socket.create_connection(server.server_address[:2], 20) as own:
        own.sendall(b"GET / HT")
        assert own.recv(1) == b""


def stuck(server, name):
    """A client that asks for a file and takes nothing of it."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.settimeout(20)
    own.connect(server.server_address[:2])
    own.sendall(f"GET /cvmfs/{FQRN}/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return own


@pytest.fixture(scope="module")
def huge(repo):
    """An object that no socket buffer holds; its name is a lie, which a server does not look at."""
    name = f"data/ee/{'e' * 38}"
    (repo.folder / name).parent.mkdir(exist_ok=True)
    with (repo.folder / name).open("wb") as file:
        file.truncate(64 << 20)
    yield name
    (repo.folder / name).unlink()


def test_a_client_that_takes_nothing_is_sent_away_and_stops_nobody(repo, huge):
    limits = {"connections": 1, "send_s": 0.5, "least_bytes_s": 1e9}
    with served(repo, **limits) as (server, requests), closing(stuck(server, huge)):
        deadline = time.monotonic() + 20
        while not requests and time.monotonic() < deadline:
            with connect(server) as connection:
                ask(connection, ".cvmfspublished")
            time.sleep(0.1)  # the log is written after the answer
        assert requests, "the stuck one was ended"
        assert {request.path for request in requests} == {f"/cvmfs/{FQRN}/.cvmfspublished"}


def test_busy_is_said_where_nobody_waits(repo, huge):
    with served(repo, connections=1) as (server, _), closing(stuck(server, huge)) as own:
        own.recv(1)
        with connect(server) as connection:
            response, _ = ask(connection, ".cvmfspublished")
            assert (response.status, response.headers["Retry-After"]) == (503, "5")


def test_a_download_is_finished_when_the_server_stops(repo, huge):
    with RepositoryServer(("127.0.0.1", 0), {FQRN: repo.folder}) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with closing(stuck(server, huge)) as own:
            got = len(own.recv(4096))
            stopping = threading.Thread(target=server.stop, kwargs={"grace_s": 30.0})
            stopping.start()
            while block := own.recv(1 << 20):
                got += len(block)
            stopping.join()
        thread.join()
        assert got > 64 << 20
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(server.server_address[:2])


def test_addresses_that_cannot_be_had(repo, server):
    with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1 port") as caught:
        RepositoryServer(server.server_address[:2], {})
    assert caught.value.hint == "give another port"
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1 port 0: Cannot assign requested address"):
        RepositoryServer(("192.0.2.1", 0), {})


def test_the_program_logs_requests_and_stops_when_told(repo, tmp_path):
    words = [AFPUB, "serve", "--repo", repo.folder, "--port", "0", "--access-log", "access.log"]
    with tools.spawn(words, cwd=tmp_path, log=tmp_path / "out") as pid:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"http://(127\.0\.0\.1):(\d+)/", (tmp_path / "out").read_text())):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with closing(http.client.HTTPConnection(found[1], int(found[2]), timeout=20)) as connection:
            ask(connection, ".cvmfspublished", User_Agent="cvmfs Fuse 2.12.0")
            ask(connection, "../x")
            os.kill(pid, signal.SIGTERM)
            assert connection.sock.recv(1) == b"", "a connection that waits is ended at once"
        while "stopped" not in (tmp_path / "out").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    size = (repo.folder / ".cvmfspublished").stat().st_size
    lines = (tmp_path / "access.log").read_text().splitlines()
    assert lines[0].endswith(f'"GET /cvmfs/{FQRN}/.cvmfspublished HTTP/1.1" 200 {size} "-" "cvmfs Fuse 2.12.0"')
    assert re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] "GET /cvmfs/\S+/\.\./x HTTP/1\.1" 404 14 "-" "-"', lines[1])
