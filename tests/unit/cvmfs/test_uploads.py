"""Uploads beside the packing, and what is known to be in a bucket: in the library's own store in memory."""

from __future__ import annotations

import threading
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from publisher.cvmfs.bucket import Bucket
from publisher.cvmfs.s3 import inventory as knowing
from publisher.cvmfs.s3 import uploads as uploading
from publisher.cvmfs.s3.connection import Connection
from publisher.cvmfs.s3.inventory import Inventory
from publisher.cvmfs.s3.uploads import Uploads
from publisher.errors import RepositoryError
from publisher.progress import Silent


class Server(Connection):
    """A bucket in memory; counts what it is asked."""

    def __init__(self, objects=()):
        super().__init__(Bucket(name="b"))
        self.store = MemoryStore()
        self.heads, self.listed = [], []
        for name in objects:
            obstore.put(self.store, name, b"x" * 7)

    def size_of(self, name):
        self.heads.append(name)
        return super().size_of(name)

    def listing(self, folder):
        self.listed.append(folder)
        return super().listing(folder)


def name_of(number, folder=0):
    return f"data/{folder:02x}/{number:038x}"


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def uploads(server):
    made = Uploads(server, Inventory(server), Silent())
    yield made
    made.stop()


@pytest.fixture
def waiting(tmp_path):
    """Makes files that wait to be sent."""

    def make(count, size=100):
        files = {name_of(number): tmp_path / f"{number}" for number in range(count)}
        for path in files.values():
            path.write_bytes(b"y" * size)
        return files

    return make


class Gate:
    """Lets uploads begin, and end when it is opened; knows how many bytes were under way at most."""

    def __init__(self, monkeypatch):
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.bytes = self.most = 0
        self.multipart = []
        self._lock = threading.Lock()
        usual = obstore.put

        def put(store, name, data, **more):
            size = Path(data).stat().st_size
            with self._lock:
                self.bytes += size
                self.most = max(self.most, self.bytes)
                self.multipart.append((size, more["use_multipart"]))
            self.begun.release()
            assert self.open.wait(20)
            with self._lock:
                self.bytes -= size
            return usual(store, name, data, **more)

        monkeypatch.setattr(obstore, "put", put)


def test_objects_are_sent_before_they_are_waited_for(server, uploads, waiting):
    files = waiting(50)
    for name, path in files.items():
        uploads.begin(name, f"{path}")
        uploads.begin(name, f"{path}")  # is under way
    assert uploads.finish(files) == []
    assert {item["path"] for page in obstore.list(server.store) for item in page} == set(files)
    assert not any(path.exists() for path in files.values())
    assert uploads.finish([]) == []
    with pytest.raises(RepositoryError, match=f"{name_of(0)} was not sent to s3://b"):
        uploads.finish([name_of(0)])


def test_what_is_there_is_not_sent_again(server, uploads, waiting, monkeypatch):
    files = waiting(3)
    obstore.put(server.store, name_of(1), b"z" * 100)
    obstore.put(server.store, name_of(2), b"cut short")
    sent = []
    usual = obstore.put
    monkeypatch.setattr(obstore, "put", lambda store, name, data, **more: sent.append(name) or usual(store, name, data))
    for name, path in files.items():
        uploads.begin(name, f"{path}")
    assert uploads.finish(files) == [(name_of(1), 100)]
    assert sorted(sent) == [name_of(0), name_of(2)]
    assert not any(path.exists() for path in files.values())


def test_the_queue_is_bounded(uploads, waiting, monkeypatch):
    """Who packs waits when enough is waiting already, and goes on when something was sent."""
    monkeypatch.setattr(uploading, "_QUEUE_BYTES", 1000)
    gate = Gate(monkeypatch)
    files = list(waiting(12).items())
    taken = []

    def pack():
        for name, path in files:
            uploads.begin(name, f"{path}")
            taken.append(name)

    packing = threading.Thread(target=pack)
    packing.start()
    for _ in range(10):
        assert gate.begun.acquire(timeout=20)
    packing.join(0.3)
    assert packing.is_alive()
    assert len(taken) == 10
    gate.open.set()
    packing.join(20)
    assert len(taken) == 12
    uploads.finish(taken)


def test_memory_is_bounded_and_only_what_is_bigger_goes_in_parts(uploads, waiting, monkeypatch):
    """A part that was sent stays in the server when the publisher dies: for what is usual there are none."""
    monkeypatch.setattr(uploading, "_MEMORY_BYTES", 250)
    gate = Gate(monkeypatch)
    gate.open.set()
    files = waiting(30)
    big = files[name_of(7)]
    big.write_bytes(b"b" * 600)
    for name, path in files.items():
        uploads.begin(name, f"{path}")
    uploads.finish(files)
    assert sorted(gate.multipart) == [*[(100, False)] * 29, (600, True)]
    assert 0 < gate.most <= 600


def test_a_failure_is_told_once_and_the_rest_can_be_sent_again(server, uploads, waiting, monkeypatch):
    usual, failing = obstore.put, [name_of(5)]

    def put(store, name, data, **more):
        if name in failing:
            raise GenericError("Generic S3 error: the disk is full")
        return usual(store, name, data, **more)

    monkeypatch.setattr(obstore, "put", put)
    files = waiting(20)

    def send():
        for name, path in files.items():
            uploads.begin(name, f"{path}")
        uploads.finish(files)

    with pytest.raises(RepositoryError, match=f"cannot write {name_of(5)} to s3://b: the server: the disk is full"):
        send()
    assert files[name_of(5)].exists()
    failing.clear()
    send()
    assert {item["path"] for page in obstore.list(server.store) for item in page} == set(files)


def test_nothing_is_read_after_stop(server, uploads, waiting, monkeypatch):
    gate = Gate(monkeypatch)
    files = waiting(40)
    for name, path in files.items():
        uploads.begin(name, f"{path}")
    assert gate.begun.acquire(timeout=20)
    stopping = threading.Thread(target=uploads.stop)
    stopping.start()
    stopping.join(0.3)
    assert stopping.is_alive(), "a file is being read"
    gate.open.set()
    stopping.join(20)
    there = {item["path"] for page in obstore.list(server.store) for item in page}
    assert 0 < len(there) <= 16
    assert {name for name, path in files.items() if not path.exists()} == there
    # and everything can begin anew
    for name, path in files.items():
        if path.exists():
            uploads.begin(name, f"{path}")
    uploads.finish(set(files) - there)
    assert not any(path.exists() for path in files.values())


def test_a_small_bucket_is_listed_after_some_questions():
    server = Server([name_of(number, number % 256) for number in range(600)])
    known = Inventory(server)
    assert [known.size(name_of(number, number % 256)) for number in range(600)] == [7] * 600
    assert known.size(name_of(601, 5)) is None
    assert len(server.heads) == 32
    assert len(server.listed) == 257
    known.note(name_of(601, 5), 9)
    known.note(name_of(0, 0), 8)
    assert (known.size(name_of(601, 5)), known.size(name_of(0, 0))) == (9, 8)
    known.clear()
    assert known.size(name_of(601, 5)) is None


def test_a_big_bucket_is_never_listed(monkeypatch):
    monkeypatch.setattr(knowing, "_MOST_LISTED", 1)
    names = [name_of(number, number % 256) for number in range(600)]
    server = Server(names)
    known = Inventory(server)
    known.look(names)
    assert len(server.heads) == 600
    assert len(server.listed) == 1
    assert [known.size(name) for name in names] == [7] * 600
    assert len(server.heads) == 600, "each was asked for once"


def test_answers_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(knowing, "_REMEMBERED", 10)
    server = Server()
    known = Inventory(server)
    for number in range(25):
        known.size(name_of(number))
    assert len(known._asked) <= 10
