"""Releases as a release manager makes them: the real program, real kernels, a small image."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
from pathlib import Path

import pytest
from compat import small_project
from compat.small_project import FQRN

from publisher import tools
from publisher.cvmfs.check import check
from publisher.cvmfs.export import export
from publisher.cvmfs.lock import exclusive
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.serve import serving
from publisher.cvmfs.signing import resign_whitelist
from publisher.names import RepoPath
from publisher.progress import Silent

pytestmark = [pytest.mark.images, pytest.mark.usefixtures("apptainer")]


@pytest.fixture
def apptainer(require_tool):
    require_tool("apptainer")


@pytest.fixture
def project(tmp_path):
    return small_project.make(tmp_path / "project")


@pytest.fixture
def revision(project):
    """Gives the number of the newest revision, and checks that the repository is whole."""

    def newest():
        report = check(project.repository, public_key=project.public_key.read_bytes())
        assert report.ok, report.errors
        with open_repository(project.repository) as reader:
            return reader.revision

    return newest


def test_a_release_is_one_revision_with_everything_in_it(project, revision):
    done = project.release()
    assert (done["release"], done["channel"], done["revision"], done["new"]) == ("1.0", "stable", 2, True)
    assert done["kernels"] == ["small"]
    assert done["jupyter_path"] == "/af/channels/stable/share/jupyter"
    assert revision() == 2
    with open_repository(project.repository, public_key=project.public_key.read_bytes()) as reader:
        assert reader.lookup("/af/channels/stable").entry.target == "../releases/1.0"
        assert b"".join(reader.read("/af/images/machine/1.0/etc/content")) == b"1.0\n"
        assert {tag.name for tag in reader.tags()} == {"trunk", "trunk-previous", "afpub-1.0"}
        index = json.loads(b"".join(reader.read("/af/index.json")))
        record = json.loads(b"".join(reader.read("/af/releases/1.0/release.json")))
    assert index["channels"][0]["release"] == "1.0"
    assert record["images"][0]["tree_digest"] == index["images"][0]["tree_digest"]
    assert record["tools"]["builder"].startswith("apptainer ")


def test_releasing_again_changes_nothing(project, revision):
    project.release()
    again = project.release()
    assert (again["revision"], again["new"], again["published"]) == (2, False, None)
    assert revision() == 2


def test_a_dry_run_changes_nothing(project, revision):
    done = project.json("release", project.manifest, "--dry-run")
    assert (done["dry_run"], done["new"], done["revision"]) == (True, False, 1)
    assert [(row["kernel"], row["from"]) for row in done["probes"]] == [("small", "staged")]
    assert revision() == 1


def test_the_next_release_keeps_the_images_that_did_not_change(project, revision):
    project.release()
    project.describe(version="1.1")
    assert project.json("plan", project.manifest)["images"][0]["action"] == "reuse"
    assert project.release()["revision"] == 3
    shown = project.json("show", "1.1")
    assert shown["images"] == project.json("show", "1.0")["images"]


def test_the_plan_shows_the_nested_catalogs_and_what_became_of_them(project):
    with (project.root / "afpub.toml").open("a") as file:
        file.write('\n[catalogs]\nmin_entries = 3\nmax_entries = 200\ncut = ["/etc", "/var"]\n')
    (before,) = project.json("plan", project.manifest)["images"]
    assert (before["built"], before["catalogs"]) == (False, [])
    project.release()
    (published,) = project.json("plan", project.manifest)["images"]
    assert [(row["path"], row["state"]) for row in published["catalogs"]] == [
        ("/", "unchanged"),
        ("/etc", "unchanged"),
    ]
    with open_repository(project.repository) as reader:
        mounts = [info.mount_path for info in reader.catalogs()]
    assert mounts == ["", "/af/images/machine/1.0", "/af/images/machine/1.0/etc"]
    project.describe(version="1.1", image="1.1", content="something else")
    project.run("build")
    (built,) = project.json("plan", project.manifest)["images"]
    assert {row["path"]: row["state"] for row in built["catalogs"]}["/etc"] == "changed"
    shown = project.run("plan", project.manifest).stdout
    assert "image machine 1.1: built, to be published" in shown
    assert re.search(r"/etc: \d entries, 0.0 MB, changed", shown)


def test_a_published_image_is_read_back_where_it_was_never_built(project):
    project.release()
    project.run("verify")
    for folder in ("images", "published", "stage"):
        (project.root / "work" / folder).rename(project.root / "work" / f"{folder}-gone")
    project.describe(version="1.1")
    assert project.release()["new"] is True
    assert not (project.root / "work/images").exists()


def test_channels_move_and_move_back(project, revision):
    project.release()
    project.describe(version="1.1", channel="testing")
    project.release()
    assert project.json("promote", "1.1", "stable")["revision"] == 4
    assert project.json("promote", "1.1", "stable")["new"] is False
    back = project.json("rollback", "stable")
    assert (back["release"], back["revision"]) == ("1.0", 5)
    channels = {row["name"]: row["release"] for row in project.json("list")["channels"]}
    assert channels == {"stable": "1.0", "testing": "1.1"}
    assert revision() == 5
    done = project.run("rollback", "stable", ok=False)
    assert done.returncode == 12
    assert "the channel 'stable' has had no release before 1.0" in done.tail


def test_a_machine_without_a_client_gets_a_copy(project, tmp_path):
    project.release()
    with serving({FQRN: project.repository}) as url:
        place = ["--from", f"{url}/cvmfs/{FQRN}", "--key", project.public_key]
        done = project.json("export", "stable", tmp_path / "copy", *place)
        assert project.json("verify", *place)["ok"] is True
    jupyter = Path(done["jupyter_path"])
    assert (jupyter / "kernels/small/launch").is_file()
    assert (tmp_path / "copy/images/machine/1.0/etc/content").read_text() == "1.0\n"


def test_a_retired_release_tells_its_users_and_frees_its_images(project, revision, tmp_path):
    project.release()
    first = project.manifest.read_text()
    project.describe(version="2.0", image="2.0")
    project.release()
    refused = project.run("retire", "2.0", ok=False)
    assert "the channel 'stable' is at 2.0: its users would lose every kernel" in refused.tail

    differences = project.json("diff", "1.0", "stable")["differences"]
    assert {"kind": "image", "where": "", "name": "machine", "before": "1.0", "after": "2.0"} in differences

    words = ("retire", "1.0", "--successor", "2.0", "--reason", "it has a bug in its fits")
    assert project.json(*words) == {"release": "1.0", "successor": "2.0", "revision": 4, "new": True}
    assert project.json(*words)["new"] is False
    assert revision() == 4
    with open_repository(project.repository) as reader:
        assert reader.lookup("/af/images/machine/1.0") is None
        assert reader.lookup("/af/images/machine/2.0") is not None
        assert reader.lookup("/af/releases/1.0/release.json") is not None
        export(reader, RepoPath("/af"), tmp_path / "copy", progress=Silent())
    listed = project.json("list")
    assert [(row["version"], row["retired"]) for row in listed["releases"]] == [("1.0", True), ("2.0", False)]
    assert [row["version"] for row in listed["images"]] == ["2.0"]
    assert project.json("verify")["ok"]

    (tmp_path / "kernel-1.json").write_text("{}")
    launch = tmp_path / "copy/releases/1.0/share/jupyter/kernels/small/launch"
    done = tools.run([launch, tmp_path / "kernel-1.json"], env={**os.environ, "AFPUB_ON_ERROR": "exit"}, check=False)
    assert done.returncode == 68
    assert (
        "afpub: the kernel 'Small' of release 1.0 is no more: it has a bug in its fits; its successor is release 2.0"
        in done.tail
    )

    assert project.run("rollback", "stable", ok=False).returncode == 12, "there is nothing to go back to any more"
    assert "the release 1.0 is retired" in project.run("promote", "1.0", "testing", ok=False).tail
    assert "the release 1.0 is retired" in project.run("verify", "1.0", ok=False).tail
    project.manifest.write_text(first)
    project.write(
        "images/machine/machine.def", (project.root / "images/machine/machine.def").read_text().replace("2.0", "1.0")
    )
    assert (
        "1.0 was published in small.afpub.example and is retired"
        in project.run("release", project.manifest, ok=False).tail
    )


# ------------------------------------------------------------------ what stops a release


def stopped(project, revision, *, code, message, hint=""):
    """Runs a release that must be refused, and checks that nothing was published."""
    before = revision()
    done = project.run("release", project.manifest, ok=False)
    assert done.returncode == code, done.tail
    assert message in done.tail
    assert hint in done.tail
    assert "Traceback" not in done.tail
    assert revision() == before
    return done


def test_a_version_that_is_published_with_other_content(project, revision):
    project.release()
    project.edit("kernelspecs/small/kernel.toml", "Small", "Smaller")
    stopped(
        project,
        revision,
        code=9,
        message="1.0 is published in small.afpub.example with other content",
        hint="give this one a new version",
    )


def test_an_image_version_that_is_published_with_another_recipe(project, revision):
    project.release()
    project.describe(version="1.1", content="other")
    stopped(
        project,
        revision,
        code=9,
        message="the image machine 1.0 is published in small.afpub.example, but its recipe",
        hint="give it a new version in [images.machine]",
    )


def test_an_unknown_section_in_a_recipe(project, revision):
    project.write("images/machine/machine.def", "Bootstrap: scratch\n\n%pots\n    true\n")
    stopped(project, revision, code=3, message="%pots", hint="%post")


def test_a_post_section_that_fails_shows_its_last_lines(project, revision):
    text = (project.root / "images/machine/machine.def").read_text()
    project.write("images/machine/machine.def", f"{text}    echo about to fail >&2\n    false\n")
    stopped(project, revision, code=4, message="about to fail")


def test_a_kernel_that_names_a_missing_image(project, revision):
    project.edit("kernelspecs/small/kernel.toml", '"machine"', '"machin"')
    stopped(
        project,
        revision,
        code=3,
        message="the kernel runs in the image 'machin', which next.toml does not hold",
        hint="did you mean 'machine'?",
    )


def test_two_kernels_whose_names_differ_by_case(project, revision):
    project.edit("manifests/next.toml", '["small"]', '["small", "Small"]')
    stopped(project, revision, code=3, message="which differ only by case", hint="JupyterLab ignores case")


def test_an_unknown_key_names_the_nearest(project, revision):
    project.edit("manifests/next.toml", "channel", "chanel")
    stopped(project, revision, code=3, message="unknown key 'chanel'", hint="did you mean 'channel'?")


def test_a_smoke_cell_that_fails(project, revision):
    project.edit("kernelspecs/small/kernel.toml", "6 * 7", "6 * 8")
    done = stopped(project, revision, code=1, message="nothing was published")
    assert "48" in done.tail


def test_a_kernel_that_does_not_start(project, revision):
    project.edit("kernelspecs/small/kernel.toml", '"-m"', '"-q"')
    stopped(project, revision, code=1, message="the kernel did not start")


def test_an_expired_whitelist(project, revision):
    then = dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=40)
    resign_whitelist(project.repository, keys_folder=project.root / "keys", now=then)
    done = project.run("release", project.manifest, ok=False)
    assert done.returncode == 8
    assert "the whitelist" in done.tail
    assert "afpub keys resign" in done.tail
    project.run("keys", "resign")
    assert revision() == 1
    assert project.release()["new"] is True


def test_no_repository_yet(project):
    project.repository.rename(project.root / "elsewhere")
    done = project.run("release", project.manifest, ok=False)
    assert done.returncode == 7
    assert "afpub repo create small.afpub.example --at" in done.tail


def test_errors_are_json_for_machines(project):
    project.edit("manifests/next.toml", "channel", "chanel")
    document = project.release(ok=False)
    assert document["class"] == "ProjectError"
    assert document["exit_code"] == 3
    assert document["hint"] == "did you mean 'channel'?"


# ------------------------------------------------------------------ at the same time, and in the middle


def test_a_second_release_of_the_same_project(project, revision):
    (project.root / "work").mkdir()
    with exclusive(project.root / "work/release.lock", what="the work folder"):
        stopped(project, revision, code=10, message=f"{os.getpid()}")
    assert project.release()["new"] is True


def test_a_second_publisher_at_work(project, revision):
    project.run("release", project.manifest, "--dry-run")
    before = revision()
    (project.repository / ".afpub").mkdir(exist_ok=True)
    with exclusive(project.repository / ".afpub/lock", what="the repository"):
        done = project.run("release", project.manifest, ok=False)
    assert done.returncode == 10
    assert f"{os.getpid()}" in done.tail
    assert revision() == before
    assert project.release()["new"] is True


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("building", signal.SIGKILL),
        ("staging", signal.SIGINT),
        ("validating", signal.SIGINT),
        ("validating", signal.SIGKILL),
        ("publishing", signal.SIGKILL),
        ("verifying", signal.SIGINT),
        ("verifying", signal.SIGKILL),
    ],
)
def test_a_release_that_is_stopped_in_the_middle(project, revision, step, number):
    done = project.stop("release", project.manifest, at=step, number=number)
    if number is signal.SIGINT:
        assert done.returncode == 130, done.tail
        assert "interrupted: what is complete is kept, run the same command again to go on" in done.tail
    newest = revision()
    assert newest in ({1} if step in {"building", "staging", "validating"} else {1, 2})
    again = project.release()
    assert again["revision"] == 2
    assert again["copy"] is not None
    assert project.release()["copy"] is None
    assert revision() == 2
