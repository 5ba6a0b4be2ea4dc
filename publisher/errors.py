"""The one tree of errors. Only the command line catches them; ``docs/errors.md`` lists the exit codes."""

from __future__ import annotations

from typing import ClassVar

from publisher.report import Report


class AfpubError(Exception):
    """Something that cannot go on: what, where, and (as ``hint``) what to do about it."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        """Lines of somebody else's output that explain the failure, shown as they are."""


class CheckFailedError(AfpubError):
    """A check said no; what it found is in the report."""

    exit_code = 1

    def __init__(self, message: str, *, report: Report, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.report = report


class UsageError(AfpubError):
    """The command was used wrongly."""

    exit_code = 2


class ProjectError(AfpubError):
    """A file of the publishing project (TOML, recipe, kernel, manifest) is wrong."""

    exit_code = 3


class NameInvalidError(ProjectError):
    """A name is not legal."""


class RecipeError(ProjectError):
    """A recipe cannot be read."""


class BuildError(AfpubError):
    """An image could not be built."""

    exit_code = 4


class ToolError(AfpubError):
    """A program that afpub runs is missing or failed."""

    exit_code = 5


class KernelError(AfpubError):
    """A kernel could not be started or did not do what its definition says."""

    exit_code = 6


class RepositoryError(AfpubError):
    """A repository cannot be read or written."""

    exit_code = 7


class FormatError(RepositoryError):
    """Bytes in a repository are not what the CVMFS format says."""


class TrustError(AfpubError):
    """A signature, fingerprint, digest or expiry date is not right."""

    exit_code = 8


class AlreadyPublishedError(AfpubError):
    """The version is published already with other content."""

    exit_code = 9


class BusyError(AfpubError):
    """Somebody else is at work."""

    exit_code = 10


class TransactionOpenError(BusyError):
    """Another publisher holds the repository."""


class StaleBaseError(BusyError):
    """The repository moved on since the changeset was made."""


class DiskError(AfpubError):
    """A disk is full or cannot be read or written."""

    exit_code = 11


class NotFoundError(AfpubError):
    """What was asked for is not there."""

    exit_code = 12
