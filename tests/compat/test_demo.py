"""The main job on real input: recipes to kernels that run from a signed repository."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import jsonschema
import pytest
from compat.client import mounted
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from publisher import tools
from publisher.cvmfs.check import check
from publisher.cvmfs.reader import open_repository
from publisher.records.release import parse_release
from publisher.release.verify import folder_view, verify_record

pytestmark = pytest.mark.images
KERNELS = ["pyroot2", "pyroot3", "python3-ml", "python3-ml-usersite", "rootcpp"]
_NOBODY = 65534


def published_file(demo, path: str) -> bytes:
    with open_repository(demo.repository, public_key=demo.public_key.read_bytes()) as reader:
        return b"".join(reader.read(f"/jupyter/{path}"))


def test_the_release_says_what_it_did(demo):
    outcome = demo.outcome
    assert (outcome["new"], outcome["revision"]) == (True, 2)
    assert sorted(outcome["kernels"]) == KERNELS
    assert set(outcome["seconds"]) >= {"validating", "publishing one revision", "verifying"}


def test_a_second_run_makes_no_revision(demo):
    again = demo.json("release", "manifests/demo.toml")
    assert (again["new"], again["revision"]) == (False, demo.outcome["revision"])


def test_the_repository_is_whole(demo):
    report = check(demo.repository, public_key=demo.public_key.read_bytes())
    assert report.ok, report.errors


@pytest.mark.parametrize("name", ["index", "release"])
def test_published_documents_are_as_their_schemas_say(demo, name, pytestconfig):
    schema = json.loads((pytestconfig.rootpath / f"docs/schemas/{name}.schema.json").read_text())
    path = "index.json" if name == "index" else f"releases/{demo.outcome['release']}/release.json"
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(published_file(demo, path)), schema)


def test_the_record_tells_where_everything_came_from(demo):
    record = parse_release(published_file(demo, f"releases/{demo.outcome['release']}/release.json"))
    packages = {(row.kind, row.name.lower()) for row in record.image("root").packages}
    assert {("deb", "g++"), ("python", "uproot"), ("python", "root")} <= packages
    assert record.image("python3-ml").base == "root"
    assert record.image("python27").recipe.startswith("#")
    assert record.image("root").os.startswith("Debian GNU/Linux 12")


def test_catalogs_are_neither_large_nor_needlessly_small(demo):
    with open_repository(demo.repository) as reader:
        rows = {info.mount_path: info.rows for info in reader.catalogs()}
    assert {path.split("/")[3] for path in rows if path} == {"python27", "python3-ml", "root"}
    assert all(count <= 30_000 for count in rows.values()), rows
    assert all(count >= 1_000 for path, count in rows.items() if path), rows


def test_nothing_of_the_machine_or_its_secrets_is_published(demo):
    """Settings that builds are given must not stay in images; private keys must not be served."""
    record = published_file(demo, f"releases/{demo.outcome['release']}/release.json").decode()
    assert os.uname().nodename not in record
    assert str(demo.root) not in record
    assert "PRIVATE KEY" not in record
    with open_repository(demo.repository) as reader:
        etc = {stored.entry.name for stored in reader.listdir("/jupyter/images/root/6.40.0/etc")}
    assert "pip.conf" not in etc


# ------------------------------------------------------------------ the real client


@pytest.fixture
def open_folder():
    """A temporary folder that every user can enter, unlike those of pytest."""
    # A client that was unmounted may yet write a last line to its log.
    with tempfile.TemporaryDirectory(prefix="afpub-test-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.fixture
def mount(demo, demo_url, require_tool, require_root, open_folder):
    require_tool("cvmfs2")
    with mounted(demo.fqrn, demo_url, public_key=demo.public_key, work=open_folder) as folder:
        yield folder


def test_the_client_shows_what_was_released(demo, mount):
    record = parse_release((mount / f"jupyter/releases/{demo.outcome['release']}/release.json").read_bytes())
    report = verify_record(folder_view(mount / "jupyter", record.prefix), record, images=())
    assert report.ok, report.errors
    assert os.readlink(mount / "jupyter/channels/stable") == f"../releases/{demo.outcome['release']}"


@contextlib.contextmanager
def started(launch: Path, home: Path):
    """A kernel that an ordinary user started, and its client."""
    file, _ = write_connection_file(str(home / "connection.json"))
    os.chown(file, _NOBODY, _NOBODY)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "USER": "nobody"}
    words = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", launch, file]
    with tools.spawn(words, env=environment, cwd=home, log=home / "kernel.log"):
        client = BlockingKernelClient(connection_file=file)
        client.load_connection_file()
        client.start_channels(hb=False)  # without a manager it would take a kernel that is not there yet for dead
        try:
            client.wait_for_ready(timeout=180)
            yield client
        finally:
            client.stop_channels()


@pytest.fixture
def home(open_folder):
    """A home folder that belongs to an ordinary user."""
    folder = open_folder / "home"
    folder.mkdir()
    os.chown(folder, _NOBODY, _NOBODY)
    return folder


@pytest.mark.parametrize(
    ("kernel", "code", "expect"),
    [
        ("rootcpp", 'TH1F h("h", "h", 10, 0, 1); h.Fill(.5); h.GetEntries()', "(double) 1.0000000"),
        ("pyroot3", "import ROOT, os; print(os.geteuid(), ROOT.gROOT.GetVersion())", f"{_NOBODY} 6.40"),
        ("pyroot2", "import sys; print sys.version_info[:2]", "(2, 7)"),
    ],
)
def test_an_ordinary_user_starts_kernels_from_the_mount(mount, home, kernel, code, expect):
    launch = mount / "jupyter/channels/stable/share/jupyter/kernels" / kernel / "launch"
    with started(launch, home) as client:
        shown = []
        client.execute_interactive(
            code,
            timeout=120,
            output_hook=lambda message: shown.append(message["content"].get("text", "")),
        )
    assert expect in "".join(shown)
