from __future__ import annotations

import pytest

from publisher.errors import ProjectError, RecipeError
from publisher.images.inputs import inputs_digest
from publisher.images.recipe import check_recipe, load_recipe
from publisher.project.image import load_image

GOOD = """\
Bootstrap: localimage
From: {{ BASE }}

%arguments
    VARIANT=cpu

%files
    {{ VARIANT }}.lock /opt/lock
    data /opt/data

%post
    install {{ APT_MIRROR }}

%test
    true
"""
TOML = """\
base = "base"
locks = ["cpu.lock", "cuda.lock"]
[variants.cpu]
build_args = { VARIANT = "cpu" }
[variants.cuda]
build_args = { VARIANT = "cuda" }
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "ml"
    (folder / "data").mkdir(parents=True)
    for name, text in {
        "ml.def": GOOD,
        "image.toml": TOML,
        "cpu.lock": "a==1\n",
        "cuda.lock": "a==2\n",
        "data/x": "x",
    }.items():
        (folder / name).write_text(text)
    return folder


def findings(folder):
    report = check_recipe(load_image(folder))
    return [(f.severity.value, f.check, f.where, f.message, f.hint) for f in report.findings]


def digest(folder, variant="cpu", base="sha256:b"):
    return inputs_digest(load_image(folder), variant=variant, base_digest=base)


def test_a_good_recipe_has_no_findings(folder):
    assert findings(folder) == []
    recipe = load_recipe(load_image(folder), "cuda")
    assert recipe.arguments == (("VARIANT", "cuda"),)
    assert recipe.asks == {"APT_MIRROR", "BASE"}
    assert [copy.source for copy in recipe.copies] == ["cuda.lock", "data"]


def test_a_missing_input_is_found_with_the_nearest_file(folder):
    (folder / "ml.def").write_text(GOOD.replace("    data /opt", "    dat /opt"))
    message = f"{folder}/ml.def:9: the file 'dat' of %files does not exist"
    one = ("error", "recipe", f"{folder}/ml.def", message, "did you mean 'data'?")
    assert findings(folder) == [
        one,
        one,
    ]


def test_build_arguments_must_be_used_and_given(folder):
    (folder / "image.toml").write_text(TOML + "[build_args]\nVARIAN = 'x'\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(load_image(folder), "cpu")
    assert caught.value.message == f"{folder}/image.toml: the build argument 'VARIAN' is not used in ml.def"
    assert caught.value.hint == "did you mean 'VARIANT'?"
    (folder / "image.toml").write_text(TOML)
    (folder / "ml.def").write_text(GOOD.replace("install", "install {{ SPEED }}"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(load_image(folder), "cpu")
    assert caught.value.message == f"{folder}/ml.def:12: the argument 'SPEED' has no value"


def test_a_variant_must_be_one_of_the_image(folder):
    with pytest.raises(ProjectError) as caught:
        digest(folder, "gpu")
    assert caught.value.message == f"{folder}/image.toml: variant 'gpu' is not defined"


def test_the_base_must_be_named_and_used(folder):
    (folder / "image.toml").write_text(TOML.replace('base = "base"\n', ""))
    assert [(f[1], f[3]) for f in findings(folder)] == [
        ("base", "the recipe uses {{ BASE }}, but image.toml names no base")
    ]
    (folder / "image.toml").write_text(TOML)
    (folder / "ml.def").write_text(GOOD.replace("localimage", "docker").replace("{{ BASE }}", "debian:12"))
    assert [(f[0], f[1], f[3]) for f in findings(folder)] == [
        ("error", "base", "image.toml names the base 'base', but the recipe does not use it"),
        (
            "warning",
            "unpinned",
            "'debian:12' is not pinned: the same recipe makes another image tomorrow",
        ),
    ]


def test_what_touches_the_building_machine_is_pointed_out(folder):
    text = GOOD.replace("    data /opt/data", "    /etc/hosts /x\n    ../other /y\n    $(id) /z")
    (folder.parent / "other").write_text("x")
    (folder / "ml.def").write_text(text + "\n%setup\n    cp x y\n")
    found = {(f[0], f[1], f[2].rpartition(":")[2]) for f in findings(folder)}
    assert ("warning", "runs-on-host", "19") in found
    assert ("warning", "outside", "9") in found
    assert ("warning", "outside", "10") in found
    assert ("error", "shell-in-files", "11") in found


def test_notes_and_unused_locks(folder):
    (folder / "ml.def").write_text(GOOD.replace("{{ VARIANT }}.lock", "cpu.lock").partition("%test")[0])
    (folder / "image.toml").write_text('base = "base"\nlocks = ["cuda.lock"]\n')
    assert [(f[0], f[1]) for f in findings(folder)] == [("warning", "lock"), ("note", "no-test")]


def test_the_digest_is_over_what_the_image_is_made_from(folder):
    first = digest(folder)
    assert first.startswith("sha256:")
    assert digest(folder) == first
    assert digest(folder, "cuda") != first
    assert digest(folder, base="sha256:c") != first
    for name, text in {
        "ml.def": GOOD + "# more\n",
        "cpu.lock": "a==3\n",
        "data/x": "y",
        "image.toml": TOML.replace("base =", 'bind_points = ["/scratch"]\nbase ='),
    }.items():
        before = (folder / name).read_text()
        (folder / name).write_text(text)
        assert digest(folder) != first, name
        (folder / name).write_text(before)
    assert digest(folder) == first


def test_the_digest_heeds_what_may_be_run_and_new_files(folder):
    first = digest(folder)
    (folder / "data" / "x").chmod(0o755)
    executable = digest(folder)
    assert executable != first
    (folder / "data" / "x").chmod(0o775)
    assert digest(folder) == executable
    (folder / "data" / "new").write_text("")
    assert digest(folder) != executable


def test_the_digest_does_not_heed_descriptions_times_and_other_variants(folder):
    first = digest(folder)
    (folder / "image.toml").write_text('description = "new"\nlicenses = ["MIT"]\n' + TOML)
    (folder / "cuda.lock").write_text("changed\n")
    (folder / "cpu.lock").touch()
    (folder / "notes.txt").write_text("not an input")
    assert digest(folder) == first


def test_a_local_archive_is_an_input(folder):
    (folder / "image.toml").write_text("")
    (folder / "ml.def").write_text("Bootstrap: oci-archive\nFrom: base.tar:latest\n%test\n    true\n")
    with pytest.raises(RecipeError) as caught:
        digest(folder, "")
    assert caught.value.message == f"{folder}/ml.def:1: the image 'base.tar:latest' does not exist"
    (folder / "base.tar").write_bytes(b"1")
    first = digest(folder, "")
    (folder / "base.tar").write_bytes(b"2")
    assert digest(folder, "") != first
    assert findings(folder) == []


def test_a_path_of_this_machine_is_no_base(folder):
    (folder / "image.toml").write_text("")
    (folder / "ml.def").write_text("Bootstrap: localimage\nFrom: /srv/base.sif\n%test\n    true\n")
    assert [(f[0], f[1], f[3]) for f in findings(folder)] == [
        ("warning", "local-base", "the base '/srv/base.sif' is a path of this machine")
    ]
