"""What a repository gateway says of itself and of its leases.

Source: gateway/internal/gateway/frontend (2.12): ``GET /repos``, ``GET /leases``.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from publisher.errors import RepositoryError

_TIMEOUT_S = 10.0
_MOST_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A part of a repository that a publisher holds."""

    path: str
    """Repository and folder: ``repo.example.org/a/b``."""
    key: str
    expires: str


def repositories(api: str) -> tuple[str, ...]:
    """The repositories of a gateway.

    Raises:
        RepositoryError: it cannot be asked, or does not answer as a gateway does.
    """
    data = _get(api, "repos")
    return tuple(str(name) for name in data) if isinstance(data, dict) else ()


def leases(api: str) -> tuple[Lease, ...]:
    """The leases that are held now.

    Raises:
        RepositoryError: the gateway cannot be asked, or does not answer as one does.
    """
    data = _get(api, "leases")
    if not isinstance(data, dict):
        return ()
    return tuple(
        Lease(path=str(path), key=str(row.get("key_id", "")), expires=str(row.get("expires", "")))
        for path, row in sorted(data.items())
        if isinstance(row, dict)
    )


def overlap(path: str, other: str) -> bool:
    """True when of two lease paths one is the other or above it."""
    one, two = path.strip("/").split("/"), other.strip("/").split("/")
    common = min(len(one), len(two))
    return one[:common] == two[:common]


def _get(api: str, what: str) -> object:
    url = f"{api}/{what}"
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise RepositoryError(f"{api} is no http or https address of a gateway")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as response:
            answer = json.loads(response.read(_MOST_BYTES))
    except urllib.error.HTTPError as exc:
        exc.close()
        raise RepositoryError(f"the gateway {api} answers with HTTP status {exc.code}") from None
    except (OSError, http.client.HTTPException) as exc:
        reason = getattr(exc, "reason", exc) or exc
        raise RepositoryError(f"the gateway {api} cannot be reached: {reason}") from exc
    except ValueError:
        raise RepositoryError(f"{api} does not answer as a gateway does") from None
    if not isinstance(answer, dict) or answer.get("status") != "ok":
        raise RepositoryError(f"the gateway {api} answers {answer!r}")
    return answer.get("data")
