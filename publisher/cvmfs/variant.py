"""Link targets with variables, which clients fill in."""

from __future__ import annotations

import re
from collections.abc import Mapping

_VARIANT = re.compile(r"\$\(([^)]*)\)")


def expand_variant(target: str, environment: Mapping[str, str]) -> str:
    """A link target as a client shows it: ``$(NAME)`` and ``$(NAME:-default)`` replaced."""

    def value(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":-")
        return environment.get(name, default)

    return _VARIANT.sub(value, target)
