"""Everything that a person sees. The only user of rich; machines get JSON on stdout instead."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.tree import Tree

from publisher.errors import AfpubError, CheckFailedError
from publisher.report import Report, Severity

_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_SHOWN_NOTES = 5
Branches: TypeAlias = Mapping[str, "Branches"]
"""What hangs below each line of a tree."""


class Screen:
    """Where a command writes: people on stderr, one JSON document or plain results on stdout."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._out = Console(highlight=False, soft_wrap=True, emoji=False)

    @property
    def interactive(self) -> bool:
        """True when somebody is there to answer a question."""
        return not (self.as_json or self.quiet) and sys.stdin.isatty() and sys.stderr.isatty()

    def say(self, text: str, *, style: str = "") -> None:
        """A line for people, on stderr."""
        if not self.quiet:
            self._err.print(escape(text), style=style or None)

    def detail(self, text: str) -> None:
        """A line for people who asked for more, on stderr."""
        if self.verbose and not self.quiet:
            self._err.print(escape(text), style="dim")

    def result(self, document: Mapping[str, object], *, lines: Iterable[str] = ()) -> None:
        """The result: the document for machines, the lines for people; on stdout."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            return
        for line in lines:
            self._out.print(escape(line))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table for people, on stdout."""
        if self.as_json:
            return
        drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            drawn.add_column(column, overflow="fold")
        for row in rows:
            drawn.add_row(*(escape(cell) for cell in row))
        self._out.print(drawn)

    def tree(self, title: str, branches: Branches) -> None:
        """A tree for people, on stdout."""
        if self.as_json:
            return
        drawn = Tree(escape(title))
        _grow(drawn, branches)
        self._out.print(drawn)

    def report(self, report: Report) -> None:
        """What checks found, on stderr: every error and warning, and as many notes as one can read."""
        notes: dict[str, int] = {}
        for finding in report.findings:
            if finding.severity is Severity.NOTE:
                notes[finding.check] = notes.get(finding.check, 0) + 1
                if notes[finding.check] > _SHOWN_NOTES and not self.verbose:
                    continue
            if self.quiet and finding.severity is not Severity.ERROR:
                continue
            style = _STYLE[finding.severity]
            self._err.print(f"[{style}]{finding.severity.value}[/] {escape(finding.where)}: {escape(finding.message)}")
            if finding.hint:
                self._err.print(f"    {escape(finding.hint)}", style="cyan")
        for check, count in notes.items():
            if count > _SHOWN_NOTES and not self.verbose:
                self.say(f"note {check}: {count - _SHOWN_NOTES} more (-v shows all)", style="dim")

    def failure(self, exc: AfpubError) -> None:
        """Why a command could not go on, on stderr; for machines also as JSON on stdout."""
        if exc.detail:
            self._err.print(escape(exc.detail), style="dim")
        self._err.print(f"[bold red]error:[/] {escape(exc.message)}")
        if exc.hint:
            self._err.print(f"    {escape(exc.hint)}", style="cyan")
        if self.as_json:
            document: dict[str, object] = {
                "error": exc.message,
                "hint": exc.hint,
                "detail": exc.detail,
                "class": type(exc).__name__,
                "exit_code": exc.exit_code,
            }
            if isinstance(exc, CheckFailedError):
                document |= exc.report.to_json()
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def progress(self) -> LiveProgress:
        """A progress display for one command."""
        return LiveProgress(self, self._err)


def _grow(tree: Tree, branches: Branches) -> None:
    for name, inner in branches.items():
        _grow(tree.add(escape(name)), inner)


class LiveProgress:
    """Steps and bars on a terminal, plain lines elsewhere (see :class:`publisher.progress.Progress`)."""

    def __init__(self, screen: Screen, console: Console) -> None:
        self._screen = screen
        self._live = (
            Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[count]}", markup=False),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            if console.is_terminal and not screen.quiet
            else None
        )
        self._task: TaskID | None = None
        self._step = ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def step(self, text: str) -> None:
        """A new step begins."""
        self._screen.say(text)
        self._step = text.partition(":")[0]
        if self._live:
            if self._task is not None:
                self._live.remove_task(self._task)
            self._task = self._live.add_task(self._step, total=None, count="")

    def line(self, text: str) -> None:
        """A line of detail, such as what a program printed."""
        self._screen.detail(text)
        if self._live and self._task is not None:
            self._live.update(self._task, description=f"{self._step}: {text.strip()[:60]}")

    def advance(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` (0: unknown) of something countable."""
        if self._live and self._task is not None:
            unit, name = (1e6, "MB") if what == "bytes" else (1, what)
            of = f"/{total / unit:,.0f}" if total else ""
            count = f"{done / unit:,.0f}{of} {name}"
            self._live.update(self._task, completed=done, total=total or None, count=count)
