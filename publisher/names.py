"""Names that are valid by construction; code past the constructor never checks them again."""

from __future__ import annotations

import re
from typing import Self

from packaging.version import InvalidVersion, Version

from publisher.errors import NameInvalidError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_MAX_FQRN_LENGTH = 60
"""Longest repository name that every CVMFS tool takes."""


class _Name(str):
    """A lower-case name that is safe in PATH, JUPYTER_PATH, ``--bind`` and URLs."""

    __slots__ = ()
    what = "name"

    def __new__(cls, text: str) -> Self:
        """Checks the text and keeps it."""
        if not _NAME.fullmatch(text) or text.endswith("."):
            raise NameInvalidError(
                f"{text!r} is no {cls.what}",
                hint="use lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit",
            )
        return super().__new__(cls, text)


class ImageName(_Name):
    """The name of an image: a folder below ``images/``."""

    __slots__ = ()
    what = "image name"


class KernelName(_Name):
    """The name of a kernel: a folder below ``kernelspecs/``; stable across releases."""

    __slots__ = ()
    what = "kernel name"


class ChannelName(_Name):
    """The name of a channel, such as ``testing`` or ``stable``."""

    __slots__ = ()
    what = "channel name"


class SiteName(_Name):
    """The name of a site: a file below ``manifests/sites/``."""

    __slots__ = ()
    what = "site name"


class ImageVersion(_Name):
    """The version of an image: the folder name below ``images/<image>/`` in the published tree."""

    __slots__ = ()
    what = "image version"


class ReleaseVersion(_Name):
    """A release version: PEP 440 in its normal form, calendar by convention (``2026.11.1``)."""

    __slots__ = ()
    what = "release version"

    def __new__(cls, text: str) -> Self:
        """Checks the text and keeps it."""
        try:
            parsed = Version(text)
        except InvalidVersion:
            raise NameInvalidError(
                f"{text!r} is no release version",
                hint="use a PEP 440 version, calendar by convention, such as 2026.11.1",
            ) from None
        if str(parsed) != text or parsed.local or parsed.epoch:
            public = parsed.public.split("!")[-1]
            raise NameInvalidError(f"{text!r} is not in normal form", hint=f"write {public!r}")
        return super().__new__(cls, text)

    @property
    def order(self) -> Version:
        """The value that sorts releases as PEP 440 does."""
        return Version(self)


class TagName(str):
    """A CVMFS tag name, restricted to what every server tool passes on unharmed."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Checks the text and keeps it."""
        if not _TAG.fullmatch(text) or text in {"trunk", "trunk-previous"}:
            raise NameInvalidError(
                f"{text!r} is no tag name",
                hint="use letters, digits, '.', '_' and '-', but not 'trunk' or 'trunk-previous'",
            )
        return super().__new__(cls, text)


class Fqrn(str):
    """A fully qualified repository name, such as ``demo.afpub.example``."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Checks the text and keeps it."""
        labels = text.split(".")
        valid = len(labels) >= 2 and all(_LABEL.fullmatch(label) for label in labels)
        if not valid or len(text) > _MAX_FQRN_LENGTH:
            raise NameInvalidError(
                f"{text!r} is no repository name",
                hint=f"use a name such as kernels.example.org, of at most {_MAX_FQRN_LENGTH} characters",
            )
        return super().__new__(cls, text)


class RepoPath(str):
    """A path inside a repository: ``""`` is the root, everything else ``/a/b`` (no ``.``, ``..``, ``//``)."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Checks the text and keeps it."""
        if text in {"", "/"}:
            return super().__new__(cls, "")
        parts = text.split("/")
        if parts[0] or len(parts) < 2 or any(part in {"", ".", ".."} for part in parts[1:]) or "\0" in text:
            raise NameInvalidError(
                f"{text!r} is no path in a repository", hint="write it from the root, such as /af/images"
            )
        return super().__new__(cls, text)

    def __truediv__(self, name: str) -> RepoPath:
        return RepoPath(f"{self}/{name}")

    @property
    def parent(self) -> RepoPath:
        """The folder that holds this path; the root is its own parent."""
        return RepoPath(self.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The last component; empty for the root."""
        return self.rpartition("/")[2]
