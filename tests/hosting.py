"""Real web servers, with the configuration that docs/hosting.md gives."""

from __future__ import annotations

import http.client
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from publisher import tools

_DOCUMENT = Path(__file__).parents[1] / "docs/hosting.md"
NGINX_MAIN = """\
daemon off;
{user}
worker_processes 1;
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {work}/access.log;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
{server}
}}
"""
APACHE_MAIN = """\
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
ServerRoot {work}
DefaultRuntimeDir {work}
PidFile {work}/apache.pid
ErrorLog {work}/error.log
ServerName localhost
Listen 127.0.0.1:{port}
{user}
{server}
"""


def documented(language: str, which: int = 0) -> str:
    """A configuration of the document, by the language of its block."""
    return re.findall(rf"^```{language}\n(.*?)^```", _DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)[which]


def adapted(text: str, changes: Mapping[str, str]) -> str:
    """The text with what every site changes; each of it must be there."""
    for old, new in changes.items():
        assert old in text, f"docs/hosting.md does not say {old!r} any more"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    with closing(socket.socket()) as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


@contextmanager
def nginx(program: Path, server: str, port: int, work: Path) -> Iterator[str]:
    """The address of an nginx on loopback."""
    work.mkdir()
    (work / "nginx.conf").write_text(
        NGINX_MAIN.format(work=work, server=server, user="user www-data;" if os.geteuid() == 0 else "")
    )
    words = [program, "-p", work, "-e", work / "error.log", "-c", work / "nginx.conf"]
    with tools.spawn(words, log=work / "out"):
        yield _listening(port, work)


@contextmanager
def apache(program: Path, server: str, port: int, work: Path) -> Iterator[str]:
    """The address of an Apache on loopback."""
    work.mkdir()
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    (work / "apache.conf").write_text(APACHE_MAIN.format(work=work, port=port, server=server, user=user))
    with tools.spawn([program, "-D", "FOREGROUND", "-f", work / "apache.conf"], log=work / "out"):
        yield _listening(port, work)


def _listening(port: int, work: Path) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            said = "".join(path.read_text() for path in (work / "out", work / "error.log") if path.exists())
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        else:
            return f"http://127.0.0.1:{port}"


def ask(url: str, path: str, method: str = "GET", **headers: str):
    """Status, headers and body; the path goes out as it is."""
    host = url.removeprefix("http://")
    with closing(http.client.HTTPConnection(host, timeout=20)) as connection:
        connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
