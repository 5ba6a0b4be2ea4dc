"""Publishes into a bucket and is killed at the n-th request that writes; started by test_bucket.py."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
from pathlib import Path

import obstore
from cvmfs_repository import file, graft

from publisher.cvmfs.location import storage_of
from publisher.cvmfs.publish import publish
from publisher.cvmfs.s3 import connection


def main(location: str, spool: str, keys: str, number: int, files: int) -> None:
    usual, left = obstore.put, [number]

    def put(*words, **more):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(*words, **more)

    obstore.put = put
    connection.THREADS = 1 if files < 1000 else connection.THREADS
    tree = graft("/a", *(file(f"f{each}", b"%d" % each) for each in range(files)))
    publish(
        storage_of(location, spool=Path(spool)), keys_folder=Path(keys), now=dt.datetime.now(tz=dt.UTC), grafts=(tree,)
    )


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
