"""Whatever happens to a publisher, the repository is the old one or the new one, and the next publish works."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import resource
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import cvmfs_repository as repository
import pytest
from cvmfs_repository import Repo, file, graft, later

from publisher import tools
from publisher.cvmfs.check import check
from publisher.cvmfs.digest import ObjectKind
from publisher.cvmfs.lock import Holder
from publisher.errors import AfpubError, DiskError, TransactionOpenError, TrustError

HERE = Path(__file__).parent


@pytest.fixture
def repo(tmp_path) -> Repo:
    made = repository.make(tmp_path / "repo")
    made.publish(
        graft("/sw/one", file("f", b"old one"), catalogs=("",)),
        graft("/sw/two", file("f", b"old two"), file("n/f", b"old n"), catalogs=("", "n")),
    )
    return made


def clean(repo: Repo) -> None:
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    assert check(repo.folder, public_key=key, now=later(9), all_tags=True).findings == ()
    assert list((repo.folder / "data" / "txn").iterdir()) == []


def program(script: str, *words: str | Path, **more) -> tools.Completed:
    path = os.pathsep.join((str(HERE.parent), str(HERE.parent.parent)))
    return tools.run([sys.executable, HERE / script, *words], env={**os.environ, "PYTHONPATH": path}, **more)


def test_second_publisher_is_told_who_holds_the_repository(repo):
    with holder(repo, seconds=4) as pid:
        with pytest.raises(TransactionOpenError) as caught:
            repo.publish(graft("/a", file("f", b"1")), at=later(1))
        user = pwd.getpwuid(os.getuid()).pw_name
        who = f"process {pid} of {user} on {socket.gethostname()}, since "
        assert caught.value.message.startswith(f"the repository {repo.folder} is held by another publisher: {who}")
        assert caught.value.hint == "wait until it is done, or say how long: --wait SECONDS"
        assert repo.publish(graft("/a", file("f", b"1")), at=later(1), wait_s=60).revision == 3
    clean(repo)


@contextlib.contextmanager
def holder(repo: Repo, *, seconds: float):
    """Another process that holds the repository; its process number."""
    held = threading.Event()
    thread = threading.Thread(
        target=program,
        args=("publisher_holder.py", repo.folder, repo.keys, str(seconds)),
        kwargs={"on_line": lambda line: held.set()},
    )
    thread.start()
    try:
        assert held.wait(60)
        yield json.loads((repo.folder / ".afpub" / "lock").read_text())["pid"]
    finally:
        thread.join()


@pytest.mark.parametrize(
    "said",
    [
        {"pid": 1, "host": "gone", "since": "long ago", "boot": Holder.own().boot, "started": 7},  # a container
        {"pid": 1, "host": socket.gethostname(), "since": "long ago", "boot": "another"},  # it was started anew
        {"pid": os.getpid(), "host": socket.gethostname(), "boot": Holder.own().boot, "started": 7},  # reused number
        "torn",
        {},
    ],
)
def test_lock_of_a_dead_publisher_does_not_matter(repo, said):
    text = json.dumps(said) if isinstance(said, dict) else '{"pid": 1, "ho'
    (repo.folder / ".afpub" / "lock").write_text(text if said else "")
    (repo.folder / "data" / "txn" / "afpub-1-0").write_bytes(b"left by a dead publisher")
    repo.publish(graft("/a", file("f", b"1")), at=later(1))
    clean(repo)


def test_lock_of_another_host_is_explained(repo):
    lock = repo.folder / ".afpub" / "lock"
    said = {"pid": 12, "started": 7, "boot": "other", "host": "far.example.org", "user": "alice", "since": "noon"}
    lock.write_text(json.dumps(said))
    for _ in range(2):
        with pytest.raises(TransactionOpenError) as caught:
            repo.publish(graft("/a", file("f", b"1")), at=later(1))
        assert caught.value.message == (
            f"the repository {repo.folder} was left locked by process 12 of alice on far.example.org, since noon: "
            "whether that process still works cannot be seen from here"
        )
        remedy = f"look on far.example.org; when it does not run there any more, remove {lock}"
        assert caught.value.hint == remedy
    lock.unlink()
    repo.publish(graft("/a", file("f", b"1")), at=later(1))
    clean(repo)


def test_lock_that_the_file_system_does_not_keep(repo, tmp_path):
    """Its holder runs, and yet it is free: two publishers at once would lose what one of them did."""
    with tools.spawn(["sleep", "60"], log=tmp_path / "log") as pid:
        started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        said = asdict(replace(Holder.own(), pid=pid, started=started))
        (repo.folder / ".afpub" / "lock").write_text(json.dumps(said))
        with pytest.raises(TransactionOpenError, match=r"; the file system does not keep its lock$"):
            repo.publish(graft("/a", file("f", b"1")), at=later(1))
    repo.publish(graft("/a", file("f", b"1")), at=later(1))
    clean(repo)


def test_publisher_that_died_but_not_what_it_started(repo):
    lock = repo.folder / ".afpub" / "lock"
    with lock.open("w") as file_:
        json.dump(asdict(replace(Holder.own(), pid=2**22 + 1)), file_)
        file_.flush()
        fcntl.flock(file_, fcntl.LOCK_EX)
        with pytest.raises(TransactionOpenError, match=r"; it has ended, but a process that it started still runs$"):
            repo.publish(graft("/a", file("f", b"1")), at=later(1))
    repo.publish(graft("/a", file("f", b"1")), at=later(1))
    clean(repo)


@pytest.fixture
def little_disk(tmp_path, require_tool, require_root):
    """A file system of 4 MiB."""
    place = tmp_path / "little"
    place.mkdir()
    mount = require_tool("mount")
    done = tools.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=False)
    if not done.ok:
        pytest.skip(f"no file system can be mounted here: {done.tail}")
    yield place
    tools.run([require_tool("umount"), place])


def test_full_disk(little_disk):
    repo = repository.make(little_disk / "repo")
    repo.publish(graft("/a", file("f", b"1")))
    before = (repo.folder / ".cvmfspublished").read_bytes()
    with pytest.raises(DiskError) as caught:
        repo.publish(graft("/b", file("big", hashlib.shake_128(b"big").digest(8 << 20))), at=later(1))
    assert "No space left on device" in caught.value.message
    assert str(repo.folder) in caught.value.message
    assert caught.value.hint == "make room on the disk and run it again"
    assert (repo.folder / ".cvmfspublished").read_bytes() == before
    clean(repo)
    repo.publish(graft("/b", file("small", b"fits")), at=later(2))
    clean(repo)


def test_disk_that_is_full_at_any_later_step(repo, monkeypatch):
    """Each call that writes fails once, one publish after the other."""
    before = (repo.folder / ".cvmfspublished").read_bytes()
    steps = 0
    messages = set()
    while True:
        steps += 1
        with monkeypatch.context() as patch:
            left = [steps]

            def failing(descriptor, data, left=left, write=os.write):
                left[0] -= 1
                if left[0] == 0:
                    raise OSError(28, "No space left on device")
                return write(descriptor, data)

            patch.setattr(os, "write", failing)
            try:
                repo.publish(graft("/b", file("x/f", b"new"), file("y", b"y"), catalogs=("", "x")), at=later(1))
            except DiskError as exc:
                messages.add(exc.message.rpartition(": ")[2])
            else:
                break
        assert (repo.folder / ".cvmfspublished").read_bytes() == before
        assert not list(repo.folder.rglob("*.new-*"))
        with repo.open() as reader:
            assert reader.lookup("b") is None
    assert steps > 7
    assert messages == {"No space left on device"}
    clean(repo)


def test_file_size_limit(repo):
    """A limit of the system for written files, as batch systems set it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DiskError, match="File too large"):
            repo.publish(graft("/b", file("f", hashlib.shake_128(b"f").digest(200_000))), at=later(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    clean(repo)


def test_interrupted(repo):
    """Ctrl-C in the middle of the contents."""

    def interrupt(state) -> None:
        if state.files_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repo.publish(graft("/b", file("f", b"new")), at=later(1), progress=interrupt)
    with repo.open() as reader:
        assert reader.lookup("b") is None
    clean(repo)
    repo.publish(graft("/b", file("f", b"new")), at=later(2))
    clean(repo)


def test_damaged_and_missing_objects_are_named(repo):
    with repo.open() as reader:
        stored = reader.lookup("sw/one/f")
    name = stored.digest.object_name(ObjectKind.FILE)
    path = repo.folder / name
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\0")
    with repo.open() as reader, pytest.raises(TrustError) as caught:
        list(reader.read("sw/one/f"))
    assert f"the object {name} of {repo.folder} is damaged: its digest is " in caught.value.message
    path.unlink()
    with repo.open() as reader, pytest.raises(AfpubError) as caught:
        list(reader.read("sw/one/f"))
    assert caught.value.message == f"the object {name} is missing in {repo.folder}"


def test_waiting_ends(repo):
    with holder(repo, seconds=3):
        start = time.monotonic()
        with pytest.raises(TransactionOpenError):
            repo.publish(graft("/a", file("f", b"1")), at=later(1), wait_s=0.5)
        assert time.monotonic() - start >= 0.5
    clean(repo)


def test_reflog_that_is_damaged_stops_a_publish(repo):
    path = repo.folder / ".cvmfsreflog"
    path.write_bytes(b"no database")
    with pytest.raises(AfpubError) as caught:
        repo.publish(graft("/a", file("f", b"1")), at=later(1))
    assert caught.value.message == "the reflog .cvmfsreflog is no SQLite database"
    assert caught.value.hint == f"remove {path} to have it made anew from the tags"
    path.unlink()
    repo.publish(graft("/a", file("f", b"1")), at=later(1))
    clean(repo)
