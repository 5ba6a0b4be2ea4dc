from __future__ import annotations

import json
from dataclasses import replace

import pytest

from publisher.errors import BuildError
from publisher.images.built import BaseImage, BuiltImage, read_record, write_record
from publisher.images.inventory import InstalledPackage, Inventory
from publisher.images.permissions import Repair
from publisher.names import ImageName


@pytest.fixture
def built(tmp_path):
    return BuiltImage(
        image=ImageName("root"),
        variant="cpu",
        folder=tmp_path,
        inputs_digest="sha256:1",
        tree_digest="sha256:2",
        base=BaseImage(name=ImageName("base"), inputs_digest="sha256:3", tree_digest="sha256:4"),
        recipe="Bootstrap: scratch\n",
        build_args=(("VARIANT", "cpu"),),
        tools=(("apptainer", "1.4.5"),),
        inventory=Inventory(
            os="Debian", packages=(InstalledPackage(kind="deb", name="bash", version="5.2", origin="bash"),)
        ),
        repaired=(Repair(path="etc/shadow", mode=0o640), Repair(path="odd\udcff", mode=0)),
        seconds=12.345,
        size_bytes=3_000_000_000,
        files=17,
        sif="root.sif",
    )


def test_a_record_comes_back(built, tmp_path):
    write_record(built)
    assert read_record(tmp_path) == replace(built, reused=True)
    write_record(replace(built, base=None, variant="", sif=""))
    assert read_record(tmp_path) == replace(built, base=None, variant="", sif="", reused=True)


def test_a_record_says_nothing_of_the_machine(built, tmp_path):
    assert str(tmp_path) not in json.dumps(built.to_json())


def test_no_record_is_no_build(tmp_path):
    assert read_record(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ('{"schema": 9}', "{file}: another version of afpub wrote it"),
        ('{"schema": 1}', "{file}: the key 'image' is missing"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, text, message):
    file = tmp_path / "build.json"
    file.write_text(text)
    with pytest.raises(BuildError) as caught:
        read_record(tmp_path)
    assert caught.value.message == f"{file} cannot be read: {message.format(file=file)}"
    assert caught.value.hint == f"remove {tmp_path}"
