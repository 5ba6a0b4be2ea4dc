"""A master key with a password: asked for when it is needed, told apart from a wrong one, never in a file."""

from __future__ import annotations

import cvmfs_repository as repository
import pytest
from typer.testing import CliRunner

from publisher.cli.main import program
from publisher.cvmfs.check import check
from publisher.errors import TrustError, UsageError

FQRN = repository.FQRN
SECRET = "grüße 1"


def run(*words, said: str = ""):
    return CliRunner().invoke(program(), [str(word) for word in words], input=said)


@pytest.fixture
def place(tmp_path):
    """A repository whose master key is encrypted."""
    keys = tmp_path / "keys"
    made = run("keys", "create", FQRN, "--keys", keys, "--password", said=f"{SECRET}\n{SECRET}\n")
    assert made.exit_code == 0, made.output
    done = run("repo", "create", FQRN, "--at", tmp_path / "repo", "--keys", keys, said=f"{SECRET}\n")
    assert done.exit_code == 0, done.output
    assert f"password of {keys}/{FQRN}.masterkey: " in done.output
    assert SECRET not in done.output
    return ("--repo", tmp_path / "repo", "--keys", keys)


def test_the_whitelist_is_signed_with_the_password(place, tmp_path):
    assert b"ENCRYPTED" in (tmp_path / f"keys/{FQRN}.masterkey").read_bytes()
    before = (tmp_path / "repo/.cvmfswhitelist").read_bytes()
    done = run("keys", "resign", *place, "--days", "60", said=f"{SECRET}\n")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "repo/.cvmfswhitelist").read_bytes() != before
    assert check(tmp_path / "repo", public_key=(tmp_path / f"keys/{FQRN}.pub").read_bytes()).findings == ()


def test_a_wrong_password(place, tmp_path):
    before = (tmp_path / "repo/.cvmfswhitelist").read_bytes()
    done = run("keys", "resign", *place, said="guess\n")
    assert isinstance(done.exception, TrustError)
    assert done.exception.message == f"the password of the private key {tmp_path}/keys/{FQRN}.masterkey is wrong"
    assert (tmp_path / "repo/.cvmfswhitelist").read_bytes() == before


def test_nobody_to_ask(place, tmp_path):
    done = run("keys", "rotate", *place)
    assert isinstance(done.exception, UsageError)
    assert done.exception.message == f"nobody gave the password of {tmp_path}/keys/{FQRN}.masterkey"
    assert done.exception.hint == "run it in a terminal, or use --sign-command"
    assert sorted(path.suffix for path in (tmp_path / "keys").iterdir()) == [".crt", ".key", ".masterkey", ".pub"]


def test_keys_show_says_so(place):
    done = run("keys", "show", *place)
    assert done.exit_code == 0, done.output
    assert "is encrypted: whoever signs is asked for a password" in " ".join(done.output.split())


def test_passwords_that_differ(tmp_path):
    done = run("keys", "create", FQRN, "--keys", tmp_path / "keys", "--password", said="one\ntwo\n")
    assert isinstance(done.exception, UsageError)
    assert not (tmp_path / "keys").exists()
