"""A stand-in for ``cvmfs_server``: its commands, files, states and exit codes, on our own repository engine.

The union mount is imitated by a plain folder, so that neither root nor a kernel module is needed:

    ROOT/etc/repositories.d/FQRN/server.conf   ROOT/etc/keys/
    ROOT/spool/FQRN/                           in_transaction.lock, is_publishing.lock, reflog.chksum, scratch/
    ROOT/cvmfs/FQRN/                           the files of the newest revision
    ROOT/srv/FQRN/                             the repository

``ROOT/faults.json`` says which command fails, and how: ``{"publish": "after-signing"}``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp

from publisher.cvmfs.compression import Compression
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.keys import create_keys
from publisher.cvmfs.publish import publish
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.settings import Settings
from publisher.cvmfs.source import FolderSource, fetch
from publisher.cvmfs.tags import add_tag, remove_tag
from publisher.errors import AfpubError
from publisher.names import Fqrn, RepoPath, TagName
from publisher.tree import FolderTree, Graft, Kind

_GRAFT = ".cvmfsgraft-"
_CONF = """\
# Created by cvmfs_server.
CVMFS_CREATOR_VERSION=143
CVMFS_REPOSITORY_NAME={fqrn}
CVMFS_REPOSITORY_TYPE=stratum0
CVMFS_USER={user}
CVMFS_UNION_DIR={root}/cvmfs/{fqrn}
CVMFS_SPOOL_DIR={root}/spool/{fqrn}
CVMFS_STRATUM0={url}
CVMFS_UPSTREAM_STORAGE={upstream}
CVMFS_PUBLIC_KEY={root}/etc/keys/{fqrn}.pub
CVMFS_USE_FILE_CHUNKING=true
CVMFS_MIN_CHUNK_SIZE=4194304
CVMFS_AVG_CHUNK_SIZE=8388608
CVMFS_MAX_CHUNK_SIZE=16777216
CVMFS_UNION_FS_TYPE=""
CVMFS_HASH_ALGORITHM=sha1
CVMFS_COMPRESSION_ALGORITHM=default
CVMFS_AUTO_TAG=true
CVMFS_AUTOCATALOGS=false
"""


class Stop(Exception):  # noqa: N818 - an exit code
    """Ends the program."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def now() -> dt.datetime:
    return dt.datetime.now(tz=dt.UTC)


@cache
def keys_for(fqrn: Fqrn) -> Path:
    """One set of keys for all tests of a run: making them takes most of a second."""
    folder = Path(mkdtemp(prefix="afpub-test-keys-"))
    create_keys(fqrn, folder, now=now())
    return folder


class StandIn:
    """One repository of one imitated server."""

    def __init__(self, root: Path, fqrn: str) -> None:
        self.root, self.fqrn = root, Fqrn(fqrn)
        self.spool = root / "spool" / fqrn
        self.union = root / "cvmfs" / fqrn
        self.storage = root / "srv" / fqrn
        self.keys = root / "etc" / "keys"
        self.conf = root / "etc" / "repositories.d" / fqrn / "server.conf"
        self.lock = self.spool / "in_transaction.lock"
        self.token = self.spool / "session_token"

    def create(self, *, user: str, gateway: str = "") -> None:
        """What ``cvmfs_server mkfs`` makes."""
        for folder in (self.spool / "scratch/current", self.spool / "rdonly", self.union, self.conf.parent):
            folder.mkdir(parents=True)
        shutil.copytree(keys_for(self.fqrn), self.keys)
        create_repository(self.storage, self.fqrn, keys_folder=self.keys, settings=Settings(), now=now())
        upstream = f"gw,/srv/txn,{gateway}" if gateway else f"local,{self.storage}/data/txn,{self.storage}"
        url = f"{gateway.partition('/api')[0]}/cvmfs/{self.fqrn}" if gateway else f"http://127.0.0.1:9/{self.fqrn}"
        self.conf.write_text(_CONF.format(fqrn=self.fqrn, root=self.root, user=user, upstream=upstream, url=url))
        if gateway:
            (self.keys / f"{self.fqrn}.gw").write_text("plain_text key1 secret1\n")
        self.settle()

    def program(self) -> Path:
        """A program ``cvmfs_server`` for this server."""
        path = self.root / "bin" / "cvmfs_server"
        path.parent.mkdir(exist_ok=True)
        package = Path(__file__).parent.parent
        path.write_text(f'#!/bin/sh\nPYTHONPATH="{package}" exec "{sys.executable}" "{__file__}" "{self.root}" "$@"\n')
        path.chmod(0o755)
        return path

    def faults(self) -> dict[str, str]:
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.root / "faults.json").read_text())
        return {}

    def settle(self) -> None:
        """Puts the newest revision into the union folder, and notes the reflog's digest."""
        for path in self.union.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(self.spool / "scratch/current")
        (self.spool / "scratch/current").mkdir()
        self.note_reflog()
        with open_repository(self.storage) as reader:
            rows = list(reader.walk())
            for stored in rows:
                path = self.union / stored.path
                if stored.entry.kind is Kind.DIRECTORY:
                    path.mkdir(exist_ok=True)
                elif stored.entry.kind is Kind.SYMLINK:
                    path.symlink_to(stored.entry.target)
                else:
                    path.write_bytes(b"".join(reader.read(stored)))
            for stored in reversed(rows):
                path = self.union / stored.path
                if stored.entry.kind is not Kind.SYMLINK:
                    path.chmod(stored.entry.mode)
                os.utime(path, (stored.entry.mtime_s,) * 2, follow_symlinks=False)

    # --- commands ------------------------------------------------------------------------------------------

    def transaction(self, words: list[str]) -> None:
        where = words[-1]
        if self.faults().get("transaction") == "endpoint":
            raise Stop(5, f"{self.union}: Transport endpoint is not connected")
        if self.lock.exists():
            raise Stop(errno.EEXIST, "another transaction is already open")
        self.require_whitelist(errno.EINVAL)
        path = where.partition("/")[2]
        if path:
            with open_repository(self.storage) as reader:
                above = reader.lookup(path.rpartition("/")[0])
            if above is None:
                raise Stop(errno.ENOENT, f"cannot open transaction on non-existing path {path}")
            if above.entry.kind is not Kind.DIRECTORY:
                raise Stop(errno.ENOTDIR, f"cannot open transaction on {path}, which is not a directory")
        self.acquire(where)
        self.lock.touch(mode=0o600)

    def acquire(self, where: str) -> None:
        """Gets a lease, where there is a gateway."""
        if not self.gateway():
            return
        answer = self.call("POST", "leases", {"path": where, "api_version": "3", "hostname": "standin"})
        if answer["status"] == "path_busy":
            raise Stop(errno.EBUSY, "repository busy")
        if answer["status"] != "ok":
            raise Stop(5, f"gateway: {answer.get('reason', '')}")
        self.token.write_text(answer["session_token"])

    def gateway(self) -> str:
        text = self.conf.read_text()
        return text.partition("gw,/srv/txn,")[2].partition("\n")[0]

    def call(self, method: str, what: str, data: object) -> dict:
        request = urllib.request.Request(f"{self.gateway()}/{what}", method=method, data=json.dumps(data).encode())
        request.add_header("Authorization", "key1 c2lnbmF0dXJl")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.loads(response.read())
        except urllib.error.URLError as exc:
            raise Stop(1, f"gateway: {exc}") from exc

    def require_whitelist(self, code: int) -> None:
        public = (self.keys / f"{self.fqrn}.pub").read_bytes()
        try:
            open_repository(self.storage, public_key=public, now=now()).close()
        except AfpubError as exc:
            raise Stop(code, f"{exc.message}") from exc

    def publish(self, words: list[str]) -> None:
        options = dict(pairwise(words))
        tag, description = options.get("-a", ""), options.get("-m", "")
        fault = self.faults().get("publish", "")
        if tag and self.has_tag(tag):
            raise Stop(1, f"Tag name '{tag}' is already in use.")
        if not self.lock.exists():
            raise Stop(1, f"Repository {self.fqrn} is not in a transaction")
        self.require_whitelist(1)
        if Path.cwd().is_relative_to(self.union):
            raise Stop(1, f"Current working directory is in {self.union}.")
        with self.publishing():
            if fault == "before":
                raise Stop(1, "Synchronization failed")
            if fault == "killed":
                os.kill(os.getpid(), 9)
            self.commit(tag, description)
            if fault == "after-signing":
                raise Stop(1, "Root hash update failed")
            self.settle()
            self.lock.unlink()

    @contextlib.contextmanager
    def publishing(self):
        descriptor = os.open(self.spool / "is_publishing.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Stop(1, "Another publish process is active") from None
        finally:
            os.close(descriptor)

    def commit(self, tag: str, description: str) -> None:
        if self.gateway():
            token = self.token.read_text()
            answer = self.call("GET", f"leases/{token}", None)
            if answer.get("status", "ok") != "ok":
                raise Stop(1, "lease invalid or expired")
        entries = tuple(self.entries())
        publish(
            self.storage,
            keys_folder=self.keys,
            now=now(),
            grafts=(Graft(at=RepoPath(""), tree=entries),),
            tag=TagName(tag or f"generic-{now():%Y-%m-%dT%H-%M-%S.%fZ}"),
            description=description,
        )
        if self.gateway():
            self.call("POST", f"leases/{self.token.read_text()}", {"tag_name": tag})
            self.token.unlink()

    def entries(self):
        """The union folder as a tree; descriptions are followed."""
        for entry in FolderTree(folder=self.union):
            if entry.name.startswith(_GRAFT):
                continue
            described = self.union / entry.parent / f"{_GRAFT}{entry.name}"
            if entry.kind is Kind.FILE and described.exists():
                content = self.described(described.read_text())
                yield entry._replace(content=content, size_bytes=len(content), link_group=0, mtime_ns=0)
            else:
                yield entry._replace(link_group=0, mtime_ns=0)

    def described(self, text: str) -> bytes:
        values = dict(line.split("=", 1) for line in text.splitlines())
        source = FolderSource(self.storage)
        compression = {"zlib": Compression.ZLIB, "none": Compression.NONE}[values["compression"]]
        names = [(values["checksum"], ObjectKind.FILE)]
        if "chunk_checksums" in values:
            names = [(name, ObjectKind.CHUNK) for name in values["chunk_checksums"].split(",")]
        size = int(values["size"])
        return b"".join(
            fetch(source, Digest.parse(name), kind, limit=size, compression=compression) for name, kind in names
        )

    def has_tag(self, tag: str) -> bool:
        with open_repository(self.storage) as reader:
            return any(each.name == tag for each in reader.tags())

    def abort(self, words: list[str]) -> None:
        if "-f" not in words and sys.stdin.readline().strip() not in {"y", "Y"}:
            raise Stop(errno.EINTR)
        if self.faults().get("abort") == "broken":
            raise Stop(errno.EIO, "publisher file system mount state is broken")
        if not self.lock.exists():
            raise Stop(errno.EINVAL, f"Repository {self.fqrn} is not in a transaction")
        if self.token.exists():
            with contextlib.suppress(Stop):
                self.call("DELETE", f"leases/{self.token.read_text()}", None)
            self.token.unlink()
        self.settle()
        self.lock.unlink()

    def tag(self, words: list[str]) -> None:
        options = dict(pairwise(words))
        if "-r" in options:
            remove_tag(self.storage, TagName(options["-r"]), keys_folder=self.keys, now=now())
        else:
            add_tag(self.storage, TagName(options["-a"]), keys_folder=self.keys, now=now())
        self.note_reflog()

    def note_reflog(self) -> None:
        with open_repository(self.storage) as reader:
            (self.spool / "reflog.chksum").write_text(f"{reader.manifest.reflog}")

    @staticmethod
    def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, top: Path) -> tarfile.TarInfo:
        path = top / member.name
        if path.is_symlink() or path.is_file():
            path.unlink()
        tar.extract(member, top, numeric_owner=True)
        return member

    def ingest(self, words: list[str]) -> None:
        options = dict(pairwise(words))
        self.transaction([self.fqrn])
        try:
            top = self.union / options["-b"]
            top.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
                done = [self.extract(tar, member, top) for member in tar]
            for member in reversed(done):
                if not member.isfile():  # what extract leaves, or changes again
                    os.utime(top / member.name, (member.mtime, member.mtime), follow_symlinks=False)
            with self.publishing():
                self.commit("", "")
        except (Stop, tarfile.TarError, OSError, AfpubError) as exc:
            self.abort(["-f", self.fqrn])
            raise Stop(1, f"Synchronization failed: {exc}") from exc
        self.settle()
        self.lock.unlink()


COMMANDS = ("transaction", "publish", "abort", "tag", "ingest")


def main() -> int:
    root, command, *words = sys.argv[1:]
    os.umask(0o022)
    fqrn = words[-1].partition("/")[0] if words else ""
    server = StandIn(Path(root), fqrn)
    if command not in COMMANDS or not server.conf.exists():
        sys.stderr.write(f"no command {command}, or no repository {fqrn}\n")
        return 1
    try:
        getattr(server, command)(words)
    except Stop as stop:
        sys.stderr.write(f"{stop.text}\n")
        return stop.code
    except AfpubError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
