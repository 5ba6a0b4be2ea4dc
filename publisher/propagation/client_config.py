"""The servers that this machine's CVMFS client reads a repository from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from publisher.names import Fqrn

_ASSIGNMENT = re.compile(r"""^\s*(?:export\s+)?([A-Z][A-Z0-9_]*)=(?:"([^"]*)"|'([^']*)'|([^\s#;]*))""")
_SERVERS = "CVMFS_SERVER_URL"
_SHARED = "CVMFS_CONFIG_REPOSITORY"


def server_urls(fqrn: Fqrn, *, etc: Path = Path("/etc/cvmfs"), mounts: Path = Path("/cvmfs")) -> tuple[str, ...]:
    """The addresses of CVMFS_SERVER_URL as they stand there, ``@fqrn@`` and all; empty where no client is set up.

    The files are read as data and in the order of the client, later ones winning; they are never run, so values
    that a shell would have to expand are left out. Source: cvmfs/options.cc, ParseDefault (2.12).
    """
    values: dict[str, str] = {}
    for file in _files(etc, ("default.conf", "default.d/*.conf")):
        values |= _assignments(file)
    shared = mounts / values[_SHARED] / "etc/cvmfs" if values.get(_SHARED) else None
    domain = fqrn.partition(".")[2]
    for below in (("default.conf",), (f"domain.d/{domain}.conf",), (f"config.d/{fqrn}.conf",)):
        if shared is not None:
            for file in _files(shared, below):
                values |= _assignments(file)
        own = below if below[0] != "default.conf" else ()
        for file in _files(etc, (*own, *(name.replace(".conf", ".local") for name in below))):
            values |= _assignments(file)
    found = (url.strip() for url in re.split(r"[;,|]", values.get(_SERVERS, "")))
    return tuple(dict.fromkeys(url for url in found if "://" in url))


def _files(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def _assignments(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        match = _ASSIGNMENT.match(line)
        if match and "$" not in (value := match[2] or match[3] or match[4] or ""):
            found[match[1]] = value
    return found
