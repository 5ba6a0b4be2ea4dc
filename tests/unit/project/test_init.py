import pytest

from publisher.errors import UsageError
from publisher.names import Fqrn, ReleaseVersion
from publisher.project.init import init_project


def init(folder):
    return init_project(folder, fqrn=Fqrn("kernels.example.org"), version=ReleaseVersion("1"))


def test_nothing_is_written_over(tmp_path):
    file = tmp_path / "manifests" / "first.toml"
    file.parent.mkdir()
    file.write_text("mine")
    with pytest.raises(UsageError, match=r"first.toml is there already"):
        init(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["manifests", "first.toml"]
    assert file.read_text() == "mine"


def test_keys_and_repository_stay_out_of_git(tmp_path):
    written = init(tmp_path / "new")
    assert (tmp_path / "new" / ".gitignore") in written
    assert "/keys/" in (tmp_path / "new" / ".gitignore").read_text().splitlines()
