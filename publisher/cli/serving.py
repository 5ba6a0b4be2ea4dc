"""The command serve."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from publisher.cli.common import Session, command
from publisher.cli.places import Place, find_place
from publisher.cvmfs.access_log import access_log
from publisher.cvmfs.serve import RepositoryServer, Request, running
from publisher.names import Fqrn

_GRACE_S = 10.0
"""How long a download may go on when the server is stopped."""
_LOOPBACK = ("127.", "::1", "localhost")


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app)
    def serve(
        session: Session,
        repo: Annotated[str, typer.Option(help="Folder of the repository; default: the project's.")] = "",
        host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
        log: Annotated[str, typer.Option("--access-log", help="File for the access log; - is stderr.")] = "",
    ) -> None:
        """Serve the repository over HTTP to CVMFS clients until Ctrl-C or SIGTERM."""
        place = find_place(session, repo)
        fqrn = place.fqrn()
        with contextlib.ExitStack() as stack:
            tell: Callable[[Request], None] = stack.enter_context(access_log(log)) if log else _teller(session)
            stop = stack.enter_context(_stopped_by_signals())
            server = stack.enter_context(RepositoryServer((host, port), {fqrn: place.folder}, on_request=tell))
            stack.enter_context(running(server, grace_s=_GRACE_S))
            url = f"{server.url}/cvmfs/{fqrn}"
            session.screen.result({"fqrn": fqrn, "url": url}, lines=_lines(place, fqrn, url))
            if not host.startswith(_LOOPBACK):
                session.screen.say("every machine that reaches this address can read the repository")
            stop.wait()
        session.screen.say("stopped")


def _teller(session: Session) -> Callable[[Request], None]:
    return lambda request: session.screen.detail(f"{request.status} {request.path}")


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or Ctrl-C sets; the second one ends the program as usual."""
    stop = threading.Event()
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def end(*_: object) -> None:
        restore()
        stop.set()

    for number in former:
        signal.signal(number, end)
    try:
        yield stop
    finally:
        restore()


def _lines(place: Place, fqrn: Fqrn, url: str) -> tuple[str, ...]:
    key = f"{place.keys}/{fqrn}.pub" if place.keys else f"{fqrn}.pub"
    return (
        f"{fqrn} is served at {url} (Ctrl-C ends it). A CVMFS client needs:",
        f"  CVMFS_SERVER_URL={url.replace(fqrn, '@fqrn@')}",
        "  CVMFS_HTTP_PROXY=DIRECT",
        f"  CVMFS_PUBLIC_KEY={key}",
    )
