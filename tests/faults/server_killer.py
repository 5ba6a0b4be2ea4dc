"""Publishes through a server and is killed in the open transaction, when everything is written."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from publisher.backends.base import Changeset
from publisher.backends.server.backend import ServerBackend
from publisher.backends.server.program import Server
from publisher.backends.server.site import ServerOptions
from publisher.names import Fqrn, RepoPath
from publisher.tree import Entry, Graft, Kind


def die(*_args, **_more):
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    fqrn, config, program, work = sys.argv[1:]
    Server.publish = die
    backend = ServerBackend(Fqrn(fqrn), ServerOptions(work=Path(work), config=Path(config), program=program))
    tree = (Entry(path="", kind=Kind.FILE, mode=0o644, content=b"killed", size_bytes=6),)
    backend.publish(Changeset(base=backend.head(), grafts=(Graft(at=RepoPath("/killed"), tree=tree),)))


if __name__ == "__main__":
    main()
