"""Every back-end that there is, each with an empty repository of its own."""

from __future__ import annotations

import datetime as dt

import pytest

from publisher.backends.embedded import EmbeddedBackend
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.keys import create_keys
from publisher.cvmfs.settings import Settings
from publisher.names import Fqrn

FQRN = Fqrn("contract.afpub.example")


def embedded(folder):
    now = dt.datetime.now(tz=dt.UTC)
    create_keys(FQRN, folder / "keys", now=now)
    create_repository(folder / "repository", FQRN, keys_folder=folder / "keys", settings=Settings(), now=now)
    return EmbeddedBackend(folder / "repository", fqrn=FQRN, keys=folder / "keys")


BACKENDS = {"embedded": embedded}


@pytest.fixture(params=sorted(BACKENDS))
def backend(request, tmp_path):
    """A back-end with an empty repository."""
    return BACKENDS[request.param](tmp_path)
