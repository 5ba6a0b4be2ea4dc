"""The real CVMFS client."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from publisher import tools

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
        for _ in range(50):
            if not folder.is_mount() or tools.run(["umount", folder], check=False).ok:
                break
            time.sleep(0.2)
