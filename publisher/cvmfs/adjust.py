"""Changing how a repository is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.disk import replace_file
from publisher.cvmfs.lock import hold
from publisher.cvmfs.settings import Settings, encode_settings, read_settings, settings_path, with_values


def change_settings(folder: Path, assignments: Iterable[str], *, algorithm: Algorithm) -> Settings:
    """Changes the settings of a repository, for all publishes from now on; what is published stays as it is.

    Raises:
        UsageError, RepositoryError, NameInvalidError: see :func:`with_values`.
        TransactionOpenError: somebody publishes.
    """
    with hold(folder):
        settings = with_values(read_settings(folder, algorithm=algorithm), assignments)
        replace_file(settings_path(folder), encode_settings(settings))
    return settings
