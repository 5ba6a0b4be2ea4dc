"""The real CVMFS client."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from publisher import tools
from publisher.tree import FORMAT_OF_KIND, Entry, Kind

_SETTINGS = """\
CVMFS_SERVER_URL={url}
CVMFS_HTTP_PROXY=DIRECT
CVMFS_PUBLIC_KEY={public_key}
CVMFS_CACHE_BASE={cache}
CVMFS_RELOAD_SOCKETS={cache}
CVMFS_SHARED_CACHE=no
CVMFS_QUOTA_LIMIT=4000
CVMFS_CLAIM_OWNERSHIP=no
CVMFS_USYSLOG={log}
"""


@contextlib.contextmanager
def mounted(fqrn: str, url: str, *, public_key: Path, work: Path) -> Iterator[Path]:
    """The folder at which a repository is mounted by the unmodified client while the context is open."""
    cache, folder, log, settings = (work / name for name in ("cache", "mnt", "client.log", "client.conf"))
    cache.mkdir()
    folder.mkdir()
    settings.write_text(_SETTINGS.format(url=url, public_key=public_key, cache=cache, log=log))
    try:
        tools.run(["cvmfs2", "-o", f"config={settings},allow_other", fqrn, folder], timeout_s=60)
        yield folder
    finally:
        for _ in range(150):
            if not folder.is_mount() or tools.run(["umount", folder], check=False).ok:
                break
            time.sleep(0.2)
        else:  # whoever still uses it must not keep the folder from being removed
            tools.run(["umount", "--lazy", folder])


def compare(top: Path, entries: Iterable[Entry]) -> None:
    """Fails unless a mounted folder holds just the entries, byte for byte; markers of catalogs are left out."""
    wanted = {os.fsencode(entry.path): entry for entry in entries}
    found = set(_walk(os.fsencode(top)))
    assert found == set(wanted), sorted(found ^ set(wanted))
    for path, entry in wanted.items():
        same(os.fsencode(top) + b"/" + path if path else os.fsencode(top), entry)


def _walk(top: bytes) -> Iterator[bytes]:
    yield b""
    for folder, names, files in os.walk(top):
        for name in (*names, *files):
            if name != b".cvmfscatalog":
                yield os.path.relpath(folder + b"/" + name, top)


def same(path: bytes | Path, entry: Entry) -> None:
    """Fails unless a client shows an entry as it was published."""
    info = os.lstat(path)
    assert info.st_mode == FORMAT_OF_KIND[entry.kind] | entry.mode, path
    assert (info.st_uid, info.st_gid) == (entry.uid, entry.gid), path
    assert info.st_mtime_ns == entry.mtime_s * 10**9 + entry.mtime_ns, path
    if entry.kind is Kind.FILE:
        assert info.st_size == entry.size_bytes, path
        wanted = Path(entry.content).read_bytes() if isinstance(entry.content, str) else entry.content
        with open(path, "rb") as file:  # noqa: PTH123 - names that are no text
            assert file.read() == wanted, path
    if entry.kind is Kind.SYMLINK:
        assert os.readlink(os.fsencode(path)) == os.fsencode(entry.target), path
    if stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode):
        assert info.st_rdev == entry.rdev, path
    for key, value in entry.xattrs:
        assert os.getxattr(path, key) == value, path
