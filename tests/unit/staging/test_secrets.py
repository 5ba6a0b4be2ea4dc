import pytest

from publisher.errors import DiskError
from publisher.staging.secrets import check_secrets
from publisher.tree import Entry, Kind


def file(path, content=b"x"):
    return Entry(path=path, kind=Kind.FILE, mode=0o600, content=content, size_bytes=len(content))


def check(*entries):
    return check_secrets(entries, where="images/x")


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("root/.ssh/id_ed25519", "a private SSH key"),
        ("etc/ssh/ssh_host_rsa_key", "a private host key of SSH"),
        ("home/me/.netrc", "a file for passwords"),
        ("root/.docker/config.json", "a file for access keys"),
        ("tmp/x509up_u1000", "a grid key or proxy"),
        ("root/.bash_history", "somebody's command history"),
    ],
)
def test_places_of_secrets(path, what):
    (finding,) = check(file(path)).errors
    assert (finding.where, finding.message) == (f"images/x:/{path}", f"holds {what}")
    assert "remove it at the end of %post" in finding.hint


@pytest.mark.parametrize("path", ["root/.ssh/id_rsa.pub", "etc/ssh/ssh_config", "usr/lib/netrc.py", "root/.bashrc"])
def test_their_harmless_neighbors(path):
    assert check(file(path)).findings == ()


def test_an_empty_file_holds_nothing():
    assert check(file("root/.netrc", b"")).findings == ()


@pytest.mark.parametrize("line", [b"root:$6$salt$hash:1:0:::::\n", b"daemon:*:1::::::\nme:$y$j9T$x:1:0:::::\n"])
def test_password_hashes(line):
    assert [finding.message for finding in check(file("etc/shadow", line)).errors] == ["holds the hash of a password"]


def test_locked_accounts_have_no_password():
    assert check(file("etc/shadow", b"root:*:19000:0:99999:7:::\nme:!:1:0:::::\nx::1:0:::::\n")).findings == ()


@pytest.mark.parametrize("path", ["etc/pip.conf", "etc/apt/sources.list", "etc/apt/sources.list.d/own.sources"])
def test_addresses_with_passwords(path):
    bad = check(file(path, b"index-url = https://me:secret@host.example/simple\n"))
    assert [finding.message for finding in bad.errors] == ["holds an address with a password in it"]
    assert "secret@" not in str(bad.to_json())
    assert check(file(path, b"deb http://host.example/debian bookworm main\n")).ok


def test_a_file_that_cannot_be_read(tmp_path):
    gone = Entry(path="etc/shadow", kind=Kind.FILE, mode=0o600, content=f"{tmp_path}/gone", size_bytes=1)
    with pytest.raises(DiskError, match="gone"):
        check(gone)
