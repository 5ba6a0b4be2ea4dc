"""What goes wrong while a site's server is driven: what is left behind, and what the message says."""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_standin import gateway
from server_standin import StandIn

from publisher import tools
from publisher.backends.base import Changeset
from publisher.backends.server import state
from publisher.backends.server.backend import ServerBackend, always
from publisher.backends.server.program import Server
from publisher.backends.server.recovery import AbandonedTransactionError
from publisher.backends.server.site import ServerOptions, Way
from publisher.errors import RepositoryError, StaleBaseError, ToolError, TransactionOpenError
from publisher.names import Fqrn, RepoPath, TagName
from publisher.tree import Entry, Graft, Kind

FQRN = Fqrn("faults.afpub.example")
KILLER = Path(__file__).parent / "server_killer.py"
ME = pwd.getpwuid(os.geteuid()).pw_name


class Case:
    """A server with one repository, and a back-end for it."""

    def __init__(self, folder: Path, *, gateway_api: str = "") -> None:
        self.server = StandIn(folder, FQRN)
        self.server.create(user=ME, gateway=gateway_api)
        self.program = self.server.program()
        self.folder = folder

    def backend(self, **more) -> ServerBackend:
        options = ServerOptions(
            work=self.folder / "work",
            config=self.folder / "etc",
            program=f"{self.program}",
            way=more.pop("way", Way.AUTO),
        )
        return ServerBackend(FQRN, options, **more)

    def fails(self, **faults) -> None:
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def cvmfs_server(self, *words) -> int:
        return tools.run([self.program, *words], cwd=Path("/"), check=False).returncode

    @property
    def open(self) -> bool:
        return self.server.lock.exists()

    @property
    def mark(self) -> Path:
        return self.server.spool / state.MARK_NAME


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def change(backend, content=b"one", at="/af/index.json", **more):
    tree = (Entry(path="", kind=Kind.FILE, mode=0o644, content=content, size_bytes=len(content)),)
    return Changeset(base=backend.head(), grafts=(Graft(at=RepoPath(at), tree=tree),), **more)


def checks(backend):
    return {finding.check: finding for finding in backend.examine().errors}


def killed(case):
    """A transaction that an afpub left open when it was killed."""
    words = [sys.executable, KILLER, FQRN, case.folder / "etc", case.program, case.folder / "work"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert tools.run(words, env=environment, check=False).returncode == -9
    assert case.open
    assert case.mark.exists()


# --- transactions that are open already --------------------------------------------------------------------


def test_a_transaction_of_somebody_else_is_never_touched(case):
    backend = case.backend(ask=always)
    assert case.cvmfs_server("transaction", FQRN) == 0
    (case.server.union / "theirs").write_text("work of hours")
    with pytest.raises(TransactionOpenError) as caught:
        backend.publish(change(backend))
    assert caught.value.message.startswith(f"a transaction of {FQRN} is open: opened by user {ME} with cvmfs_server")
    assert caught.value.hint == "wait until it is published or aborted (--wait SECONDS); afpub never touches it"
    finding = checks(backend)["transaction"]
    assert finding.message.startswith(f"a transaction is open: opened by user {ME} with cvmfs_server since 20")
    assert (case.server.union / "theirs").read_text() == "work of hours"
    assert case.open


def test_waiting_for_somebody_else(case):
    assert case.cvmfs_server("transaction", FQRN) == 0
    backend = case.backend(wait_s=60)
    wanted = change(backend)
    words = [sys.executable, "-c", "import sys, time, subprocess; time.sleep(1); subprocess.run(sys.argv[1:])"]
    with tools.spawn([*words, case.program, "abort", "-f", FQRN], log=case.folder / "log"):
        assert backend.publish(wanted).new


def test_the_transaction_of_a_killed_afpub(case):
    killed(case)
    backend = case.backend()
    before = backend.head()
    finding = checks(backend)["transaction"]
    assert finding.message.startswith("a transaction is open that nobody works on: opened by afpub (process ")
    assert finding.hint == "run the same command with --recover: it is aborted, and everything is done again"
    with pytest.raises(AbandonedTransactionError) as caught:
        backend.publish(change(backend))
    assert "opened by afpub (process " in caught.value.message
    assert caught.value.hint.startswith("run it again with --recover")
    assert case.open
    asked = []
    agreeing = case.backend(ask=lambda question: not asked.append(question))
    assert agreeing.examine().ok
    assert len(asked) == 1
    assert asked[0].endswith("which has ended. Abort it?")
    assert agreeing.publish(change(agreeing)).revision.number == before.number + 1
    assert agreeing.read(RepoPath("/killed")) is None
    assert (case.open, case.mark.exists()) == (False, False)
    assert len(asked) == 1


def test_after_a_restart_of_the_machine(case):
    killed(case)
    mark = json.loads(case.mark.read_text())
    case.mark.write_text(json.dumps(mark | {"boot": "another", "pid": os.getpid()}))
    backend = case.backend()
    assert "nobody works on" in checks(backend)["transaction"].message
    assert "was aborted" in case.backend(ask=always).recover()
    assert not case.open


def test_an_afpub_that_runs_is_waited_for(case):
    backend = case.backend(ask=always)
    case.cvmfs_server("transaction", FQRN)
    state.note_open(backend.site, state.new_mark(base="x", what="afpub-1"))
    with pytest.raises(TransactionOpenError, match=rf"opened by afpub \(process {os.getpid()} on .*, afpub-1\) since"):
        backend.publish(change(backend))
    assert case.open


def test_killed_while_the_transaction_opened(case):
    """Nothing says that it is ours but the time, so it is taken for ours only while it holds no work."""
    backend = case.backend()
    dead = replace(state.new_mark(base="x", what=""), started="0")
    state.write_mark(backend.site, dead)
    case.cvmfs_server("transaction", FQRN)
    assert state.transaction_of(backend.site).holder is state.Holder.DEAD_AFPUB
    (backend.site.scratch / "work").write_text("somebody's")
    assert state.transaction_of(backend.site).holder is state.Holder.OTHER
    (backend.site.scratch / "work").unlink()
    state.write_mark(backend.site, replace(dead, since_s=time.time() - 3600))
    assert state.transaction_of(backend.site).holder is state.Holder.OTHER


def test_a_mark_is_of_one_transaction_only(case):
    killed(case)
    case.cvmfs_server("abort", "-f", FQRN)
    time.sleep(0.01)
    case.cvmfs_server("transaction", FQRN)
    assert state.transaction_of(case.backend().site).holder is state.Holder.OTHER


def test_abort_without_force_asks_and_does_nothing_with_stdin_closed(case):
    case.cvmfs_server("transaction", FQRN)
    assert case.cvmfs_server("abort", FQRN) == 4
    assert case.open


# --- failures on the way -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "code"), [("before", "1"), ("killed", "-9")])
@pytest.mark.parametrize("way", [Way.DESCRIBE, Way.COPY])
def test_a_publish_that_fails_publishes_nothing(case, fault, code, way):
    backend = case.backend(way=way)
    before = backend.head()
    case.fails(publish=fault)
    with pytest.raises(ToolError) as caught:
        backend.publish(change(backend))
    assert caught.value.message == (
        f"cvmfs_server did not publish {FQRN} (exit code {code}): nothing was published; the transaction was closed"
    )
    assert (backend.head(), case.open, case.mark.exists()) == (before, False, False)
    case.fails()
    assert backend.publish(change(backend)).new


def test_a_publish_that_fails_after_signing_has_published(case):
    backend = case.backend()
    case.fails(publish="after-signing")
    done = backend.publish(change(backend, tag=TagName("afpub-1")))
    assert (done.new, done.revision) == (True, backend.head())
    assert "".join(done.notes) == (
        "cvmfs_server failed (exit code 1) after it had signed revision 2, which holds everything; "
        "the transaction was closed"
    )
    assert backend.read(RepoPath("/af/index.json")) == b"one"
    assert (case.open, case.mark.exists()) == (False, False)


def test_a_transaction_that_cannot_be_aborted_is_told(case):
    backend = case.backend()
    case.fails(publish="before", abort="broken")
    with pytest.raises(
        ToolError, match=f"the transaction is still open: cvmfs_server abort -f {FQRN} ended with exit"
    ) as caught:
        backend.publish(change(backend))
    assert "publisher file system mount state is broken" in caught.value.message
    assert (case.open, case.mark.exists()) == (True, True)
    assert "opened by afpub" in checks(backend)["transaction"].message


def test_a_broken_mount(case):
    backend = case.backend()
    case.fails(transaction="endpoint")
    with pytest.raises(RepositoryError) as caught:
        backend.publish(change(backend))
    assert caught.value.message == f"the mount of {FQRN} on this machine is broken: nothing was published"
    assert caught.value.hint == (
        f"as root: umount -l {backend.site.union}; umount -l {backend.site.spool}/rdonly; cvmfs_server mount {FQRN}"
    )
    assert (case.open, case.mark.exists()) == (False, False)


def test_a_repository_that_moved_on_while_the_transaction_opened(case, monkeypatch):
    backend, other = case.backend(), case.backend()
    opening = Server.transaction

    def late(self, **more):
        monkeypatch.setattr(Server, "transaction", opening)
        (case.server.spool / state.LOCK_NAME).unlink()  # what another machine's afpub would not see
        other.publish(change(other, at="/other"))
        opening(self, **more)

    monkeypatch.setattr(Server, "transaction", late)
    with pytest.raises(StaleBaseError):
        backend.publish(change(backend))
    assert (case.open, backend.read(RepoPath("/af/index.json"))) == (False, None)


def test_garbage_collection_between_storing_and_publishing(case, monkeypatch):
    backend = case.backend()
    opening = Server.transaction

    def collected(self, **more):
        for path in (backend.site.storage / "data").glob("??/*"):
            if path.stat().st_mtime > started:
                path.unlink()
        opening(self, **more)

    monkeypatch.setattr(Server, "transaction", collected)
    wanted, before = change(backend), backend.head()
    time.sleep(0.05)
    started = time.time() - 0.02
    with pytest.raises(
        RepositoryError, match="garbage collection removed the object data/.. of /af/index.json".replace("..", ".*")
    ):
        backend.publish(wanted)
    assert (backend.head(), case.open) == (before, False)


# --- gateway -----------------------------------------------------------------------------------------------


@pytest.fixture
def remote(tmp_path):
    """A gateway, and a publisher of it."""
    with gateway(tmp_path / "srv", FQRN) as state_of_gateway:
        yield state_of_gateway, Case(tmp_path, gateway_api=state_of_gateway.api)


def test_a_release_through_a_gateway_leases_its_prefix_only(remote, monkeypatch):
    held, case = remote
    backend = case.backend()
    paths = []
    real = held.acquire
    monkeypatch.setattr(held, "acquire", lambda path: paths.append(path) or real(path))
    assert backend.examine().ok
    assert backend.publish(change(backend)).new
    assert backend.publish(change(backend, b"two", at="/af/images/x")).new
    assert paths == [f"{FQRN}/af", f"{FQRN}/af/images"]
    assert held.active() == {}
    assert not case.server.token.exists()


def test_a_lease_that_another_publisher_holds(remote):
    held, case = remote
    backend = case.backend()
    held.acquire(f"{FQRN}/af/images")
    wanted = change(backend)
    findings = [finding for finding in backend.preflight(wanted).errors if finding.check == "lease"]
    assert findings[0].message == "another publisher holds it, with key key1 until soon"
    with pytest.raises(TransactionOpenError) as caught:
        backend.publish(wanted)
    assert caught.value.message == f"another publisher has the lease of {FQRN}/af or of a part of it"
    assert (case.open, case.mark.exists()) == (False, False)


def test_a_lease_that_expires_in_the_transaction(remote, monkeypatch):
    held, case = remote
    backend = case.backend()
    before, publishing = backend.head(), Server.publish

    def late(self, **more):
        held.leases.clear()
        return publishing(self, **more)

    monkeypatch.setattr(Server, "publish", late)
    with pytest.raises(ToolError, match="nothing was published; the transaction was closed") as caught:
        backend.publish(change(backend))
    assert caught.value.detail == "lease invalid or expired"
    assert (backend.head(), case.open, case.server.token.exists()) == (before, False, False)


def test_a_gateway_that_is_down(remote):
    held, case = remote
    conf = case.server.conf
    conf.write_text(conf.read_text().replace(held.api, "http://127.0.0.1:9/api/v1"))
    finding = checks(case.backend())["gateway"]
    assert finding.message == "the gateway http://127.0.0.1:9/api/v1 cannot be reached: [Errno 111] Connection refused"
    assert finding.hint == "is the gateway up, and its port open from here?"
