"""Addresses of buckets, and where their keys come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.cvmfs.bucket import Bucket, credentials
from publisher.cvmfs.location import default_spool, is_bucket, source_of, storage_of
from publisher.cvmfs.s3.storage import S3Storage
from publisher.cvmfs.source import FolderSource, WebSource
from publisher.cvmfs.storage import FolderStorage
from publisher.errors import UsageError


def test_an_address_says_everything_but_keys():
    text = "s3://bucket/a/b?endpoint=https%3A%2F%2Fs3.example.org&region=eu-1&path_style=no"
    bucket = Bucket.parse(text)
    assert bucket == Bucket(
        name="bucket", prefix="a/b", endpoint="https://s3.example.org", region="eu-1", path_style=False
    )
    assert (bucket.location, bucket.where) == (text, "s3://bucket/a/b")
    assert Bucket.parse("s3://bucket/") == Bucket(name="bucket")
    assert Bucket.parse("s3://bucket").where == "s3://bucket"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3:///x", "'s3:///x' is no address of a bucket"),
        ("http://bucket/x", "'http://bucket/x' is no address of a bucket"),
        ("s3://key:secret@bucket/x", "credentials do not belong into the address of a bucket"),
        ("s3://bucket/x?secret=1", "unknown option 'secret' of a bucket"),
        ("s3://bucket/x?endpoint=ftp://a", "the endpoint 'ftp://a' is no http or https address"),
    ],
)
def test_addresses_that_are_wrong(text, message):
    with pytest.raises(UsageError) as caught:
        Bucket.parse(text)
    assert caught.value.message == message


def test_locations(tmp_path):
    assert isinstance(storage_of(tmp_path), FolderStorage)
    assert isinstance(storage_of("s3://bucket/x", spool=tmp_path), S3Storage)
    assert isinstance(source_of("http://host/x"), WebSource)
    assert isinstance(source_of("some/folder"), FolderSource)
    given = FolderStorage(tmp_path)
    assert storage_of(given) is given
    assert source_of(given) is given
    assert is_bucket("s3://b")
    assert not is_bucket(Path("s3:/b"))
    with pytest.raises(UsageError, match="http://host/x can be read only"):
        storage_of("http://host/x")


def test_each_bucket_has_a_spool_of_its_own(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    places = {default_spool(Bucket.parse(text)) for text in ("s3://b/x", "s3://b/y", "s3://b/x?region=r")}
    assert len(places) == 3
    assert all(place.parent == Path("/cache/afpub") for place in places)


def test_keys_come_from_the_usual_file(tmp_path, monkeypatch):
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = one\naws_secret_access_key = two%\n"
        "[other]\naws_access_key_id = three\naws_secret_access_key = four\naws_session_token = five\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{file}")
    assert credentials() == {"access_key_id": "one", "secret_access_key": "two%"}
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert credentials() == {"access_key_id": "three", "secret_access_key": "four", "session_token": "five"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from the environment")
    assert credentials() == {}, "the library reads the environment"


@pytest.mark.parametrize("text", ["", "no section", "[other]\n", "\xff"])
def test_a_file_without_keys_gives_none(tmp_path, monkeypatch, text):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/credentials")
    assert credentials() == {}
    (tmp_path / "credentials").write_bytes(text.encode("latin-1"))
    assert credentials() == {}


def test_nothing_shows_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    storage = storage_of("s3://bucket/x", spool=tmp_path)
    assert "secret" not in f"{storage!r} {storage.where} {storage._server.store!r}"
