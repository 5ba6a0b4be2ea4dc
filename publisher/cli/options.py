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
