"""Proxies that stand before a real server and change what it is asked, or what it answers."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_PER_HOP = {"content-length", "transfer-encoding", "connection"}


class Front(BaseHTTPRequestHandler):
    """Hands requests on as they are, and answers too."""

    protocol_version = "HTTP/1.1"

    def stands_in(self) -> bool:
        """Answers by itself, or not at all, and says so."""
        return False

    def passes(self, name: str) -> bool:
        """Whether the server gets a header."""
        return True

    def answer(self, status: int, headers: Any, data: bytes) -> None:
        """Sends an answer."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _PER_HOP:
                self.send_header(name, value)
        length = headers["Content-Length"] if self.command == "HEAD" and "Content-Length" in headers else len(data)
        self.send_header("Content-Length", f"{length}")
        self.end_headers()
        self.wfile.write(data)

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.stands_in():
            return
        with closing(http.client.HTTPConnection(self.server.behind, timeout=60)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the signature is of the host that the client sees
                if self.passes(name):
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            self.answer(response.status, response.headers, response.read())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _hand_on  # noqa: N815 - names of the base class

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def front_of(endpoint: str, handler: type[Front], **state: object) -> Iterator[tuple[Any, str]]:
    """A proxy before the server at an address, with attributes for its handlers; and its own address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as front:
        vars(front).update(state, behind=urlsplit(endpoint).netloc)
        thread = threading.Thread(target=front.serve_forever)
        thread.start()
        try:
            yield front, f"http://127.0.0.1:{front.server_address[1]}"
        finally:
            front.shutdown()
            thread.join()
