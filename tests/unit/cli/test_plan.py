"""What ``afpub plan`` shows."""

from __future__ import annotations

from types import SimpleNamespace

from publisher.cli.releasing import catalog_tree
from publisher.records.release import CatalogPart
from publisher.staging.catalogs import State


def part(path, entries=2_000):
    return CatalogPart(path=path, entries=entries, size_bytes=3_000_000, digest=f"sha256:{path}")


def test_catalogs_hang_below_each_other_as_clients_load_them():
    found = (part("", 12_345), part("usr/lib"), part("usr/lib/x"), part("usr/lib/x/y"), part("usr/lib2"), part("z"))
    plan = SimpleNamespace(
        chain=(SimpleNamespace(definition=SimpleNamespace(name="base")),), inputs_digest="sha256:" + "0" * 64
    )
    states = dict.fromkeys((each.path for each in found), State.UNCHANGED) | {"usr/lib2": State.NEW, "": State.CHANGED}
    image = SimpleNamespace(plan=plan, catalogs=found, states=states)
    size = "2,000 entries, 3.0 MB, unchanged"
    assert catalog_tree(image) == {
        "made of base, inputs sha256:000000000000": {},
        "/: 12,345 entries, 3.0 MB, changed": {
            f"/usr/lib: {size}": {f"/usr/lib/x: {size}": {f"/usr/lib/x/y: {size}": {}}},
            "/usr/lib2: 2,000 entries, 3.0 MB, new": {},
            f"/z: {size}": {},
        },
    }
