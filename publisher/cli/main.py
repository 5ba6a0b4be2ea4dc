"""The program ``afpub``."""

from __future__ import annotations

import sys
import tempfile
import traceback
from typing import Annotated

import typer

import publisher
from publisher.cli import adopting, arriving, authoring, looking, releasing, repository, serving, sessions
from publisher.cli.console import Screen
from publisher.errors import AfpubError, DiskError

_INTERRUPTED = 130
app = typer.Typer(
    help="Publish Jupyter kernels and container images for analysis facilities through CVMFS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"afpub {publisher.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Publish Jupyter kernels and container images for analysis facilities through CVMFS."""


for _group in (authoring, releasing, looking, arriving, adopting, sessions, repository, serving):
    _group.register(app)


def main() -> None:
    """Runs the program and turns every failure into a message and an exit code (``docs/errors.md``)."""
    screen = Screen(as_json="--json" in sys.argv[1:])
    sys.exit(_run(screen))


def _run(screen: Screen) -> int:
    try:
        app()
    except SystemExit as exc:  # how typer ends: wrong use, --help, Ctrl-C
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        if code == _INTERRUPTED:
            screen.say("interrupted: what is complete is kept, run the same command again to go on")
        return code
    except AfpubError as exc:
        screen.failure(exc)
        return exc.exit_code
    except OSError as exc:
        failure = DiskError(f"{exc.filename}: {exc.strerror}" if exc.filename else f"{exc}")
        screen.failure(failure)
        return failure.exit_code
    except Exception as exc:  # noqa: BLE001 - no traceback reaches a user
        bug = AfpubError(
            f"afpub itself failed: {type(exc).__name__}: {exc}",
            hint=f"this is a bug; please report it with {_keep_traceback()}",
        )
        screen.failure(bug)
        return bug.exit_code
    return 0


def _keep_traceback() -> str:
    with tempfile.NamedTemporaryFile("w", prefix="afpub-", suffix=".txt", delete=False) as file:
        traceback.print_exc(file=file)
    return file.name
