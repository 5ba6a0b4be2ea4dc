"""A repository over HTTP, for clients on this machine or a trusted network.

Any static web server does as well, see ``docs/hosting.md``.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import BinaryIO, Final

from publisher.cvmfs.connections import Connection, Connections, Limits
from publisher.cvmfs.web import Answer, FileFacts, answer, is_public
from publisher.errors import UsageError

_PLACE = re.compile(r"/cvmfs/([a-z0-9.-]+)/(.+)")
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_PASS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request that was answered."""

    client: str
    line: str
    """Method, path and protocol as the client sent them."""
    path: str
    status: int
    sent_bytes: int
    """Bytes of the body that were sent."""
    referer: str
    agent: str


class RepositoryServer(HTTPServer):
    """Serves repositories below ``/cvmfs/<fqrn>/``, as stratum 0 servers do: one thread for each connection."""

    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        repositories: Mapping[str, Path],
        *,
        on_request: Callable[[Request], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Listens on an address.

        Raises:
            UsageError: that is not possible.
        """
        self.repositories = repositories
        self.on_request = on_request
        self.connections = Connections(limits or Limits())
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            super().__init__(address, _Handler)
        except OSError as exc:
            hint = "give another port" if address[1] else "give an address of this machine"
            raise UsageError(f"cannot listen on {address[0]} port {address[1]}: {exc.strerror}", hint=hint) from exc

    @property
    def url(self) -> str:
        """The address of the server, without a path."""
        name, port = self.server_address[:2]
        host = name if isinstance(name, str) else bytes(name).decode()
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def server_bind(self) -> None:
        """Binds the socket; looks up no names, unlike the base class."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = f"{self.server_address[0]!s}", self.server_address[1]

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Answers on a thread of its own; says that it is busy where there are too many."""
        connection = self.connections.take(request)
        if connection is None:
            with contextlib.suppress(OSError):
                request.settimeout(1)
                request.sendall(_BUSY)
            self.shutdown_request(request)
            return
        threading.Thread(target=self._serve, args=(connection, client_address), daemon=True).start()

    def _serve(self, connection: Connection, client_address: object) -> None:
        try:
            with contextlib.suppress(OSError):  # the client went away, or was too slow
                _Handler(connection, client_address, self)
        finally:
            self.shutdown_request(connection.socket)
            self.connections.give_back(connection)

    def service_actions(self) -> None:
        """Twice a second: ends what takes too long."""
        self.connections.end_overdue()

    def stop(self, *, grace_s: float) -> None:
        """Takes no more connections; what is being sent may be finished within ``grace_s`` seconds."""
        self.shutdown()
        self.socket.close()
        self.connections.drain(grace_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "afpub"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain"
    disable_nagle_algorithm = True
    server: RepositoryServer

    def __init__(self, connection: Connection, client_address: object, server: RepositoryServer) -> None:
        self._connection = connection
        self._sent = 0
        super().__init__(connection.socket, client_address, server)

    def handle_one_request(self) -> None:
        self._connection.wait()
        super().handle_one_request()

    def parse_request(self) -> bool:
        self._sent = 0
        if not super().parse_request():
            return False
        # A body is never asked for; what follows such a request must not be taken for another one.
        has_body = "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0") != "0"
        if has_body or self.server.connections.crowded:
            self.close_connection = True
        if self.command not in {"GET", "HEAD"}:
            self.close_connection = True
            self._plain(HTTPStatus.METHOD_NOT_ALLOWED, (("Allow", "GET, HEAD"),))
            return False
        return True

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        with contextlib.ExitStack() as stack:
            found = self._file()
            if found is None:
                self._plain(HTTPStatus.NOT_FOUND, (("Cache-Control", "no-store"),), body=body)
                return
            facts, file = found
            stack.enter_context(file)
            made = answer(facts, self.headers)
            self._connection.send(made.size_bytes)
            self._head(made.status, made.headers)
            if body:
                self._send(file, made)
        self._log(made.status)

    def _plain(self, status: HTTPStatus, headers: tuple[tuple[str, str], ...], *, body: bool = True) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self._connection.send(len(text))
        self._head(status, (("Content-Type", "text/plain"), ("Content-Length", f"{len(text)}"), *headers))
        if body:
            self.wfile.write(text)
            self._sent = len(text)
        self._log(status)

    def _head(self, status: HTTPStatus, headers: tuple[tuple[str, str], ...]) -> None:
        self.send_response_only(status)
        for name, value in (("Server", self.version_string()), ("Date", self.date_time_string()), *headers):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, file: BinaryIO, made: Answer) -> None:
        if made.size_bytes:
            self._sent = self.connection.sendfile(file, made.start, made.size_bytes)
        if self._sent != made.size_bytes:  # the file was cut short: only the end of the connection can say so
            self.close_connection = True

    def version_string(self) -> str:
        return self.server_version

    def _file(self) -> tuple[FileFacts, BinaryIO] | None:
        target = self.path.partition("?")[0]
        match = _PLACE.fullmatch(re.sub(r"^http://[^/]+", "", target))
        folder = self.server.repositories.get(match[1]) if match else None
        if match is None or folder is None or not is_public(match[2]):
            return None
        try:
            return _opened(folder, match[2])
        except OSError:
            return None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing goes to stderr unasked."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002 - the base class's
        """Requests that the base class refuses."""
        self._log(int(code) if f"{code}".isdigit() else 0)

    def _log(self, status: int) -> None:
        if self.server.on_request is None:
            return
        headers = getattr(self, "headers", None) or {}
        self.server.on_request(
            Request(
                client=f"{self.client_address[0]}",
                line=self.requestline,
                path=getattr(self, "path", ""),
                status=int(status),
                sent_bytes=self._sent,
                referer=headers.get("Referer", ""),
                agent=headers.get("User-Agent", ""),
            )
        )


def _opened(folder: Path, name: str) -> tuple[FileFacts, BinaryIO]:
    """A file of a repository; links below its folder are not followed."""
    *above, last = name.split("/")
    place = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        for part in above:
            inner = os.open(part, _PASS | os.O_DIRECTORY, dir_fd=place)
            os.close(place)
            place = inner
        file = os.fdopen(os.open(last, _PASS | os.O_NONBLOCK, dir_fd=place), "rb", buffering=0)
    finally:
        os.close(place)
    facts = os.fstat(file.fileno())
    if not stat.S_ISREG(facts.st_mode):
        file.close()
        raise FileNotFoundError(name)
    own = FileFacts(name=name, size_bytes=facts.st_size, mtime_ns=facts.st_mtime_ns, inode=facts.st_ino)
    return own, file


@contextmanager
def running(server: RepositoryServer, *, grace_s: float = 0.0) -> Iterator[None]:
    """Serves from a thread while the context is open."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.stop(grace_s=grace_s)
        thread.join()


@contextmanager
def serving(repositories: Mapping[str, Path], *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The address of a server that runs in a thread while the context is open; port 0 takes a free one."""
    with RepositoryServer((host, port), repositories) as server, running(server):
        yield server.url
