from __future__ import annotations

import json
import os

import pytest

from publisher.images.apptainer import SOURCE_DATE_EPOCH
from publisher.images.finish import finish_rootfs


@pytest.fixture
def rootfs(tmp_path):
    root = tmp_path / "rootfs"
    (root / ".singularity.d/env").mkdir(parents=True)
    (root / ".singularity.d/env/90-environment.sh").write_text("export A=1\n")
    (root / ".singularity.d/Singularity").write_text("Bootstrap: localimage\nFrom: /home/jane/base\n")
    (root / ".singularity.d/labels.json").write_text(
        json.dumps(
            {
                "title": "mine",
                "org.label-schema.build-date": "Tuesday",
                "org.label-schema.usage.singularity.deffile.from": "/home/jane/base",
                "org.label-schema.usage.singularity.deffile.mirrorurl": "http://inside.example/debian",
                "org.label-schema.usage.singularity.deffile.bootstrap": "localimage",
            }
        )
    )
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_text("x")
    return root


def finish(rootfs, **changes):
    finish_rootfs(
        rootfs,
        **({"recipe": "RECIPE\n", "base": "base", "inputs_digest": "sha256:1", "bind_points": ()} | changes),
    )


def test_nothing_of_the_building_machine_stays(rootfs):
    finish(rootfs)
    assert (rootfs / ".singularity.d/Singularity").read_text() == "RECIPE\n"
    assert json.loads((rootfs / ".singularity.d/labels.json").read_text()) == {
        "title": "mine",
        "org.afpub.inputs-digest": "sha256:1",
        "org.label-schema.build-date": "2026-01-01T00:00:00Z",
        "org.label-schema.usage.singularity.deffile.bootstrap": "localimage",
        "org.label-schema.usage.singularity.deffile.from": "base",
    }
    text = "".join(file.read_text() for file in (rootfs / ".singularity.d").rglob("*") if file.is_file())
    assert "jane" not in text
    assert "inside.example" not in text


def test_the_name_of_a_registry_image_is_kept(rootfs):
    file = rootfs / ".singularity.d/labels.json"
    file.write_text('{"org.label-schema.usage.singularity.deffile.from": "debian@sha256:0"}')
    finish(rootfs, base="")
    labels = json.loads(file.read_text())
    assert labels["org.label-schema.usage.singularity.deffile.from"] == "debian@sha256:0"


def test_what_the_runtime_wrote_has_one_time_and_the_rest_its_own(rootfs):
    os.utime(rootfs / "usr/bin/tool", (SOURCE_DATE_EPOCH + 500,) * 2)
    finish(rootfs)
    assert (rootfs / ".singularity.d/labels.json").stat().st_mtime == SOURCE_DATE_EPOCH
    assert (rootfs / ".singularity.d/env").stat().st_mtime == SOURCE_DATE_EPOCH
    assert rootfs.stat().st_mtime == SOURCE_DATE_EPOCH
    assert (rootfs / "usr/bin/tool").stat().st_mtime == SOURCE_DATE_EPOCH + 500


def test_mount_points_are_made_and_links_are_not_followed(rootfs, tmp_path):
    (tmp_path / "host").mkdir()
    (rootfs / "data").symlink_to(tmp_path / "host")
    finish(rootfs, bind_points=("/cvmfs", "/a/b", "/data/inside", "/usr"))
    assert (rootfs / "cvmfs").is_dir()
    assert (rootfs / "a/b").stat().st_mode & 0o7777 == 0o755
    assert list((tmp_path / "host").iterdir()) == []


def test_a_root_file_system_without_metadata_is_left_alone(tmp_path):
    (tmp_path / "rootfs").mkdir()
    finish(tmp_path / "rootfs")
    assert list((tmp_path / "rootfs").iterdir()) == []


def test_a_link_in_the_place_of_the_metadata_is_not_written_through(rootfs, tmp_path):
    (tmp_path / "victim").write_text("{}")
    (rootfs / ".singularity.d/labels.json").unlink()
    (rootfs / ".singularity.d/labels.json").symlink_to(tmp_path / "victim")
    (rootfs / ".singularity.d/Singularity").unlink()
    (rootfs / ".singularity.d/Singularity").symlink_to(tmp_path / "victim")
    finish(rootfs)
    assert (tmp_path / "victim").read_text() == "{}"
