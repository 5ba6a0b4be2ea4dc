"""Where a revision has to arrive: stratum 0, the stratum 1s, this machine's mount, and sites that tell theirs."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from enum import StrEnum

from publisher.names import Fqrn


class PlaceKind(StrEnum):
    """What a place is to the repository."""

    STRATUM0 = "stratum 0"
    """Where it is published."""
    STRATUM1 = "stratum 1"
    """A public copy that clients read from."""
    SITE = "site"
    """A site that tells what its machines see."""
    MOUNT = "mount"
    """The CVMFS client of this machine."""


COUNTED = frozenset({PlaceKind.STRATUM1, PlaceKind.SITE})
"""What a quorum is made of: the places that users read from, wherever the question is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One place that is asked."""

    kind: PlaceKind
    name: str
    """What people call it: a host, a site, a folder."""
    location: str
    """A folder, or an http(s) address."""


def stratum1(url: str, fqrn: Fqrn) -> Place:
    """A stratum 1 by its address, ``@fqrn@`` and ``@org@`` in it filled as a client does."""
    filled = fill(url, fqrn)
    host = urllib.parse.urlsplit(filled).netloc or filled
    return Place(kind=PlaceKind.STRATUM1, name=host, location=filled)


def fill(url: str, fqrn: Fqrn) -> str:
    """An address with the repository's name in it. Source: cvmfs/mountpoint.cc, ReplaceHosts (2.12)."""
    return url.replace("@fqrn@", fqrn).replace("@org@", fqrn.partition(".")[0])
