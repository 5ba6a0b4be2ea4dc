"""What every command shares: ``--json``, ``-q``, ``-v``, ``--project``, and one session object."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from publisher.cli.console import Screen
from publisher.errors import CheckFailedError, StaleBaseError
from publisher.project.load import Project, load_project
from publisher.report import Report

_T = TypeVar("_T")


def from_newest(wait_s: float, action: Callable[[], _T]) -> _T:
    """What an action gives that starts from the newest revision; begun anew when somebody else was faster.

    Args:
        wait_s: how long to try, in seconds; with 0 it is tried once.
        action: reads the newest revision, then publishes.

    Raises:
        StaleBaseError: others went on publishing.
    """
    end = time.monotonic() + wait_s
    while True:
        try:
            return action()
        except StaleBaseError:
            if time.monotonic() >= end:
                raise


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One run of one command."""

    screen: Screen
    folder: Path
    """Where the project is looked for."""

    def project(self) -> Project:
        """The project that the command works on."""
        return load_project(self.folder)

    def conclude(self, report: Report, message: str) -> None:
        """Ends the command with exit code 1 when a report says no; to be called before the result is shown.

        Raises:
            CheckFailedError: the report holds an error.
        """
        if not report.ok:
            count = len(report.errors)
            problems = "problem" if count == 1 else "problems"
            raise CheckFailedError(f"{message}: {count} {problems}, shown above", report=report)


_COMMON: dict[str, Any] = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes, only errors and results.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")],
    "project_folder": Annotated[
        Path, typer.Option("--project", help="Folder of the publishing project.", show_default="here")
    ],
}
_DEFAULTS: dict[str, object] = {"as_json": False, "quiet": False, "verbose": False, "project_folder": Path()}


def command(app: typer.Typer, name: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command; it gets a :class:`Session` before its own parameters."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[key], annotation=annotation)
            for key, annotation in _COMMON.items()
        ]

        @functools.wraps(function)
        def run(**values: Any) -> None:  # noqa: ANN401 - whatever the command line holds
            common = {key: values.pop(key) for key in _COMMON}
            screen = Screen(as_json=common["as_json"], quiet=common["quiet"], verbose=common["verbose"])
            function(Session(screen=screen, folder=common["project_folder"].resolve()), **values)

        keyword = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own]
        run.__signature__ = inspect.Signature([*keyword, *shared])  # type: ignore[attr-defined] # read by typer
        run.__annotations__ = {item.name: item.annotation for item in (*keyword, *shared)}
        del run.__wrapped__  # typer would look through to the bare function
        app.command(name or function.__name__.replace("_", "-"))(run)
        return function

    return register
