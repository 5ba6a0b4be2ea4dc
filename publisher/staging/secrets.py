"""Things that must not become readable for the whole world: everything that is published does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from publisher.errors import DiskError
from publisher.report import Finding, Report, collect, error
from publisher.tree import Entry, Kind

_SMALL_BYTES: Final = 1 << 20
_PLACES: Final = (
    (re.compile(r"(^|/)\.ssh/id_[a-z0-9_]+$"), "a private SSH key"),
    (re.compile(r"^etc/ssh/ssh_host_[a-z0-9_]+_key$"), "a private host key of SSH"),
    (re.compile(r"(^|/)\.(netrc|pypirc|git-credentials|pgpass)$"), "a file for passwords"),
    (re.compile(r"(^|/)\.(aws/credentials|docker/config\.json|kube/config)$"), "a file for access keys"),
    (re.compile(r"(^|/)\.globus/userkey\.pem$|(^|/)x509up_u\d+$"), "a grid key or proxy"),
    (re.compile(r"(^|/)\.bash_history$|(^|/)\.python_history$"), "somebody's command history"),
)
_SHADOW: Final = ("etc/shadow", "etc/shadow-", "etc/gshadow", "etc/gshadow-")
_PASSWORD = re.compile(r"^[^:]+:(\$|[./0-9A-Za-z]{13}:)", re.MULTILINE)
"""A crypt(3) hash in the second field; locked accounts have ``*`` or ``!`` there."""
_SETTINGS: Final = re.compile(r"(^|/)(pip\.conf|sources\.list|[^/]+\.sources|\.condarc|\.npmrc|\.curlrc|\.wgetrc)$")
_CREDENTIALS = re.compile(r"https?://[^/\s@]+:[^/\s@]+@")
_HINT: Final = "remove it at the end of %post; what is published is readable for everybody, for ever"


def check_secrets(entries: Sequence[Entry], *, where: str) -> Report:
    """An error for each key or password in a tree."""
    return collect(_findings(entries, where=where))


def _findings(entries: Sequence[Entry], *, where: str) -> Iterator[Finding]:
    for entry in entries:
        if entry.kind is not Kind.FILE or not entry.size_bytes:
            continue
        what = _secret(entry)
        if what:
            yield error("secret", f"{where}:/{entry.path}", f"holds {what}", hint=_HINT)


def _secret(entry: Entry) -> str:
    for pattern, what in _PLACES:
        if pattern.search(entry.path):
            return what
    if entry.path in _SHADOW and _PASSWORD.search(_text(entry)):
        return "the hash of a password"
    if _SETTINGS.search(entry.path) and _CREDENTIALS.search(_text(entry)):
        return "an address with a password in it"
    return ""


def _text(entry: Entry) -> str:
    if isinstance(entry.content, bytes):
        data = entry.content
    else:
        assert isinstance(entry.content, str)
        try:
            with Path(entry.content).open("rb") as file:
                data = file.read(_SMALL_BYTES)
        except OSError as exc:
            raise DiskError(f"cannot read {entry.content}: {exc.strerror}") from exc
    return data.decode(errors="replace")
