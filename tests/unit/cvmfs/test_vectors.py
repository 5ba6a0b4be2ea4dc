"""What the CVMFS tools wrote is read as their client shows it, and every damage is found."""

from __future__ import annotations

import base64
import contextlib
import json

import cvmfs_repository as repository
import cvmfs_vectors as vectors
import pytest

from publisher.cvmfs.check import check
from publisher.cvmfs.digest import Digest
from publisher.cvmfs.manifest import parse_manifest
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.reflog import parse_reflog
from publisher.cvmfs.rows import VIRTUAL
from publisher.cvmfs.whitelist import parse_whitelist
from publisher.errors import AfpubError
from publisher.report import Severity


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    return {name: vectors.extract(name, folder / name) for name in vectors.NAMES}


@pytest.fixture
def open_vector(repositories):
    def open_one(name):
        return open_repository(repositories[name], public_key=vectors.public_key(name), now=vectors.NOW)

    return open_one


@pytest.mark.parametrize("name", vectors.NAMES)
def test_catalogs_of_ours_have_the_same_tables_and_indexes(repositories, name, tmp_path):
    ours = vectors.tables_and_indexes(repository.make(tmp_path / "repo").folder)
    assert ours["idx_catalog_parent"] == ["parent_1", "parent_2"]
    assert ours == vectors.tables_and_indexes(repositories[name])


@pytest.mark.parametrize(("name", "label"), vectors.LABELS)
def test_tree_is_what_the_client_shows(open_vector, name, label):
    expected = _revision(name, "expected.json", label)
    with open_vector(name) as newest, newest.at(Digest.parse(expected["root_hash"])) as reader:
        assert reader.revision == expected["revision"]
        assert vectors.shown(reader) == expected["entries"]


@pytest.mark.parametrize(("name", "label"), vectors.LABELS)
def test_revision_is_found_by_its_number(open_vector, name, label):
    expected = _revision(name, "expected.json", label)
    with open_vector(name) as newest, newest.at(expected["revision"]) as reader:
        assert str(reader.root_hash) == expected["root_hash"]


def test_virtual_directory_is_read_but_not_listed(open_vector):
    name = "features.afpub.example"
    expected = _revision(name, "expected.json", "r3")["virtual_directory"]
    with open_vector(name) as reader:
        assert ".cvmfs" not in [stored.entry.name for stored in reader.listdir()]
        assert vectors.shown(reader, VIRTUAL) == expected


@pytest.mark.parametrize(("name", "label"), vectors.LABELS)
def test_catalogs_say_what_is_written_down(open_vector, name, label):
    expected = _revision(name, "catalogs.json", label)
    with open_vector(name) as newest, newest.at(Digest.parse(expected["root_hash"])) as reader:
        found = sorted((_catalog(info) for info in reader.catalogs()), key=_mount)
    wanted = [
        {key: value for key, value in each.items() if key not in {"object", "root_prefix", "root_prefix_b64"}}
        for each in expected["catalogs"]
    ]
    assert found == sorted(wanted, key=_mount)


def _mount(catalog) -> bytes:
    return (
        base64.b64decode(catalog["mount_path_b64"]) if "mount_path_b64" in catalog else catalog["mount_path"].encode()
    )


def _catalog(info) -> dict[str, object]:
    row: dict[str, object] = {
        **vectors._text("mount_path", info.mount_path or "/"),
        "hash": str(info.digest),
        "size": info.size_bytes,
        "rows": info.rows,
        "chunk_rows": info.chunk_rows,
        "counters": dict(info.statistics.rows()),
        "properties": {key: value for key, value in info.properties.items() if key != "root_prefix"},
        "nested": [_ref(ref) for ref in info.nested],
    }
    if info.binds:
        row["bind_mountpoints"] = [_ref(ref) for ref in info.binds]
    return row


def _ref(ref) -> dict[str, object]:
    return {**vectors._text("path", ref.path), "hash": str(ref.digest), "size": ref.size_bytes}


@pytest.mark.parametrize(("name", "label"), vectors.LABELS)
def test_manifest_is_read_and_written_byte_for_byte(tmp_path, name, label):
    expected = _revision(name, "manifest.json", label)
    repo = vectors.extract(name, tmp_path, label)
    manifest, envelope = parse_manifest((repo / ".cvmfspublished").read_bytes())
    fields = {line[0]: line[1:] for line in manifest.body().decode().splitlines()}
    assert fields == expected["fields"]
    assert manifest.body() == envelope.body
    assert envelope.signed_hash == expected["signed_hash"]


@pytest.mark.parametrize("name", vectors.NAMES)
def test_whitelist_tags_reflog_and_metainfo(repositories, open_vector, name):
    expected = vectors.load(name, "manifest.json")
    repo = repositories[name]
    whitelist, envelope = parse_whitelist((repo / ".cvmfswhitelist").read_bytes())
    assert whitelist.body() == envelope.body
    assert list(whitelist.fingerprints) == expected["whitelist"]["other_lines"]
    reflog = parse_reflog((repo / ".cvmfsreflog").read_bytes())
    rows = [{"hash": str(ref.digest), "type": int(ref.kind), "timestamp": ref.added_s} for ref in reflog.refs]
    assert sorted(rows, key=_by_hash) == sorted(expected["reflog"], key=_by_hash)
    with open_vector(name) as reader:
        tags = [
            {
                "name": tag.name,
                "hash": str(tag.root),
                "revision": tag.revision,
                "timestamp": tag.published_s,
                "channel": 0,
                "description": tag.description,
                "size": tag.size_bytes,
                "branch": tag.branch,
            }
            for tag in sorted(reader.tags(), key=lambda tag: tag.name)
        ]
    assert tags == expected["tags"]


def _by_hash(row):
    return row["hash"]


def _revision(name, file, label):
    return next(each for each in vectors.load(name, file)["revisions"] if each["label"] == label)


_KNOWN = {
    # mkfs -z leaves a reflog that its manifest does not name; the CVMFS tools complain about it too.
    ("sha1.afpub.example", "r1"): {"the digest of the reflog is not that in the manifest"},
}


@pytest.mark.parametrize(("name", "label"), vectors.LABELS)
def test_check_finds_nothing_in_what_the_tools_wrote(tmp_path, name, label):
    repo = vectors.extract(name, tmp_path, label)
    report = check(repo, public_key=vectors.public_key(name), now=vectors.NOW, all_tags=True)
    assert report.errors == ()
    if (name, label) in _KNOWN:
        assert {finding.message for finding in report.findings} == _KNOWN[name, label]
    elif name != "ingest.afpub.example":  # which stores links without their size
        assert [each for each in report.findings if each.severity is not Severity.ERROR] == []


@pytest.mark.parametrize("case", vectors.CASES, ids=lambda case: case["id"])
def test_every_damage_is_found(tmp_path, case):
    name = case["repository"]
    repo = vectors.extract(name, tmp_path)
    vectors.damage(case, repo)
    report = check(repo, public_key=vectors.public_key(name), now=vectors.NOW)
    if case["id"] == "none":
        assert report.findings == ()
    else:
        assert report.findings, case["description"]
    if case["exit_codes"]["check_signed"] or case["exit_codes"]["scrub"]:
        assert not report.ok


@pytest.mark.parametrize("case", vectors.CASES, ids=lambda case: case["id"])
def test_reader_never_shows_what_the_client_would_not(tmp_path, case):
    """A damaged repository is refused, or reads as it was: never another tree, never other bytes."""
    name = case["repository"]
    repo = vectors.extract(name, tmp_path)
    vectors.damage(case, repo)
    tree = None
    with contextlib.suppress(AfpubError), _opened(repo, name) as reader:
        tree = vectors.shown(reader)
    if tree is not None:
        assert case["client"]["mount"] in {0, 134}
    if tree is not None and case["client"].get("same"):
        assert tree == _revision(name, "expected.json", "r3")["entries"]


def _opened(repo, name):
    return open_repository(repo, public_key=vectors.public_key(name), now=vectors.NOW)


def test_cases_are_all_there():
    assert len(vectors.CASES) == 85
    assert json.dumps(vectors.CASES[0]["patch"]) == "[]"
