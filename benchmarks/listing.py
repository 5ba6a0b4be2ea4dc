"""What garbage collection and fsck hold in memory for a very big repository; the listing is made up, nothing is asked.

.venv/bin/python benchmarks/listing.py [--objects 10000000]
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator

from publisher.cvmfs.check_catalog import Reference
from publisher.cvmfs.check_objects import References
from publisher.cvmfs.compression import Compression
from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.gc import _Sums, _sweep
from publisher.cvmfs.marking import Marks
from publisher.cvmfs.s3.storage import S3Storage


class _Bucket(S3Storage):
    """A bucket that has so many objects."""

    def __init__(self, objects: int) -> None:  # there is no server to talk to
        self._objects = objects

    def folders(self) -> Iterator[list[tuple[str, int]]]:
        for number in range(256):
            yield sorted((f"data/{_text(number, each)}", 1000) for each in range(self._objects // 256))


def _text(number: int, each: int) -> str:
    return f"{number:02x}/{each * 0x9E3779B97F4A7C15 % (1 << 64):016x}{each:022x}"


def _tell(what: str, start: float) -> None:
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    sys.stdout.write(f"{what}: at most {memory_mb:.0f} MB so far, {time.monotonic() - start:.0f} s\n")
    sys.stdout.flush()


def main() -> None:
    """Marks half of the objects, goes through the listing, and then does what a check does with references."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000_000)
    objects = parser.parse_args().objects
    _tell("started", start := time.monotonic())
    marks = Marks()
    for each in range(objects // 256):
        for number in range(256):
            if each % 2:
                marks.add(bytes.fromhex(_text(number, each).replace("/", "")), ObjectKind.FILE)
    _tell(f"{objects // 2:,} objects marked", start)
    bucket, sums = _Bucket(objects), _Sums()
    _sweep(bucket, marks, sums, remove=False, tell=None)
    _tell(f"gc: {sums.kept:,} kept, {sum(sums.removed.values()):,} would go", start)
    references = References()
    for each in range(objects // 256):
        for number in range(256):
            digest = Digest(raw=bytes.fromhex(_text(number, each).replace("/", "")), algorithm=Algorithm.SHA1)
            where = f"/sw/release/package/{each}/module{number}.py"
            references.add(
                Reference(
                    digest=digest, kind=ObjectKind.FILE, compression=Compression.ZLIB, size_bytes=each, where=where
                )
            )
    _tell(f"{objects:,} references with their paths", start)
    missing = 0
    for number, listed in enumerate(bucket.folders()):
        missing += len(references.folder(number).keys() - {name for name, _ in listed})
    _tell(f"fsck: {missing} missing", start)


if __name__ == "__main__":
    main()
