"""A stand-in for a repository gateway: leases over HTTP as cvmfs_gateway has them, and the stratum 0 beside it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

API = "/api/v1"


@dataclass
class Gateway:
    """The state of the gateway."""

    served: Path
    """Holds the repository folders, by name."""
    names: tuple[str, ...]
    lifetime_s: float = 7200.0
    leases: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Path and expiry, by token."""
    url: str = ""

    @property
    def api(self) -> str:
        return self.url + API

    def active(self) -> dict[str, tuple[str, float]]:
        return {token: row for token, row in self.leases.items() if row[1] > time.time()}

    def acquire(self, path: str) -> dict[str, object]:
        for other, expiry in self.active().values():
            short, long = sorted((f"{other}/", f"{path}/"), key=len)
            if long.startswith(short):
                return {"status": "path_busy", "time_remaining": f"{expiry - time.time():.0f}s"}
        token = f"token{len(self.leases)}"
        self.leases[token] = (path, time.time() + self.lifetime_s)
        return {"status": "ok", "session_token": token, "max_api_version": 3}

    def answer(self, method: str, what: list[str], body: dict) -> dict[str, object]:
        match method, what:
            case "GET", ["repos"]:
                return {"status": "ok", "data": {name: {"enabled": True} for name in self.names}}
            case "GET", ["leases"]:
                rows = {path: {"key_id": "key1", "path": path, "expires": "soon"} for path, _ in self.active().values()}
                return {"status": "ok", "data": rows}
            case "POST", ["leases"]:
                return self.acquire(body["path"])
            case (("GET" | "POST" | "DELETE"), ["leases", token]):
                if token not in self.active():
                    return {"status": "error", "reason": "invalid_token"}
                if method != "GET":
                    del self.leases[token]
                return {"status": "ok"}
        return {"status": "error", "reason": "invalid_request"}


@contextlib.contextmanager
def gateway(served: Path, *names: str) -> Iterator[Gateway]:
    """A gateway that runs while the context is open."""
    state = Gateway(served, names)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.handle_one("GET")

        def do_POST(self) -> None:
            self.handle_one("POST")

        def do_DELETE(self) -> None:
            self.handle_one("DELETE")

        def handle_one(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.path.startswith("/cvmfs/"):
                self.file()
                return
            words = self.path.removeprefix(f"{API}/").split("/")
            data = json.dumps(state.answer(method, words, json.loads(body or b"null") or {})).encode()
            self.reply(200, data)

        def file(self) -> None:
            path = state.served / self.path.removeprefix("/cvmfs/")
            found = path.is_file()
            self.reply(200 if found else 404, path.read_bytes() if found else b"")

        def reply(self, code: int, data: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
