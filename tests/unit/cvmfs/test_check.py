"""What a check says about the parts that no vector damages, and what a reader says to wrong questions."""

from __future__ import annotations

import json
from dataclasses import replace

import cvmfs_repository as repository
import pytest
from cvmfs_repository import file, graft, later

from publisher.cvmfs.check import check
from publisher.cvmfs.compression import METADATA, REPLICATED
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.history import Branch, Tag, encode_history
from publisher.cvmfs.keys import KeyFiles
from publisher.cvmfs.manifest import parse_manifest
from publisher.cvmfs.reader import open_repository
from publisher.cvmfs.reflog import Ref, RefKind, Reflog, encode_reflog, parse_reflog
from publisher.cvmfs.signing import load_signer
from publisher.cvmfs.storage import FolderStorage
from publisher.cvmfs.store import ObjectStore
from publisher.errors import FormatError, NotFoundError, RepositoryError, TrustError
from publisher.names import Fqrn
from publisher.report import Severity


@pytest.fixture
def repo(tmp_path):
    made = repository.make(tmp_path / "repo")
    made.publish(graft("/a", file("f", b"1"), file("n/g", bytes(600_000)), catalogs=("", "n")))
    return made


def run(repo, **more):
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    return check(repo.folder, public_key=key, now=repository.NOW, **more)


def messages(report):
    return [finding.message for finding in report.findings]


def sign(repo, **fields):
    """The manifest with other fields, signed as it should be."""
    path = repo.folder / ".cvmfspublished"
    manifest, _ = parse_manifest(path.read_bytes())
    signer = load_signer(KeyFiles(folder=repo.keys, fqrn=repository.FQRN))
    path.write_bytes(signer.sign(replace(manifest, **fields)))


def store(repo, data: bytes, kind: ObjectKind) -> Digest:
    manifest, _ = parse_manifest((repo.folder / ".cvmfspublished").read_bytes())
    objects = ObjectStore(FolderStorage(repo.folder), algorithm=manifest.algorithm)
    digest = objects.add(data, kind, REPLICATED)
    objects.flush()
    return digest


def log(repo, change) -> None:
    path = repo.folder / ".cvmfsreflog"
    data = encode_reflog(change(parse_reflog(path.read_bytes())))
    path.write_bytes(data)
    manifest, _ = parse_manifest((repo.folder / ".cvmfspublished").read_bytes())
    sign(repo, reflog=manifest.algorithm.digest(data))


def test_without_a_key_signatures_are_not_checked(repo):
    path = repo.folder / ".cvmfspublished"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert check(repo.folder).findings == ()
    assert messages(run(repo)) == [f"the signature of the manifest of {repo.folder} is wrong"]


def test_contents_are_only_read_when_asked(repo):
    with repo.open() as reader:
        path = repo.folder / reader.lookup("a/f").digest.object_name(ObjectKind.FILE)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert run(repo, data=False).findings == ()
    assert not run(repo).ok
    path.unlink()
    (finding,) = run(repo, data=False).findings
    assert (finding.check, finding.where) == ("object-missing", "/a/f")


def test_no_repository_is_one_finding(tmp_path):
    (finding,) = check(tmp_path).findings
    assert finding.message == f"{tmp_path} is no repository: it has no .cvmfspublished"


def test_metainfo_that_is_no_json(repo):
    digest = store(repo, b"administrator: me", ObjectKind.METAINFO)
    log(repo, lambda reflog: reflog.with_refs([Ref(digest=digest, kind=RefKind.METAINFO, added_s=1)]))
    sign(repo, metainfo=digest)
    (message,) = messages(run(repo))
    assert message.startswith("the metainfo is no JSON: ")


def test_reflog_that_lacks_what_the_manifest_names(repo):
    log(repo, lambda reflog: Reflog(fqrn=reflog.fqrn))
    assert messages(run(repo)) == [
        f"the reflog does not hold the {what} of the manifest"
        for what in ("root catalog", "certificate", "tag database", "metainfo")
    ]


def test_reflog_of_another_repository_and_with_objects_that_are_gone(repo):
    gone = Digest.parse("ab" * 20)
    log(
        repo,
        lambda reflog: replace(
            reflog.with_refs([Ref(digest=gone, kind=RefKind.CATALOG, added_s=1)]), fqrn="other.example.org"
        ),
    )
    assert messages(run(repo)) == [
        "the reflog is that of other.example.org",
        f"the reflog holds {gone.object_name(ObjectKind.CATALOG)}, which is not there",
    ]


def test_reflog_that_the_manifest_does_not_name(repo):
    sign(repo, reflog=None)
    assert messages(run(repo)) == ["there is a reflog that the manifest does not name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fqrn": "other.example.org"}, "the tag database is that of other.example.org"),
        ({"branches": (Branch(), Branch(name="b", parent=""))}, "no tag is on the branch 'b'"),
    ],
)
def test_tag_databases(repo, change, message):
    with repo.open() as reader:
        history = replace(reader.history(), **change)
    digest = store(repo, encode_history(history), ObjectKind.HISTORY)
    log(repo, lambda reflog: reflog.with_refs([Ref(digest=digest, kind=RefKind.HISTORY, added_s=1)]))
    sign(repo, history=digest)
    assert messages(run(repo)) == [message]


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ({"name": "with space"}, "the tag name 'with space' is not legal"),
        ({"size_bytes": 5, "revision": 1}, "the size of the tag's root catalog is wrong"),
    ],
)
def test_tags_that_are_wrong(repo, tag, message):
    with repo.open() as reader:
        first = reader.history().tag("trunk-previous")
        assert isinstance(first, Tag)
        history = reader.history().with_tag(replace(first, **({"name": "new"} | tag)))
    digest = store(repo, encode_history(history), ObjectKind.HISTORY)
    log(repo, lambda reflog: reflog.with_refs([Ref(digest=digest, kind=RefKind.HISTORY, added_s=1)]))
    sign(repo, history=digest)
    assert messages(run(repo)) == [message]


def test_revision_that_is_not_that_of_the_root_catalog(repo):
    sign(repo, revision=7)
    assert messages(run(repo)) == ["the root catalog is of revision 2, not 7"]


def test_links_and_folders_among_the_objects(repo):
    (repo.folder / "data" / "ab").mkdir(exist_ok=True)
    (repo.folder / "data" / "ab" / ("0" * 38)).symlink_to("/etc/passwd")
    (repo.folder / "data" / "longer").mkdir()
    assert sorted(messages(run(repo))) == ["is no folder of objects", "is no plain file"]


def test_report_is_made_of_errors_and_json(repo):
    sign(repo, revision=7)
    report = run(repo)
    assert [finding.severity for finding in report.findings] == [Severity.ERROR]
    assert json.loads(json.dumps(report.to_json()))["ok"] is False


def test_wrong_questions_to_a_reader(repo):
    with repo.open() as reader:
        with pytest.raises(NotFoundError, match=r"has no tag 'v9'"):
            reader.at("v9")
        with pytest.raises(NotFoundError, match=r"has no revision 9"):
            reader.at(9)
        with pytest.raises(NotFoundError, match="there is no directory /a/f in"):
            reader.listdir("a/f")
        with pytest.raises(NotFoundError, match="there is no /b in"):
            list(reader.walk("b"))
        with pytest.raises(NotFoundError, match="there is no file /a in"):
            reader.read("a")
        with reader.at(str(reader.root_hash)) as same:
            assert same.revision == 2
        with reader.at("trunk") as same:
            assert same.root_hash == reader.root_hash
        outside = replace(reader.lookup("a/f"), external=True)
        with pytest.raises(RepositoryError, match="the bytes of /a/f are not in the repository"):
            reader.read(outside)
        shorter = reader.lookup("a/f")
        longer = replace(shorter, entry=shorter.entry._replace(size_bytes=2))
        with pytest.raises(FormatError, match="has 1 bytes of content, the catalog says 2"):
            list(reader.read(longer))


def test_revisions_without_a_tag_are_found_through_their_successors(repo):
    repo.publish(graft("/b", file("f", b"2")), at=later(1))
    repo.publish(graft("/c", file("f", b"3")), at=later(2))
    with repo.open() as reader, reader.at(2) as older:
        assert [stored.path for stored in older.listdir()] == ["a"]


def test_listing_has_only_what_is_in_the_directory(repo):
    with repo.open() as reader:
        assert [stored.path for stored in reader.listdir("/a/")] == ["a/.cvmfscatalog", "a/f", "a/n"]
        assert reader.lookup("/a/n/g").content_key.endswith("P0")


def test_another_name_than_expected(repo):
    key = (repo.keys / f"{repository.FQRN}.pub").read_bytes()
    with pytest.raises(TrustError, match=r"is the repository test\.afpub\.example, not other\.example\.org"):
        open_repository(repo.folder, fqrn=Fqrn("other.example.org"), public_key=key, now=repository.NOW)


def test_a_certificate_that_a_stratum_1_would_pack_otherwise(tmp_path, monkeypatch):
    repo = repository.make(tmp_path / "repo")
    monkeypatch.setattr("publisher.cvmfs.commit.REPLICATED", METADATA)
    repo.publish(graft("/a", file("f", b"1")))
    (found,) = check(repo.folder, now=repository.NOW).findings
    assert (found.check, found.where[-1], found.hint) == ("replication", "X", "publish again")
    assert found.message == "it is not packed as a stratum 1 packs it: clients would find the copy there damaged"
    monkeypatch.undo()
    repo.publish(graft("/a", file("f", b"2")))
    assert check(repo.folder, now=repository.NOW).findings == ()
