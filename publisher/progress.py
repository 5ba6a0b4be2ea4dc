"""How long work tells what it does, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a step may say while it works."""

    def step(self, text: str) -> None:
        """A new step begins."""

    def line(self, text: str) -> None:
        """A line of detail, such as what a program printed."""

    def advance(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` (0: unknown) of something countable."""


class Silent:
    """Says nothing."""

    def step(self, text: str) -> None:
        """Says nothing."""

    def line(self, text: str) -> None:
        """Says nothing."""

    def advance(self, done: int, total: int, what: str) -> None:
        """Says nothing."""


class Relay:
    """Hands on what it hears, to whoever listens by then."""

    def __init__(self) -> None:
        self.listener: Progress = Silent()

    def step(self, text: str) -> None:
        """Hands it on."""
        self.listener.step(text)

    def line(self, text: str) -> None:
        """Hands it on."""
        self.listener.line(text)

    def advance(self, done: int, total: int, what: str) -> None:
        """Hands it on."""
        self.listener.advance(done, total, what)
