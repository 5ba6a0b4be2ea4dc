"""Where repositories are read from: a folder, or a web server."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from publisher.cvmfs.compression import Compression, decompress
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.errors import FormatError, NotFoundError, RepositoryError, TrustError, UsageError

BLOCK_BYTES = 1 << 18
"""How much is read at once."""
_TIMEOUT_S = 30.0
_ATTEMPTS = 3
SMALL_FILE_LIMIT = 1 << 20
"""Most bytes of a manifest or whitelist."""
_REPAIR_HINT = "afpub repo fsck finds all damage; --repair with --mirror fetches what is lost"
_SCHEMES = ("http", "https")


class Source(Protocol):
    """The files of one repository."""

    @property
    def where(self) -> str:
        """The folder or address, for messages."""
        ...

    def open(self, name: str) -> BinaryIO:
        """The bytes of a file, given by its path below the repository folder.

        Raises:
            NotFoundError: it is not there.
            RepositoryError: it cannot be read.
        """
        ...


class FolderSource:
    """A repository in a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    def open(self, name: str) -> BinaryIO:
        """See :class:`Source`."""
        path = self.folder / name
        try:
            return path.open("rb")
        except FileNotFoundError:
            raise NotFoundError(f"there is no {path}") from None
        except OSError as exc:
            raise RepositoryError(f"cannot read {path}: {exc.strerror}") from exc


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web servers only: never to files of this machine."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0913, PLR0917 - as in the base class
        """The request that follows a redirect, or nothing where it leads away from the web."""
        if urllib.parse.urlsplit(newurl).scheme not in _SCHEMES:
            raise RepositoryError(f"{req.full_url} redirects to {newurl}, which is no web address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class WebSource:
    """A repository on a web server."""

    def __init__(self, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
            raise UsageError(
                f"{url!r} is no http or https address",
                hint="give a folder, or an address such as http://host/cvmfs/NAME",
            )
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _SameSchemes(),
        ):
            self._opener.add_handler(handler)

    @property
    def where(self) -> str:
        """The address."""
        return self.url

    def open(self, name: str) -> BinaryIO:
        """See :class:`Source`; a server that is not reached is asked three times."""
        url = f"{self.url}/{urllib.parse.quote(name)}"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response: BinaryIO = self._opener.open(url, timeout=self._timeout_s)
                return response  # noqa: TRY300 - the retries are what the other ways out lead to
            except urllib.error.HTTPError as exc:
                exc.close()
                if exc.code in {404, 410}:
                    raise NotFoundError(f"there is no {url}") from None
                reason: object = f"HTTP status {exc.code}"
                if exc.code < 500:
                    raise RepositoryError(f"cannot read {url}: {reason}") from None
            except (OSError, http.client.HTTPException) as exc:
                reason = getattr(exc, "reason", exc) or exc
            if attempt < _ATTEMPTS:
                time.sleep(0.2 * attempt)
        raise RepositoryError(f"cannot read {url}: {reason}", hint="check the address and the network")


def is_there(source: Source, name: str) -> bool:
    """True when a repository has a file of that name.

    Raises:
        RepositoryError: that cannot be told.
    """
    try:
        source.open(name).close()
    except NotFoundError:
        return False
    return True


def read_blocks(source: Source, name: str) -> Iterator[bytes]:
    """The bytes of a file, block by block.

    Raises:
        NotFoundError: it is not there.
        RepositoryError: it cannot be read.
    """
    with source.open(name) as file:
        while True:
            try:
                block = file.read(BLOCK_BYTES)
            except (OSError, http.client.HTTPException) as exc:
                raise RepositoryError(f"cannot read {name} of {source.where}: {exc}") from exc
            if not block:
                return
            yield block


def read_file(source: Source, name: str, *, limit: int = SMALL_FILE_LIMIT) -> bytes:
    """All bytes of a file.

    Raises:
        FormatError: it has more than ``limit`` bytes.
    """
    data = bytearray()
    for block in read_blocks(source, name):
        data += block
        if len(data) > limit:
            raise FormatError(f"{name} of {source.where} has more than {limit} bytes")
    return bytes(data)


def object_blocks(source: Source, digest: Digest, kind: ObjectKind) -> Iterator[bytes]:
    """The stored bytes of an object; the digest is checked behind the last one.

    Raises:
        RepositoryError: the object is missing or cannot be read.
        TrustError: its bytes are not those that its name promises.
    """
    name = digest.object_name(kind)
    hasher = digest.algorithm.hasher()
    try:
        for block in read_blocks(source, name):
            hasher.update(block)
            yield block
    except NotFoundError:
        raise RepositoryError(f"the object {name} is missing in {source.where}", hint=_hint(source)) from None
    if hasher.digest() != digest:
        raise TrustError(
            f"the object {name} of {source.where} is damaged: its digest is {hasher.digest()}", hint=_hint(source)
        )


def _hint(source: Source) -> str:
    return _REPAIR_HINT if isinstance(source, FolderSource) else ""


def object_contents(
    source: Source, digest: Digest, kind: ObjectKind, compression: Compression, *, limit: int
) -> Iterator[bytes]:
    """The contents of an object, piece by piece; only when the last one has come are they known to be right.

    Raises:
        RepositoryError: the object is missing or cannot be read.
        TrustError: its bytes are not those that its name promises.
        FormatError: it does not decompress, or has more than ``limit`` bytes.
    """
    blocks = object_blocks(source, digest, kind)
    try:
        yield from decompress(blocks, compression, limit=limit)
    except FormatError as exc:
        for _ in blocks:  # a wrong digest says more than what the decompressor stumbled over
            pass
        raise FormatError(f"the object {digest.object_name(kind)} of {source.where} {exc.message}") from None


def fetch(
    source: Source,
    digest: Digest,
    kind: ObjectKind,
    *,
    limit: int,
    compression: Compression = Compression.ZLIB,
) -> bytes:
    """All contents of an object, verified; raises as :func:`object_contents`."""
    return b"".join(object_contents(source, digest, kind, compression, limit=limit))
