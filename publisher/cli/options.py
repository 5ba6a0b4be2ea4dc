"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Repo = Annotated[str, typer.Option("--repo", help="Folder or address of the repository; default: the project's.")]
Keys = Annotated[Path | None, typer.Option("--keys", help="Folder of the repository's keys.")]
Key = Annotated[Path | None, typer.Option("--key", help="Public key of the repository (FQRN.pub).")]
At = Annotated[str, typer.Option("--at", help="A tag, revision number or root digest; default: the newest.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for another publisher.")]
Recover = Annotated[
    bool,
    typer.Option("--recover", help="Abort the transaction that an afpub which was killed left open (cvmfs-server)."),
]
MasterKey = Annotated[
    Path | None, typer.Option("--master-key", help="File of the private master key; default: in the keys folder.")
]
SignCommand = Annotated[
    str,
    typer.Option(
        "--sign-command",
        help="Program that signs instead of a master key file: gets the digest on stdin, writes the raw signature.",
    ),
]
