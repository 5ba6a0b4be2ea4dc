"""The server's command line: arguments that a shell cannot misread, and exit codes instead of prose.

Source: cvmfs/server/cvmfs_server_{publish,ingest,tag}.sh, cvmfs/publish/cmd_{transaction,abort}.cc (2.12).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from publisher import tools
from publisher.backends.server.site import Site, remount_hint
from publisher.backends.server.state import broken_mount
from publisher.errors import AfpubError, RepositoryError, ToolError, TransactionOpenError
from publisher.names import TagName

_SAFE = re.compile(r"[A-Za-z0-9._:+,@-]*")
"""Descriptions pass unquoted through a shell: anything else could become a command."""
_FOREVER_S = 6 * 3600.0
"""Nothing of a publish takes longer; what does, hangs."""
_SHORT_S = 600.0
INSTALL_HINT = "install the package cvmfs-server, or name the program in afpub.toml: [server] program"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """The program, for one repository."""

    site: Site
    program: str

    def transaction(self, *, below: str = "", wait_s: float = 0.0) -> None:
        """Opens a transaction.

        Args:
            below: what the lease covers, for a gateway; empty for all.
            wait_s: how long to wait for others, in seconds.

        Raises:
            TransactionOpenError: another transaction is open, or another publisher has the lease.
            RepositoryError: the server does not let it open.
        """
        wait = ("-t", str(max(1, int(wait_s)))) if wait_s > 0 else ()
        where = f"{self.site.fqrn}/{below.strip('/')}".rstrip("/")
        done = self._run(("transaction", *wait, where), timeout_s=_SHORT_S + wait_s)
        if not done.ok:
            raise _refusal(self.site, done, below)

    def publish(self, *, tag: TagName | None, description: str) -> tools.Completed:
        """Publishes the open transaction; how it ended is for the caller to judge, by the manifest."""
        safe = safe_description(description)
        words = [*(("-a", tag) if tag else ()), *(("-m", safe) if safe else ()), "-f"]
        return self._run(("publish", *words, self.site.fqrn), timeout_s=_FOREVER_S)

    def abort(self) -> tools.Completed:
        """Drops the open transaction, without a question."""
        return self._run(("abort", "-f", self.site.fqrn), timeout_s=_SHORT_S)

    def tag(self, name: TagName, description: str) -> None:
        """Names the newest revision.

        Raises:
            ToolError: the server did not.
        """
        safe = safe_description(description)
        words = ("tag", "-a", name, *(("-m", safe) if safe else ()), self.site.fqrn)
        done = self._run(words, timeout_s=_SHORT_S)
        if not done.ok:
            raise ToolError(f"cvmfs_server could not add the tag {name!r} to {self.site.fqrn}", detail=done.tail)

    def untag(self, name: TagName) -> None:
        """Forgets a name.

        Raises:
            ToolError: the server did not.
        """
        done = self._run(("tag", "-f", "-r", name, self.site.fqrn), timeout_s=_SHORT_S)
        if not done.ok:
            raise ToolError(
                f"cvmfs_server could not remove the tag {name!r} of {self.site.fqrn}",
                hint="tags are removed on the machine of the gateway" if self.site.gateway else "",
                detail=done.tail,
            )

    def ingest(self, *, below: str, feed: Callable[[BinaryIO], None]) -> tools.Completed:
        """Publishes a tar stream below a folder, in a transaction of its own."""
        words = ("ingest", "-t", "-", "-b", below.strip("/"), self.site.fqrn)
        return self._run(words, timeout_s=_FOREVER_S, feed=feed)

    def _run(
        self, words: Sequence[str], *, timeout_s: float, feed: Callable[[BinaryIO], None] | None = None
    ) -> tools.Completed:
        program = tools.require(self.program, hint=INSTALL_HINT)
        # The server refuses to publish while the working folder of its caller is in the repository.
        return tools.run((program, *words), cwd=Path("/"), timeout_s=timeout_s, check=False, feed=feed)


def safe_description(text: str) -> str:
    """A tag's description, when it can pass through the server's shell.

    Raises:
        RepositoryError: it cannot.
    """
    if not _SAFE.fullmatch(text) or text.startswith("-"):
        raise RepositoryError(
            f"{text!r} cannot describe a tag: cvmfs_server passes descriptions through a shell",
            hint="use letters, digits and . _ : + , @ - only, without spaces",
        )
    return text


def _refusal(site: Site, done: tools.Completed, below: str) -> AfpubError:
    """What the exit code of ``transaction`` means."""
    fqrn, code = site.fqrn, done.returncode
    below = f"/{below.strip('/')}".rstrip("/")
    if code == errno.EEXIST:
        return TransactionOpenError(
            f"a transaction of {fqrn} is open already", hint="wait until it is published or aborted"
        )
    if code == errno.EBUSY:
        return TransactionOpenError(
            f"another publisher has the lease of {fqrn}{below} or of a part of it",
            hint="wait until it is done, or give a time to wait: --wait SECONDS",
        )
    if code == errno.ENOENT:
        return RepositoryError(f"the folder that holds {below} is not in {fqrn} yet, and a lease needs it")
    if code == errno.ENOTDIR:
        return RepositoryError(f"what should hold {below} in {fqrn} is no folder")
    if broken_mount(site) or os.strerror(errno.ENOTCONN) in done.tail:
        return RepositoryError(
            f"the mount of {fqrn} on this machine is broken: nothing was published",
            hint=remount_hint(site),
            detail=done.tail,
        )
    hint = "afpub doctor looks for the reason" if code != errno.EINVAL else "look at the whitelist and the layout"
    return RepositoryError(f"cvmfs_server did not open a transaction of {fqrn}", hint=hint, detail=done.tail)
