from __future__ import annotations

import json
import os

from publisher.kernels.writes import changed, published_trees

HOUR_AGO, NOW = 1_000_000_000, 1_000_003_600


def age(*paths):
    for path in paths:
        os.utime(path, (HOUR_AGO, HOUR_AGO))


def test_written_made_and_removed_files_are_found(tmp_path):
    for name in ("same", "written", "in/removed"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    age(tmp_path / "same", tmp_path / "written", tmp_path / "in", tmp_path)
    os.utime(tmp_path / "written", (NOW, NOW))
    (tmp_path / "in/removed").unlink()
    os.utime(tmp_path / "in", (NOW, NOW))
    assert sorted(changed(tmp_path, since_s=HOUR_AGO, until_s=NOW)) == ["in", "written"]
    assert changed(tmp_path, since_s=NOW, until_s=NOW + 1) == ()


def test_a_hard_link_made_elsewhere_is_no_write(tmp_path):
    file = tmp_path / "tree/file"
    file.parent.mkdir()
    file.write_text("")
    age(file, file.parent)
    os.link(file, tmp_path / "elsewhere")
    assert changed(file.parent, since_s=HOUR_AGO, until_s=NOW) == ()


def test_a_published_kernel_has_a_release_and_an_image(tmp_path):
    kernel = tmp_path / "af/releases/1.0/share/jupyter/kernels/py"
    image = tmp_path / "af/images/machine/1"
    for folder in (kernel, image):
        folder.mkdir(parents=True)
    about = {"afpub": {"image": "machine", "image_version": "1"}}
    (kernel / "kernel.json").write_text(json.dumps({"metadata": about}))
    assert published_trees(kernel) == (tmp_path / "af/releases/1.0", image)
    (kernel / "kernel.json").write_text("{}")
    assert published_trees(kernel) == (kernel,)
