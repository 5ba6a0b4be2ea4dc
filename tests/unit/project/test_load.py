import pytest

from publisher.errors import ProjectError
from publisher.names import Fqrn, ImageName, KernelName, ReleaseVersion
from publisher.project.init import init_project
from publisher.project.load import load_project
from publisher.project.manifest import load_manifest
from publisher.records.index import Index
from publisher.release.plan import make_plan


@pytest.fixture
def root(tmp_path):
    init_project(tmp_path, fqrn=Fqrn("kernels.example.org"), version=ReleaseVersion("2026.11.1"))
    return tmp_path


def complaint(action):
    with pytest.raises(ProjectError) as caught:
        action()
    return caught.value.message, caught.value.hint


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_new_project_is_right(root):
    project = load_project(root / "images" / "analysis")
    manifest = load_manifest(root / "manifests" / "first.toml")
    (kernel,) = project.kernels_of(manifest)
    assert (project.settings.fqrn, project.settings.prefix) == ("kernels.example.org", "/jupyter")
    assert (manifest.version, manifest.channel) == ("2026.11.1", "testing")
    assert kernel.display_name == "Analysis (Python 3)"
    assert kernel.smoke[0].expect == "^6$"
    assert [image.name for image in project.image_chain(ImageName("analysis"))] == ["analysis"]


def test_no_word_of_one_experiment_in_a_new_project(root):
    text = "".join(file.read_text() for file in root.rglob("*") if file.suffix in {".toml", ".def"})
    assert "atlas" not in text.lower()


def test_no_project(tmp_path):
    message, hint = complaint(lambda: load_project(tmp_path))
    assert message == f"no afpub.toml in {tmp_path} or above it"
    assert "afpub init" in hint


def test_unknown_key_in_every_file(root):
    for file, read in (
        ("afpub.toml", lambda: load_project(root)),
        ("images/analysis/image.toml", lambda: load_project(root).image(ImageName("analysis"))),
        ("kernelspecs/analysis/kernel.toml", lambda: load_project(root).kernel(KernelName("analysis"))),
        ("manifests/first.toml", lambda: load_manifest(root / "manifests/first.toml")),
    ):
        path = root / file
        before = path.read_text()
        path.write_text("descripton = 'x'\n" + before)
        message, _ = complaint(read)
        assert message == f"{path}: unknown key 'descripton'"
        path.write_text(before)


def test_a_kernel_that_names_a_missing_image(root):
    edit(root / "kernelspecs/analysis/kernel.toml", 'image = "analysis"', 'image = "analyses"')
    manifest = load_manifest(root / "manifests/first.toml")
    message, hint = complaint(lambda: load_project(root).kernels_of(manifest))
    assert message == (
        f"{root}/kernelspecs/analysis/kernel.toml: the kernel runs in the image 'analyses', "
        "which first.toml does not hold"
    )
    assert hint == "did you mean 'analysis'?"


def test_kernels_whose_names_differ_by_case(root):
    edit(root / "manifests/first.toml", '["analysis"]', '["analysis", "Analysis"]')
    message, hint = complaint(lambda: load_manifest(root / "manifests/first.toml"))
    assert message.endswith("'kernels' names 'Analysis' and 'analysis', which differ only by case")
    assert "JupyterLab ignores case" in hint


def test_kernel_folders_whose_names_differ_by_case(root):
    (root / "kernelspecs/Analysis").mkdir()
    (root / "kernelspecs/Analysis/kernel.toml").write_text("")
    message, _ = complaint(lambda: load_project(root).kernel_names())
    assert message.endswith("'Analysis' and 'analysis' differ only by case")


def test_a_manifest_that_names_a_missing_kernel(root):
    edit(root / "manifests/first.toml", '["analysis"]', '["analysys"]')
    manifest = load_manifest(root / "manifests/first.toml")
    message, hint = complaint(lambda: load_project(root).kernels_of(manifest))
    assert message.endswith("first.toml: there is no kernel 'analysys'")
    assert hint == "did you mean 'analysis'?"


def test_images_based_on_each_other(root):
    edit(root / "images/analysis/image.toml", "description", 'base = "analysis"\ndescription')
    message, _ = complaint(lambda: load_project(root).image_chain(ImageName("analysis")))
    assert message == "images are based on each other: analysis -> analysis"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"{connection_file}"', '"x"', "'command' must hold '{connection_file}' once, as a word of its own"),
        ('display_name = "A', 'display_name = "\\nA', "holds a line break or control character"),
        ('expect = "^6$"', 'expect = "("', "'expect' is no regular expression"),
        ('"-m",', '"-m", "",', "'command' holds an empty word"),
        ("[[smoke]]", "[[setup]]\n[[smoke]]", "a step is exactly one of source, asetup, module, conda, venv"),
        ("[[smoke]]", '[[setup]]\nvenv="/a"\nconda="/b"\n[[smoke]]', "a step is exactly one of source"),
        ("[[smoke]]", '[[setup]]\nsource="setup.sh"\n[[smoke]]', "'source' must be an absolute path"),
        ("[[smoke]]", '[[setup]]\nsource="/a b"\n[[smoke]]', "'/a b' in 'source' must be one plain word"),
        ("[[smoke]]", '[[setup]]\nasetup="$(id)"\n[[smoke]]', "'$(id)' in 'asetup' must be one plain word"),
        ("[[smoke]]", "[[setup]]\nmodule=[]\n[[smoke]]", "'module' names nothing"),
        ("[[smoke]]", '[[setup]]\nconda="/a"\ntypo=1\n[[smoke]]', "unknown key 'typo'"),
        (
            'command = ["python3"',
            'interrupt_mode = "message"\ncommand = ["python2.7"',
            "'interrupt_mode' is 'message', and no kernel of Python 2 knows interrupt messages",
        ),
        ('language = "python"', 'language = "python"\ncuda = "moon"', "'cuda' is 'moon', which is none of image, host"),
    ],
)
def test_wrong_kernels(root, old, new, message):
    edit(root / "kernelspecs/analysis/kernel.toml", old, new)
    assert message in complaint(lambda: load_project(root).kernel(KernelName("analysis")))[0]


def test_set_up_steps_and_a_kernel_of_the_host(root):
    steps = (
        '[[setup]]\nsource="/cvmfs/sft.example.org/setup.sh"\narguments=["-q"]\n'
        '[[setup]]\nmodule=["root/6.30","gcc"]\n[[smoke]]'
    )
    file = root / "kernelspecs/analysis/kernel.toml"
    edit(file, "[[smoke]]", steps)
    edit(file, 'image = "analysis"\n', "")
    kernel = load_project(root).kernel(KernelName("analysis"))
    assert kernel.image is None
    assert [(step.kind, step.words) for step in kernel.setup] == [
        ("source", ("/cvmfs/sft.example.org/setup.sh", "-q")),
        ("module", ("root/6.30", "gcc")),
    ]


def test_a_kernel_whose_packages_are_not_in_the_release(root):
    edit(root / "kernelspecs/analysis/kernel.toml", 'image = "analysis"', 'image = "analysis"\npackages = "overlay"')
    manifest = load_manifest(root / "manifests/first.toml")
    message, _ = complaint(lambda: load_project(root).kernels_of(manifest))
    assert message.endswith("the kernel takes packages from the image 'overlay', which first.toml does not hold")


@pytest.mark.parametrize("address", ["ftp://x", "https://a b"])
def test_links_that_are_no_addresses(root, address):
    edit(root / "afpub.toml", "fqrn", f'kernels.docs = "{address}"\nfqrn')
    message, hint = complaint(lambda: load_project(root))
    assert (message, hint) == (
        f"{root}/afpub.toml: [kernels]: {address!r} is no address",
        "write https://... or mailto:...",
    )


def test_a_kernel_without_its_logo(root):
    (root / "kernelspecs/analysis/logo-64x64.png").unlink()
    message, _ = complaint(lambda: load_project(root).kernel(KernelName("analysis")))
    assert message.endswith("the logo 'logo-64x64.png' is missing")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('recipe = "../x.def"', "'../x.def' is outside the folder of the image"),
        ('recipe = "gone.def"', "the file 'gone.def' does not exist"),
        ('features = ["gpus"]', "unknown feature 'gpus'"),
        ('bind_points = ["scratch"]', "'scratch' is no bind point"),
        ("[variants.CPU]", "'CPU' is no variant name"),
    ],
)
def test_wrong_images(root, line, message):
    file = root / "images/analysis/image.toml"
    file.write_text(f"{line}\n" if line.startswith("[") else f"{line}\n{file.read_text()}")
    assert message in complaint(lambda: load_project(root).image(ImageName("analysis")))[0]


def test_an_image_without_a_recipe(root):
    (root / "images/analysis/analysis.def").unlink()
    message, _ = complaint(lambda: load_project(root).image(ImageName("analysis")))
    assert message.endswith("there is no recipe: neither analysis.def nor Dockerfile")


def test_variants(root):
    file = root / "images/analysis/image.toml"
    file.write_text('build_args = { A = "1", B = "2" }\n[variants.cpu.build_args]\nB = "3"\n[variants.gpu]\n')
    image = load_project(root).image(ImageName("analysis"))
    assert image.arguments("cpu") == {"A": "1", "B": "3"}
    assert image.arguments("gpu") == {"A": "1", "B": "2"}
    assert "a variant must be chosen" in complaint(lambda: image.arguments(""))[0]
    assert complaint(lambda: image.arguments("cpus"))[1] == "did you mean 'cpu'?"


def test_a_variant_of_an_image_that_has_none(root):
    image = load_project(root).image(ImageName("analysis"))
    assert "the image has no variants, 'cpu' was asked for" in complaint(lambda: image.arguments("cpu"))[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "2026.11.1"', 'version = "2026.11.01"', "'2026.11.01' is not in normal form"),
        ('version = "2026.11.1"', 'version = "first"', "'first' is no release version"),
        ("[images.analysis]", "[images.Analysis]", "'Analysis' is no image name"),
        ('kernels = ["analysis"]', 'kernels = ["a b"]', "'kernels': 'a b' is no kernel name"),
        ('channel = "testing"', 'channel = "Test:ing"', "'Test:ing' is no channel name"),
    ],
)
def test_wrong_manifests(root, old, new, message):
    edit(root / "manifests/first.toml", old, new)
    assert message in complaint(lambda: load_manifest(root / "manifests/first.toml"))[0]


def test_an_empty_release(root):
    (root / "manifests/first.toml").write_text('version = "1"\n')
    assert "the release is empty" in complaint(lambda: load_manifest(root / "manifests/first.toml"))[0]


def test_the_variant_is_part_of_the_published_version(root):
    edit(root / "manifests/first.toml", 'version = "1.0"', 'version = "1.0"\nvariant = "cpu"')
    assert load_manifest(root / "manifests/first.toml").images[0].version == "1.0-cpu"


def test_catalog_bounds_are_checked(root):
    with (root / "afpub.toml").open("a") as file:
        file.write("[catalogs]\nmin_entries = 9\nmax_entries = 5\n")
    message, hint = complaint(lambda: load_project(root))
    assert message.endswith("[catalogs]: the bounds 9 and 5 of catalogs leave no room to be stable")
    assert hint == "'min_entries' must be above 0, and 'max_entries' at least four times as much"


def test_catalog_patterns_are_checked(root):
    with (root / "afpub.toml").open("a") as file:
        file.write('[catalogs]\ncut = ["opt/*/share"]\nwhole = ["a//b"]\n')
    assert complaint(lambda: load_project(root))[0].endswith("[catalogs]: 'a//b' is no pattern for paths")


def with_aliases(root, lines):
    file = root / "manifests/first.toml"
    file.write_text(f"{file.read_text()}\n[aliases]\n{lines}\n")
    return lambda: load_manifest(file)


def test_aliases(root):
    manifest = with_aliases(root, '"/old/k" = "kernels/analysis"\n"/old/i.sif" = "images/analysis"')()
    assert [(alias.path, alias.kernel, alias.image) for alias in manifest.aliases] == [
        ("/old/i.sif", None, "analysis"),
        ("/old/k", "analysis", None),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('"/old" = "analysis"', "the alias '/old' leads to 'analysis'"),
        ('"old" = "kernels/analysis"', "the alias 'old': 'old' is no path in a repository"),
        ('"/" = "kernels/analysis"', "an alias cannot take the place of the whole repository"),
        ('"/old" = "kernels/other"', "leads to the kernel 'other', which is not released"),
        ('"/old" = "images/other"', "leads to the image 'other', which is not released"),
        ('"/a" = "kernels/analysis"\n"/a/b" = "images/analysis"', "'/a/b' is below the alias '/a'"),
    ],
)
def test_wrong_aliases(root, lines, message):
    assert message in complaint(with_aliases(root, lines))[0]


@pytest.mark.parametrize("path", ["/af", "/af/images", "/af/images/x", "/af/index.json", "/af/channels/stable"])
def test_aliases_in_the_way_of_releases(root, path):
    edit(root / "afpub.toml", 'prefix = "/jupyter"', 'prefix = "/af"')
    manifest = with_aliases(root, f'"{path}" = "kernels/analysis"')()
    project = load_project(root)
    index = Index(fqrn=project.settings.fqrn, prefix=project.settings.prefix)
    message, _ = complaint(lambda: make_plan(project, manifest, index))
    assert f"the alias {path!r} is where releases are published (/af)" in message


def test_a_repository_may_be_in_a_bucket(root):
    edit(root / "afpub.toml", 'repository = "repository"', 'repository = "s3://kernels/stratum0"')
    assert load_project(root).settings.repository == "s3://kernels/stratum0"
    with (root / "afpub.toml").open("a") as file:
        file.write('\n[s3]\nendpoint = "https://s3.example.org"\nregion = "eu-1"\npath_style = false\n')
    assert load_project(root).settings.repository == (
        "s3://kernels/stratum0?endpoint=https%3A%2F%2Fs3.example.org&region=eu-1&path_style=no"
    )


@pytest.mark.parametrize(
    ("place", "more", "message"),
    [
        ("s3://key:secret@kernels/x", "", "credentials do not belong into the address of a bucket"),
        ("https://kernels/x", "", "'https://kernels/x' is no address of a bucket"),
        ("s3://kernels/x", '[s3]\nendpoint = "s3.example.org"\n', "the endpoint 's3.example.org' is no http or https"),
        ("s3://kernels/x", '[s3]\nsecret_key = "x"\n', "unknown key 'secret_key'"),
    ],
)
def test_a_bucket_that_is_wrong(root, place, more, message):
    edit(root / "afpub.toml", 'repository = "repository"', f'repository = "{place}"')
    with (root / "afpub.toml").open("a") as file:
        file.write(f"\n{more}")
    said, _ = complaint(lambda: load_project(root))
    assert message in said
    assert "secret@" not in said
