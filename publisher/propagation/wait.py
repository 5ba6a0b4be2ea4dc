"""Waiting until enough places have it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from publisher.propagation.judge import Propagation

_FIRST_S = 2.0
_LONGEST_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long, and how often."""

    seconds: float
    first_s: float = _FIRST_S
    """The first pause; each is twice the one before, up to :attr:`longest_s`."""
    longest_s: float = _LONGEST_S


def wait_for(
    look: Callable[[], Propagation],
    patience: Patience,
    *,
    on_round: Callable[[Propagation, float], None],
) -> Propagation:
    """Looks again and again until the quorum is reached or the time is up; what the last look saw.

    Args:
        look: one look at all places.
        patience: how long, and how often.
        on_round: told of each look that was not enough, and of the seconds left.
    """
    end = time.monotonic() + patience.seconds
    pause = patience.first_s
    while True:
        seen = look()
        left = end - time.monotonic()
        if seen.reached or left <= 0:
            return seen
        on_round(seen, left)
        time.sleep(min(pause, left))
        pause = min(2 * pause, patience.longest_s)
