"""The commands that look into and after repositories, as the real program."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from publisher import tools

AFPUB = Path(sys.executable).with_name("afpub")
FQRN = "sw.afpub.example"


@pytest.fixture
def afpub(tmp_path):
    """Runs afpub in an empty folder that belongs to no project."""

    def run(*words, code=0):
        done = tools.run([AFPUB, *words], cwd=tmp_path, env=dict(os.environ), check=False, timeout_s=120)
        assert done.returncode == code, done.tail
        return done

    run("repo", "create", FQRN, "--at", "repository")
    return run


@pytest.fixture
def package(tmp_path):
    """A software package: any folder."""
    folder = tmp_path / "package"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/tool").write_text("#!/bin/sh\necho 1\n")
    (folder / "bin/tool").chmod(0o755)
    (folder / "current").symlink_to("bin")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def published(afpub, package):
    afpub("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository", "--tag", "tool-1.0")
    return afpub


def document(done):
    return json.loads(done.stdout)


def test_a_new_repository_has_keys_beside_it_and_is_not_made_twice(afpub, tmp_path):
    names = {path.suffix for path in (tmp_path / "keys").iterdir()}
    assert names == {".pub", ".key", ".crt", ".masterkey"}
    assert (tmp_path / f"keys/{FQRN}.masterkey").stat().st_mode & 0o077 == 0
    done = afpub("repo", "create", FQRN, "--at", "repository", code=11)
    assert "there is a repository in repository already" in done.tail


def test_a_bad_name_is_explained(afpub):
    done = afpub("repo", "create", "Not A Name", "--at", "other", code=3)
    assert "'Not A Name' is no repository name" in done.tail
    assert "use a name such as kernels.example.org" in done.tail


def test_a_folder_is_published_as_it_is(published):
    rows = document(published("repo", "ls", "/sw/tool/1.0", "--recursive", "--repo", "repository", "--json"))
    entries = {row["path"]: (row["type"], row["mode"]) for row in rows["entries"]}
    assert entries == {
        "/sw/tool/1.0": ("dir", "0755"),
        "/sw/tool/1.0/bin": ("dir", "0755"),
        "/sw/tool/1.0/bin/tool": ("file", "0755"),
        "/sw/tool/1.0/current": ("symlink", "0777"),
    }
    assert published("repo", "cat", "/sw/tool/1.0/bin/tool", "--repo", "repository").stdout == "#!/bin/sh\necho 1"


def test_publishers_side_by_side_lose_nothing(published, package):
    """All begin with the same revision; each waits for those before, and goes on from what they made."""
    words = ("--repo", "repository", "--wait", "300", "--json")
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(published, "repo", "publish", package, f"/many/{name}", *words) for name in "abcd"]
        revisions = sorted(document(future.result())["revision"] for future in futures)
    assert revisions == [3, 4, 5, 6]
    rows = document(published("repo", "ls", "/many", "--repo", "repository", "--json"))["entries"]
    assert [row["path"] for row in rows] == [f"/many/{name}" for name in "abcd"]
    assert "no problems found" in published("repo", "fsck", "--repo", "repository").stdout


def test_an_older_revision_gets_a_name(published, package):
    (package / "bin/tool").write_text("broken")
    published("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository")
    words = ("repo", "tag", "--repo", "repository")
    rows = document(published(*words, "--add", "good", "--at", "2", "--json"))["tags"]
    assert {row["name"]: row["revision"] for row in rows} == {
        "tool-1.0": 2,
        "good": 2,
        "trunk-previous": 2,
        "trunk": 3,
    }
    assert "give the name: --add NAME" in published(*words, "--at", "2", code=2).tail
    assert "has no revision 9" in published(*words, "--add", "other", "--at", "9", code=12).tail
    assert "has no tag 'none' that can be removed" in published(*words, "--remove", "none", code=12).tail
    rows = document(published(*words, "--remove", "good", "--json"))["tags"]
    assert "good" not in {row["name"] for row in rows}


def test_settings_are_shown_and_changed(afpub, package):
    (package / "plot.png").write_bytes(b"\x89PNG" * 9)
    done = document(afpub("repo", "settings", "uncompressed=*.png,*.zip", "--repo", "repository", "--json"))
    assert done["settings"]["uncompressed"] == ["*.png", "*.zip"]
    shown = afpub("repo", "settings", "--repo", "repository").stdout
    assert re.search(r"^chunk_average +8388608 *$", shown, re.MULTILINE)
    done = document(afpub("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository", "--json"))
    assert done["new"]
    assert afpub("repo", "cat", "/sw/tool/1.0/plot.png", "--repo", "repository").stdout.count("PNG") == 9
    afpub("repo", "fsck", "--repo", "repository")
    done = afpub("repo", "settings", "colour=blue", "--repo", "repository", code=2)
    assert "'colour=blue' sets nothing" in done.tail


def test_what_is_over_a_limit_is_refused_before_anything_is_written(afpub, package, tmp_path):
    afpub("repo", "settings", "limit_root_entries=5", "--repo", "repository")
    done = afpub("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository", code=1)
    assert "error /: the catalog of / would have 7 entries, more than 5" in done.tail
    assert "raise it: afpub repo settings limit_root_entries=NUMBER" in done.tail
    assert list((tmp_path / "repository/data").glob("*/*[0-9a-f]")) == []


def test_what_was_left_out_is_said(afpub, package):
    done = afpub("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository")
    assert "a fifo device or pipe was left out" in done.tail


def test_secrets_are_not_published(afpub, package):
    (package / ".netrc").write_text("machine x login y password z\n")
    done = afpub("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository", code=1)
    assert "/.netrc: holds a file for passwords" in done.tail
    assert "nothing was published: 1 problem, shown above" in done.tail
    assert document(afpub("repo", "tag", "--repo", "repository", "--json"))["tags"][0]["revision"] == 1


def test_publishing_again_makes_no_revision(published, package):
    done = document(published("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository", "--json"))
    assert (done["new"], done["revision"]) == (False, 2)


def test_a_tag_is_taken_once(published, package):
    (package / "more").write_text("more")
    done = published("repo", "publish", package, "/sw/tool/1.1", "--repo", "repository", "--tag", "tool-1.0", code=9)
    assert "the tag 'tool-1.0' exists already: it names revision 2" in done.tail


def test_tags_are_listed_added_and_removed(published):
    published("repo", "tag", "--repo", "repository", "--add", "good")
    rows = document(published("repo", "tag", "--repo", "repository", "--json"))["tags"]
    assert {row["name"]: row["revision"] for row in rows} == {"tool-1.0": 2, "good": 2, "trunk": 2, "trunk-previous": 1}
    published("repo", "tag", "--repo", "repository", "--remove", "good")
    assert "good" not in published("repo", "tag", "--repo", "repository").stdout


def test_earlier_revisions_can_be_read(published, package):
    (package / "bin/tool").write_text("#!/bin/sh\necho 2\n")
    published("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository")
    place = ("/sw/tool/1.0/bin/tool", "--repo", "repository")
    assert published("repo", "cat", *place).stdout.endswith("echo 2")
    assert published("repo", "cat", *place, "--at", "tool-1.0").stdout.endswith("echo 1")
    assert published("repo", "cat", *place, "--at", "2").stdout.endswith("echo 1")
    done = published("repo", "cat", *place, "--at", "tool-9.9", code=12)
    assert "has no tag 'tool-9.9'" in done.tail


def test_a_tagged_tree_comes_back(published, package):
    (package / "bin/tool").write_text("broken")
    published("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository")
    done = published("repo", "republish", "tool-1.0", "--repo", "repository", "--tag", "again")
    assert done.stdout == "the tree of tool-1.0 is revision 4"
    assert published("repo", "cat", "/sw/tool/1.0/bin/tool", "--repo", "repository").stdout.endswith("echo 1")
    done = published("repo", "republish", "tool-1.0", "--repo", "repository")
    assert done.stdout == "the tree of tool-1.0 is revision 4 already: nothing to do"
    assert "no problems found" in published("repo", "fsck", "--repo", "repository").stdout


def test_garbage_is_collected(published, package):
    for number in range(3):
        (package / "bin/tool").write_text(f"{number}")
        published("repo", "publish", package, "/sw/tool/1.0", "--repo", "repository")
    words = ("repo", "gc", "--repo", "repository")
    assert document(published(*words, "--json"))["objects_removed"] == 0
    said = document(published(*words, "--grace", "0", "--dry-run", "--json"))
    assert [row["revision"] for row in said["dropped"]] == [1, 3]
    assert "2 revisions would be dropped, 3 kept" in published(*words, "--grace", "0", "--dry-run").stdout
    done = published(*words, "--grace", "0").stdout
    assert "2 revisions dropped, 3 kept" in done
    assert f"{said['objects_removed']} objects (1 files, 2 catalogs, " in done
    assert published("repo", "cat", "/sw/tool/1.0/bin/tool", "--repo", "repository").stdout == "2"
    place = ("/sw/tool/1.0/bin/tool", "--repo", "repository")
    assert published("repo", "cat", *place, "--at", "tool-1.0").stdout.endswith("echo 1")
    assert "has no revision 3 any more" in published("repo", "cat", *place, "--at", "3", code=12).tail
    assert "no problems found" in published("repo", "fsck", "--repo", "repository").stdout
    assert "leave --dry-run or --enable out" in published(*words, "--dry-run", "--enable", code=2).tail


def test_what_is_not_there(published):
    done = published("repo", "ls", "/nowhere", "--repo", "repository", code=12)
    assert f"there is no /nowhere in {FQRN}" in done.tail
    assert "cannot be read" not in done.tail
    done = published("repo", "ls", "no/leading/slash", "--repo", "repository", code=3)
    assert "write it from the root, such as /af/images" in done.tail


def test_no_repository_is_named(afpub):
    done = afpub("repo", "ls", code=2)
    assert "name it: --repo FOLDER" in done.tail


def test_fsck_says_yes_and_no(published, tmp_path):
    assert "no problems found" in published("repo", "fsck", "--repo", "repository").stdout
    damaged = max((tmp_path / "repository/data").glob("??/*"), key=lambda path: path.stat().st_size)
    damaged.chmod(0o644)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = published("repo", "fsck", "--repo", "repository", code=1)
    assert damaged.name in done.tail
    assert document(published("repo", "fsck", "--repo", "repository", "--json", code=1))["ok"] is False


def test_fsck_repairs(published, package, tmp_path):
    shutil.copytree(tmp_path / "repository", tmp_path / "mirror")
    rows = document(published("repo", "ls", "/sw/tool/1.0/bin", "--repo", "repository", "--json"))["entries"]
    digest = rows[0]["digest"]
    lost = tmp_path / f"repository/data/{digest[:2]}/{digest[2:]}"
    words = ("repo", "fsck", "--repo", "repository")
    for how in (("--mirror", "mirror"), ("--from-tree", package, "/sw/tool/1.0")):
        lost.unlink()
        assert "is missing" in published(*words, code=1).tail
        assert "add --repair" in published(*words, *how, code=2).tail
        assert "is missing" in published(*words, "--repair", code=1).tail
        done = published(*words, "--repair", *how)
        assert "no problems found" in done.stdout
        assert f"note data/{digest[:2]}/{digest[2:]}: " in done.tail
    (tmp_path / "repository/.cvmfsreflog").unlink()
    assert "the reflog is missing" in published(*words, code=1).tail
    assert "note .cvmfsreflog: made anew: " in published(*words, "--repair").tail
    assert "no problems found" in published(*words).stdout


def test_a_foreign_key_is_not_trusted(published, tmp_path):
    published("repo", "create", "other.afpub.example", "--at", "other/repository")
    key = tmp_path / "other/keys/other.afpub.example.pub"
    done = published("repo", "ls", "/", "--repo", "repository", "--key", key, code=8)
    assert "check that the public key is that of this repository" in done.tail


def test_resigning_the_whitelist(published):
    done = document(published("keys", "resign", "--repo", "repository", "--days", "7", "--json"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*", done["expires"])
    published("repo", "fsck", "--repo", "repository")


def test_keys_are_shown(published, tmp_path):
    done = published("keys", "show", "--repo", "repository")
    assert "29 days left" in done.stdout
    state = document(published("keys", "show", "--repo", "repository", "--json"))
    assert (state["days_left"], state["allowed"]) == (29, [state["signed_by"]])
    (tmp_path / f"keys/{FQRN}.key").chmod(0o444)
    assert "the private key can be read by others (mode 0444)" in published("keys", "show", "--repo", "repository").tail
    (tmp_path / "keys").chmod(0o777)
    done = published("keys", "show", "--repo", "repository", code=1)
    assert "the keys are not in order: 1 problem, shown above" in done.tail


def test_a_program_signs_the_whitelist(published, tmp_path, require_tool):
    """OpenSSL in the place of a smart card."""
    openssl = require_tool("openssl")
    (tmp_path / f"keys/{FQRN}.masterkey").rename(tmp_path / "far away")
    words = ("keys", "resign", "--repo", "repository", "--sign-command")
    published(*words, f"{openssl} pkeyutl -sign -inkey '{tmp_path}/far away' -pkeyopt rsa_padding_mode:pkcs1")
    assert "no problems found" in published("repo", "fsck", "--repo", "repository").stdout
    assert "was not signed by the master key" in published(*words, "cat", code=8).tail
    assert "false failed with exit code 1" in published(*words, "false", code=5).tail
    assert "cannot start /no/such" in published(*words, "/no/such", code=5).tail
    assert "cannot be split into words" in published(*words, "'", code=2).tail
    assert "no problems found" in published("repo", "fsck", "--repo", "repository").stdout
    published("keys", "resign", "--repo", "repository", "--master-key", tmp_path / "far away")


def test_a_repository_whose_master_key_was_never_here(afpub, tmp_path, require_tool):
    afpub("keys", "create", "other.afpub.example", "--keys", "k", "--master-key", "safe.pem")
    words = ("repo", "create", "other.afpub.example", "--at", "other", "--keys", "k")
    assert "other.afpub.example.masterkey" in afpub(*words, code=8).tail
    afpub(*words, "--sign-command", f"{require_tool('openssl')} pkeyutl -sign -inkey safe.pem")
    assert "no problems found" in afpub("repo", "fsck", "--repo", "other", "--key", "k/other.afpub.example.pub").stdout
    assert sorted(path.suffix for path in (tmp_path / "k").iterdir()) == [".crt", ".key", ".pub"]


def test_the_key_is_rotated(published, package):
    done = document(published("keys", "rotate", "--repo", "repository", "--json"))
    assert done["allowed"] == [done["old"], done["new"]]
    assert "no problems found" in published("repo", "fsck", "--repo", "repository").stdout
    (package / "more").write_text("more")
    published("repo", "publish", package, "/sw/tool/1.1", "--repo", "repository")
    assert "afpub keys rotate --finish" in published("keys", "show", "--repo", "repository").tail
    assert "is removed" in published("keys", "rotate", "--finish", "--repo", "repository").stdout
    state = document(published("keys", "show", "--repo", "repository", "--json"))
    assert state["allowed"] == [state["signed_by"]] == [done["new"]]
    assert "no problems found" in published("repo", "fsck", "--repo", "repository").stdout


def test_a_package_with_a_master_key_elsewhere(published, package, tmp_path):
    """Publishing needs the repository key only: the master key can be kept apart."""
    (tmp_path / f"keys/{FQRN}.masterkey").rename(tmp_path / "safe")
    (package / "more").write_text("more")
    published("repo", "publish", package, "/sw/tool/1.1", "--repo", "repository")
    done = published("keys", "resign", "--repo", "repository", code=8)
    assert f"{FQRN}.masterkey" in done.tail


def test_serve_offers_what_clients_need_and_nothing_else(published, tmp_path):
    log = tmp_path / "serve.log"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with tools.spawn([AFPUB, "serve", "--repo", "repository", "--port", "0"], cwd=tmp_path, log=log):
        url = wait_for_url(log)
        place = ("--repo", url, "--key", tmp_path / f"keys/{FQRN}.pub")
        assert "no problems found" in published("repo", "fsck", *place).stdout
        assert "1.0" in published("repo", "ls", "/sw/tool", *place).stdout
        for hidden in (".afpub/settings.json", "../keys/x", "data", ""):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                opener.open(f"{url}/{hidden}")
    done = published("repo", "publish", tmp_path / "package", "/x", "--repo", url, code=2)
    assert "can be read only" in done.tail


def wait_for_url(log: Path) -> str:
    for _ in range(100):
        found = re.search(r"http://127\.0\.0\.1:\d+/cvmfs/\S+", log.read_text() if log.exists() else "")
        if found:
            return found[0]
        tools.run(["sleep", "0.1"])
    raise AssertionError(log.read_text())


@pytest.fixture
def small_disk(tmp_path, require_root):
    """A file system of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not tools.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=False).ok:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield folder
    tools.run(["umount", folder])


def test_a_full_disk_leaves_the_repository_as_it_was(afpub, package, small_disk):
    repo = ("--repo", small_disk / "repository")
    afpub("repo", "create", FQRN, "--at", small_disk / "repository", "--keys", "keys")
    (package / "big").write_bytes(os.urandom(5_000_000))
    done = afpub("repo", "publish", package, "/sw/tool/1.0", *repo, "--keys", "keys", code=11)
    assert "No space left on device" in done.tail
    assert "Traceback" not in done.tail
    assert "no problems found" in afpub("repo", "fsck", *repo).stdout
    (package / "big").unlink()
    done = afpub("repo", "publish", package, "/sw/tool/1.0", *repo, "--keys", "keys", "--json")
    assert document(done)["revision"] == 2


def test_wrong_use(afpub):
    assert afpub("no-such-command", code=2)
    assert "afpub" in afpub("--version").stdout


def test_an_interrupted_pipe_is_no_failure(published, tmp_path):
    """``afpub repo ls | head -1`` closes the pipe early."""
    line = f"{AFPUB} repo ls /sw/tool/1.0 -r --repo repository | head -1"
    done = tools.run(["sh", "-c", line], cwd=tmp_path)
    assert done.stdout.endswith("/sw/tool/1.0")
    assert "Traceback" not in done.tail
