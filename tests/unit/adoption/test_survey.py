import json
import os
import struct
from pathlib import Path

import pytest

from publisher.adoption.judge import judge, place
from publisher.adoption.sif import read_sif
from publisher.adoption.survey import survey
from publisher.adoption.write import Adoption, write
from publisher.errors import UsageError
from publisher.names import Fqrn, ImageName, ReleaseVersion, RepoPath
from publisher.project.load import load_project
from publisher.project.manifest import load_manifest

FILE = "{connection_file}"


def kernel(folder, *argv, **spec):
    folder.mkdir(parents=True)
    text = json.dumps({"argv": argv, "display_name": folder.name, "language": "python"} | spec)
    (folder / "kernel.json").write_text(text)


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return f"{path}"


def sif(path, *, definition="Bootstrap: scratch\n", cut=0):
    """A SIF file with a recipe and nothing else; ``cut`` bytes are missing at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = definition.encode()
    head = struct.pack(
        "<32s10s3s3s16sqqqqqqqq", b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC\0", b"01", b"02", b"",
        1_600_000_000, 0, 1, 2, 128, 585 * 2, 4096, len(text),
    )  # fmt: skip
    used = True
    row = struct.pack("<i?IIIqqqqqqq128s384s", 0x4001, used, 1, 1, 0, 4096, len(text), len(text), 0, 0, 0, 0, b"", b"")
    data = (head + row).ljust(4096, b"\0") + text
    path.write_bytes(data[: len(data) - cut])
    return path


def sandbox(folder, *, definition="Bootstrap: docker\n"):
    for name in ("bin", "usr", "etc", ".singularity.d"):
        (folder / name).mkdir(parents=True)
    (folder / ".singularity.d/Singularity").write_text(definition)
    executable(folder / "bin/sh", "#!/bin/true\n")
    return folder


@pytest.fixture
def t3s(tmp_path):
    """A tree laid out as facilities lay theirs out."""
    root = tmp_path / "t3s"
    image = sif(root / "slac/singularity/atlas-slac.20210403.sif")
    sandbox(root / "users/somebody/ML base")
    launch = executable(
        root / "common/launch/pyroot.sh",
        "#!/bin/bash\nexport PYTHON_VER=$1\n. $HOME/notebooks/.user_setups\nexec python$1 -m ipykernel -f $2\n",
    )
    common = root / "common/kernels"
    kernel(common / "pyroot3", launch, "3", FILE)
    kernel(common / "pyroot2", launch, "2", FILE)
    kernel(common / "ml", "singularity", "exec", "--nv", f"{image}", "python3", "-m", "ipykernel_launcher", "-f", FILE)
    return root


def adoption(tree, **more):
    values = {
        "survey": survey(tree),
        "fqrn": Fqrn("atlas.example.org"),
        "at": RepoPath("/jupyter/t3s"),
        "prefix": RepoPath("/jupyter/af"),
        "version": ReleaseVersion("2026.11.1"),
    }
    return Adoption(**values | more)


def checks(tree):
    found = survey(tree)
    return [(row.severity.value, row.check, row.where) for row in judge(found).findings if row.severity != "note"]


def test_everything_is_found(t3s):
    found = survey(t3s)
    assert [place(found, row.folder) for row in found.kernels] == [
        f"common/kernels/{n}" for n in ("ml", "pyroot2", "pyroot3")
    ]
    assert [(place(found, row.path), row.kind) for row in found.images] == [
        ("slac/singularity/atlas-slac.20210403.sif", "sif"),
        ("users/somebody/ML base", "sandbox"),
    ]
    image = found.images[0].sif
    assert (image.architecture, image.created.year, image.whole, image.signed) == ("amd64", 2020, True, False)
    assert [row.definition for row in found.images] == ["Bootstrap: scratch\n", "Bootstrap: docker\n"]


def test_nothing_is_wrong_with_it(t3s):
    assert checks(t3s) == []


def test_what_is_written_is_a_project(t3s, tmp_path):
    project = tmp_path / "project"
    write(adoption(t3s, image=ImageName("ml-base")), judge(survey(t3s)), project)
    loaded = load_project(project)
    assert loaded.kernel_names() == ("ml", "pyroot2", "pyroot3")
    assert loaded.image_names() == ("atlas-slac.20210403", "ml-base")
    three = loaded.kernel("pyroot3")
    assert three.command == ("python3", "-m", "ipykernel", "-f", FILE)
    assert (three.image, three.python_ver, three.user_setup) == ("ml-base", "3", "~/notebooks/.user_setups")
    ml = loaded.kernel("ml")
    assert (ml.image, ml.gpu, ml.command[0]) == ("atlas-slac.20210403", "auto", "python3")
    manifest = load_manifest(project / "manifests/adopted.toml")
    assert len(loaded.kernels_of(manifest)) == 3
    assert {f"{alias.path}": f"{alias.kernel or alias.image}" for alias in manifest.aliases} == {
        "/jupyter/t3s/common/kernels/ml": "ml",
        "/jupyter/t3s/common/kernels/pyroot2": "pyroot2",
        "/jupyter/t3s/common/kernels/pyroot3": "pyroot3",
        "/jupyter/t3s/slac/singularity/atlas-slac.20210403.sif": "atlas-slac.20210403",
        "/jupyter/t3s/users/somebody/ML base": "ml-base",
    }
    recipe = (project / "images/ml-base/ml-base.def").read_text()
    assert f"Bootstrap: localimage\nFrom: {t3s}/users/somebody/ML base\n" in recipe
    assert (project / "images/atlas-slac.20210403/built-from.def").read_text() == "Bootstrap: scratch\n"
    index = json.loads((project / "adopted/index.json").read_text())
    assert [row["defined_in"] for row in index["kernels"]] == ["atlas-slac.20210403", "ml-base", "ml-base"]
    assert '["ml-base", ' in (project / "adopted/ondemand-form.yml").read_text()
    compile((project / "adopted/jupyterhub_config.py").read_text(), "jupyterhub_config.py", "exec")


def test_the_tree_is_left_alone(t3s, tmp_path):
    def state():
        return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in t3s.rglob("*")}

    before = state()
    write(adoption(t3s), judge(survey(t3s)), tmp_path / "project")
    assert state() == before


def test_kernels_without_an_image_stay_kernels_of_the_host(t3s, tmp_path):
    write(adoption(t3s), judge(survey(t3s)), tmp_path / "project")
    project = load_project(tmp_path / "project")
    assert project.kernel_names() == ("ml", "pyroot2", "pyroot3")
    assert [project.kernel(name).image for name in project.kernel_names()] == ["atlas-slac.20210403", None, None]
    messages = [row.message for row in judge(survey(t3s)).findings if row.check == "no-image"]
    assert messages == ["it runs wherever the server runs; --image NAME puts it into an image"] * 2


def test_what_is_there_is_not_overwritten(t3s, tmp_path):
    mine = tmp_path / "project/kernelspecs/ml/kernel.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UsageError, match=r"ml/kernel\.toml is there already"):
        write(adoption(t3s), judge(survey(t3s)), tmp_path / "project")
    assert [path for path in (tmp_path / "project").rglob("*") if path.is_file()] == [mine]


@pytest.mark.parametrize(
    ("argv", "spec", "finding"),
    [
        (("python3", "-m", "ipykernel", "-f", FILE), {}, ("error", "program")),
        (("python3.9", "-m", "ipykernel", "-f", FILE), {}, ("error", "program")),
        (("/no/such/python", "-f", FILE), {}, ("error", "program")),
        (("/etc/passwd", "-f", FILE), {}, ("error", "program")),
        (("/bin/sh", "-f"), {}, ("error", "kernel-json")),
        (("/bin/sh", "-f", FILE), {"language": ""}, ("warning", "kernel-json")),
        (("/bin/sh", "-f", FILE), {"env": {"MY_TOKEN": "x"}}, ("error", "secret")),
        (("/bin/sh", "-f", FILE), {"env": {"LD_LIBRARY_PATH": "/x"}}, ("warning", "environment")),
        (("singularity", "exec", "/no/image.sif", "python3", FILE), {}, ("error", "image-missing")),
        (("singularity", "exec", "-B", "/no/such", "/etc", "python3", FILE), {}, ("warning", "bind")),
        ((), {}, ("error", "kernel-json")),
    ],
)
def test_kernels_that_do_not_work(tmp_path, argv, spec, finding):
    kernel(tmp_path / "tree/kernels/bad", *argv, **spec)
    assert (*finding, "kernels/bad") in checks(tmp_path / "tree")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"argv": 1}', '{"argv": ["x"], "env": ["y"]}'])
def test_kernelspecs_that_cannot_be_read(tmp_path, text):
    (tmp_path / "tree/bad").mkdir(parents=True)
    (tmp_path / "tree/bad/kernel.json").write_text(text)
    assert ("error", "kernel-json", "bad") in checks(tmp_path / "tree")


def test_two_kernels_of_one_name(tmp_path):
    for folder in ("a", "b"):
        kernel(tmp_path / f"tree/{folder}/Root", "/bin/sh", FILE)
    found = checks(tmp_path / "tree")
    assert ("error", "kernel-name", "b/Root") in found
    assert found.count(("error", "kernel-name", "a/Root")) == 1, "capitals only"


def test_an_image_that_was_cut_off(tmp_path):
    path = sif(tmp_path / "tree/x.sif", cut=3)
    assert not read_sif(path).whole
    assert checks(tmp_path / "tree") == [("error", "image-cut", "x.sif")]


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"#!/bin/sh\n" * 20])
def test_files_that_are_no_image(tmp_path, data):
    (tmp_path / "x.sif").write_bytes(data)
    assert read_sif(tmp_path / "x.sif") is None
    assert survey(tmp_path).images == ()


def test_an_image_of_singularity_2(tmp_path):
    (tmp_path / "old.simg").write_bytes(b"#!/usr/bin/env run-singularity\n".ljust(31, b"\n") + b"hsqs" + b"\0" * 100)
    assert checks(tmp_path) == [("warning", "no-recipe", "old.simg"), ("warning", "old-format", "old.simg")]


def test_a_sandbox_with_files_missing(tmp_path):
    folder = sandbox(tmp_path / "tree/image", definition="Bootstrap: docker\n%setup\n cp /tmp/x $SINGULARITY_ROOTFS\n")
    (folder / "bin/sh").unlink()
    (folder / "usr/.wh.gone").touch()
    found = checks(tmp_path / "tree")
    assert {check for severity, check, _ in found if severity == "error"} == {"image-shell", "whiteout"}
    assert ("warning", "recipe", "image") in found


def test_environments(tmp_path):
    conda = tmp_path / "tree/conda/ml"
    (conda / "conda-meta").mkdir(parents=True)
    (conda / "lib/python3.8").mkdir(parents=True)
    url = "https://conda.example/linux-64/numpy-1.20-0.conda"
    (conda / "conda-meta/numpy-1.20-0.json").write_text(json.dumps({"url": url, "md5": "0f"}))
    executable(conda / "bin/pip", "#!/old/place/bin/python3.8\n")
    kernel(conda / "share/jupyter/kernels/python3", f"{conda}/bin/python", "-f", FILE)
    venv = tmp_path / "tree/venv"
    (venv / "lib/python3.9/site-packages/uproot-4.0.dist-info").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    found = survey(tmp_path / "tree")
    assert [(row.kind, row.python, row.packages) for row in found.environments] == [
        ("conda", "3.8", (f"{url}#0f",)),
        ("venv", "3.9", ("uproot==4.0",)),
    ]
    assert [row.name for row in found.kernels] == ["python3"]
    assert ("error", "moved", "conda/ml") in checks(tmp_path / "tree")
    write(adoption(tmp_path / "tree"), judge(found), tmp_path / "project")
    assert (tmp_path / "project/adopted/conda-ml.txt").read_text().splitlines()[1:] == ["@EXPLICIT", f"{url}#0f"]


def test_links_are_not_followed(tmp_path):
    kernel(tmp_path / "tree/kernels/x", "/bin/sh", FILE)
    (tmp_path / "tree/loop").symlink_to(tmp_path / "tree")
    assert len(survey(tmp_path / "tree").kernels) == 1


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        survey(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_what_cannot_be_looked_into(tmp_path):
    (tmp_path / "tree/closed").mkdir(parents=True)
    (tmp_path / "tree/closed").chmod(0)
    assert checks(tmp_path / "tree") == [("warning", "unreadable", "closed")]
    Path(tmp_path / "tree/closed").chmod(0o755)
