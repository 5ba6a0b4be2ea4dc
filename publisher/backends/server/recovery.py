"""Transactions that are open: somebody else's, which are never touched, and those that a dead afpub left."""

from __future__ import annotations

import time
from collections.abc import Callable

from publisher.backends.server.program import Server
from publisher.backends.server.site import Site, remount_hint
from publisher.backends.server.state import Holder, Transaction, clear_mark, lock_identity, read_mark, transaction_of
from publisher.errors import RepositoryError, TransactionOpenError

_POLL_S = 1.0


class AbandonedTransactionError(TransactionOpenError):
    """An afpub that was killed left its transaction open."""


def require_free(site: Site, server: Server, ask: Callable[[str], bool], *, wait_s: float) -> str:
    """Makes sure that no transaction is open; what was done for it, as a sentence.

    Args:
        site: the repository.
        server: its program.
        ask: whether the transaction of a dead afpub may be aborted.
        wait_s: how long to wait for somebody else's to end, in seconds.

    Raises:
        TransactionOpenError: somebody else's transaction is open.
        AbandonedTransactionError: that of a dead afpub is, and the answer was no.
        RepositoryError: it could not be aborted.
    """
    end = time.monotonic() + wait_s
    while True:
        found = transaction_of(site)
        if found.holder is Holder.NOBODY:
            clear_mark(site)
            return ""
        if found.holder is Holder.DEAD_AFPUB:
            return _recover(site, server, ask, found)
        if time.monotonic() >= end:
            raise TransactionOpenError(
                f"a transaction of {site.fqrn} is open: opened {found.whose}",
                hint="wait until it is published or aborted (--wait SECONDS); afpub never touches it",
            )
        time.sleep(_POLL_S)


def question(site: Site, found: Transaction) -> str:
    """What somebody is asked who may let the transaction of a dead afpub be aborted."""
    return f"A transaction of {site.fqrn} is open, opened {found.whose}, which has ended. Abort it?"


def _recover(site: Site, server: Server, ask: Callable[[str], bool], found: Transaction) -> str:
    if not ask(question(site, found)):
        raise AbandonedTransactionError(
            f"a transaction of {site.fqrn} is open that nobody works on: opened {found.whose}, which has ended",
            hint="run it again with --recover: the transaction is aborted, and everything is done anew",
        )
    trouble = close_transaction(site, server)
    if trouble:
        raise RepositoryError(trouble, hint=remount_hint(site))
    return f"the transaction opened {found.whose} was aborted"


def close_transaction(site: Site, server: Server) -> str:
    """Aborts the transaction that is open if the mark says that it is ours; what stays undone, as a sentence."""
    found = lock_identity(site)
    if found is None:
        clear_mark(site)
        return ""
    mark = read_mark(site)
    ours = transaction_of(site).holder in {Holder.AFPUB, Holder.DEAD_AFPUB}
    if mark is None or not ours:
        return f"the transaction that is open now is somebody else's ({site.transaction_lock})"
    done = server.abort()
    if lock_identity(site) is not None:
        last = done.tail.strip().splitlines()[-1:] or [""]
        return (
            f"the transaction is still open: cvmfs_server abort -f {site.fqrn} ended with exit code "
            f"{done.returncode} ({last[0]})"
        )
    clear_mark(site)
    return ""
