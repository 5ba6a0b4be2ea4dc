"""Changing how a repository is written."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.location import Location, storage_of
from publisher.cvmfs.lock import hold
from publisher.cvmfs.settings import SETTINGS_NAME, Settings, encode_settings, read_settings, with_values


def change_settings(location: Location, assignments: Iterable[str], *, algorithm: Algorithm) -> Settings:
    """Changes the settings of a repository, for all publishes from now on; what is published stays as it is.

    Raises:
        UsageError, RepositoryError, NameInvalidError: see :func:`with_values`.
        TransactionOpenError: somebody publishes.
    """
    storage = storage_of(location)
    with hold(storage):
        storage.read_state(SETTINGS_NAME)  # where the lock is not everybody's, only this one is replaced
        settings = with_values(read_settings(storage, algorithm=algorithm), assignments)
        storage.put_state(SETTINGS_NAME, encode_settings(settings))
    return settings
