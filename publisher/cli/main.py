"""The program ``afpub``."""

from __future__ import annotations

import importlib
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated, Final

import typer

import publisher
from publisher.cli.console import Screen
from publisher.errors import AfpubError, DiskError

_INTERRUPTED = 130
COMMANDS: Final = {
    "authoring": ("init", "check", "doctor"),
    "releasing": ("plan", "build", "release", "promote", "rollback", "retire"),
    "looking": ("list", "show", "diff", "verify", "export", "site"),
    "arriving": ("status",),
    "adopting": ("adopt",),
    "sessions": ("shell",),
    "repository": ("repo", "keys"),
    "serving": ("serve",),
}
"""Which module of this package has which commands. All of them, with what they import, take up to twice as long to load
as one, and a shell on a login node should not wait for the Jupyter client."""


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"afpub {publisher.__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Publish Jupyter kernels and container images for analysis facilities through CVMFS."""


def program(words: Sequence[str] = ()) -> typer.Typer:
    """The program with the command that a command line names, and those of the same module; without one, with all.

    Args:
        words: the command line, without the program's name.
    """
    app = typer.Typer(
        help="Publish Jupyter kernels and container images for analysis facilities through CVMFS.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    named = [module for module, commands in COMMANDS.items() if words and words[0] in commands]
    for module in named or COMMANDS:
        importlib.import_module(f"publisher.cli.{module}").register(app)
    return app


def main() -> None:
    """Runs the program and turns every failure into a message and an exit code (``docs/errors.md``)."""
    screen = Screen(as_json="--json" in sys.argv[1:])
    sys.exit(_run(screen))


def _run(screen: Screen) -> int:
    try:
        program(sys.argv[1:])()
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
