"""What the name of a release of ATLAS tells, such as ``AnalysisBase,21.2.111``: one line that all else follows from."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SERIES = re.compile(r"(?<![\w.])(\d\d)\.(\d+)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class AtlasRelease:
    """What ``asetup`` is given."""

    text: str

    @property
    def series(self) -> str:
        """The first two numbers, such as ``21.2``; empty for a name without them, such as that of a nightly build."""
        found = _SERIES.search(self.text)
        return f"{int(found[1])}.{int(found[2])}" if found else ""

    @property
    def python(self) -> str:
        """``2.7`` or ``3``: series 22 was the first with Python 3."""
        return "2.7" if self._major < 22 else "3"

    @property
    def system(self) -> str:
        """The system that it is built for, as people call it; the same is known to ``libexec/setup.sh``."""
        return "CentOS 7" if self._major < 24 else "Enterprise Linux 9"

    def runs_on(self, os_name: str) -> bool:
        """True if a system (PRETTY_NAME of its os-release) is of the kind that the release is built for."""
        number = re.search(r"\d+", os_name)
        kind = re.match(r"CentOS|AlmaLinux|Rocky|Red Hat|Oracle|Scientific", os_name)
        return bool(kind and number and number[0] == self.system[-1])

    @property
    def _major(self) -> int:
        return int(self.series.partition(".")[0] or 99)
