from __future__ import annotations

import pytest

from publisher.images.inventory import InstalledPackage, Inventory, read_inventory
from publisher.project.toml import Table

STATUS = """\
Package: libc6
Status: install ok installed
Priority: optional
Source: glibc (2.36-9)
Version: 2.36-9+deb12u14
Description: GNU C Library
 Status: not a field
 .
 More text: here

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok installed

Package: bash
Status: install ok installed
Version: 5.2
"""
METADATA = """\
Metadata-Version: 2.1
Name: {name}
Version: {version}
{extra}

A description with License: not this
"""


@pytest.fixture
def rootfs(tmp_path):
    root = tmp_path / "rootfs"
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text(STATUS)
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    return root


@pytest.fixture
def distribution(rootfs):
    def make(folder, name, version, extra="License: MIT", kind="dist-info"):
        place = rootfs / folder / f"{name}-{version}.{kind}"
        place.mkdir(parents=True)
        file = "METADATA" if kind == "dist-info" else "PKG-INFO"
        (place / file).write_text(METADATA.format(name=name, version=version, extra=extra))

    return make


def python(rootfs):
    return [(p.name, p.version, p.license, p.origin) for p in read_inventory(rootfs).packages if p.kind == "python"]


def test_debian_packages_are_those_that_are_installed(rootfs):
    inventory = read_inventory(rootfs)
    assert inventory.os == "Debian GNU/Linux 12 (bookworm)"
    assert inventory.packages == (
        InstalledPackage(kind="deb", name="bash", version="5.2", origin="bash"),
        InstalledPackage(kind="deb", name="libc6", version="2.36-9+deb12u14", origin="glibc"),
    )


def test_packages_of_every_python_are_found(rootfs, distribution):
    site = "usr/local/lib/python3.11/dist-packages"
    distribution(site, "numpy", "2.4.6")
    distribution("usr/local/lib/python2.7/dist-packages", "scandir", "1.10.0", kind="egg-info")
    distribution("usr/lib/python3/dist-packages", "pip", "23.0.1")
    distribution("opt/venv/lib/python3.11/site-packages", "numpy", "1.0")
    (rootfs / site / "old-1.egg-info").write_text(METADATA.format(name="old", version="1", extra="License: X"))
    assert python(rootfs) == [
        ("numpy", "1.0", "MIT", "/opt/venv/lib/python3.11/site-packages"),
        ("numpy", "2.4.6", "MIT", f"/{site}"),
        ("old", "1", "X", f"/{site}"),
        ("pip", "23.0.1", "MIT", "/usr/lib/python3/dist-packages"),
        ("scandir", "1.10.0", "MIT", "/usr/local/lib/python2.7/dist-packages"),
    ]


@pytest.mark.parametrize(
    ("extra", "license_"),
    [
        ("License-Expression: BSD-3-Clause AND MIT", "BSD-3-Clause AND MIT"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        (
            "License: Long text\n  of many lines\nClassifier: License :: OSI Approved :: BSD License",
            "BSD License",
        ),
        ("License: Long text\n  of many lines", "Long text"),
        ("Summary: says nothing", ""),
    ],
)
def test_the_license_is_what_the_package_says(rootfs, distribution, extra, license_):
    distribution("usr/lib/python3/dist-packages", "x", "1", extra)
    assert python(rootfs)[0][2] == license_


def test_links_out_of_the_image_are_not_followed(rootfs, tmp_path):
    outside = tmp_path / "host/python3.11/site-packages/evil-1.dist-info"
    outside.mkdir(parents=True)
    (outside / "METADATA").write_text(METADATA.format(name="evil", version="1", extra=""))
    (tmp_path / "status").write_text("Package: evil\nStatus: install ok installed\nVersion: 1\n")
    (rootfs / "usr").mkdir()
    (rootfs / "usr/lib").symlink_to(tmp_path / "host")
    (rootfs / "usr/local/lib/python3.11").mkdir(parents=True)
    (rootfs / "usr/local/lib/python3.11/site-packages").symlink_to(outside.parent)
    (rootfs / "var/lib/dpkg/status").unlink()
    (rootfs / "var/lib/dpkg/status").symlink_to(tmp_path / "status")
    assert read_inventory(rootfs).packages == ()


def test_an_image_with_no_packages_at_all(tmp_path):
    assert read_inventory(tmp_path) == Inventory(os="", packages=())


def test_the_inventory_comes_back_from_json(rootfs, distribution, tmp_path):
    distribution("usr/lib/python3/dist-packages", "pip", "23.0.1")
    inventory = read_inventory(rootfs)
    assert Inventory.from_json(Table(inventory.to_json(), file=tmp_path)) == inventory
