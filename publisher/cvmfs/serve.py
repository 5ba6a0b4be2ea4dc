"""A repository over HTTP, for clients on this machine or a trusted network.

Any static web server does as well.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

_BLOCK_BYTES: Final = 1 << 18
_PUBLIC = re.compile(
    r"\.cvmfspublished|\.cvmfswhitelist|\.cvmfsreflog|\.cvmfs_master_replica|\.cvmfs_status\.json|"
    r"data/[0-9a-f]{2}/[0-9a-f]{38}(-rmd160|-shake128)?[CHXMPL]?"
)
"""What a client may ask for; everything else, such as settings beside the repository, is not there."""
_NEVER_CHANGES: Final = "data/"


class RepositoryServer(ThreadingHTTPServer):
    """Serves repositories below ``/cvmfs/<fqrn>/``, as stratum 0 servers do."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        repositories: dict[str, Path],
        *,
        on_request: Callable[[str, int], None] | None = None,
    ) -> None:
        self.repositories = repositories
        self.on_request = on_request
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """The address of the server, without a path."""
        host, port = self.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: RepositoryServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self._file()
        try:
            file = path.open("rb") if path else None
        except OSError:
            file = None
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            size = file.seek(0, 2)
            file.seek(0)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", f"{size}")
            # objects are named by their content; everything else is the repository's present state
            lasting = _NEVER_CHANGES in self.path
            self.send_header("Cache-Control", f"max-age={259200 if lasting else 61}")
            self.end_headers()
            if body:
                while block := file.read(_BLOCK_BYTES):
                    self.wfile.write(block)

    def _file(self) -> Path | None:
        match = re.fullmatch(r"/cvmfs/([a-z0-9.-]+)/(.+)", self.path.partition("?")[0])
        folder = self.server.repositories.get(match[1]) if match else None
        if match is None or folder is None or not _PUBLIC.fullmatch(match[2]):
            return None
        return folder / match[2]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests go to the caller, not to stderr."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002 - the base class's
        """Tells the caller which path was asked for and what the answer was."""
        if self.server.on_request:
            self.server.on_request(self.path, int(code) if f"{code}".isdigit() else 0)


@contextmanager
def serving(repositories: dict[str, Path], *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The address of a server that runs in a thread while the context is open; port 0 takes a free one."""
    with RepositoryServer((host, port), repositories) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()
