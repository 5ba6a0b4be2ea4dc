"""The builder against the real Apptainer, with images that build in a second."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import pytest
from compat.busybox import docker_archive, is_static, oci_archive
from wanted import missing, wanted

from publisher import tools
from publisher.errors import BuildError, DiskError
from publisher.images import apptainer
from publisher.images.builder import build, find_built
from publisher.images.built import read_record
from publisher.images.permissions import Repair
from publisher.images.userns import remove_rootfs
from publisher.project.image import load_image

pytestmark = pytest.mark.images

TINY = "Bootstrap: docker-archive\nFrom: base.tar\n"


class Told:
    """A listener that remembers."""

    def __init__(self):
        self.steps, self.lines = [], []

    def step(self, text):
        self.steps.append(text)

    def line(self, text):
        self.lines.append(text)

    def advance(self, done, total, what):
        assert 0 <= done <= total
        assert what == "bytes"


class Workshop:
    """A folder of images and a place to build them."""

    def __init__(self, root: Path, busybox: Path):
        self.root, self.busybox = root, busybox
        self.work = root / "work"
        self.told = Told()

    def image(self, recipe, *, name="tiny", toml="", file=None, **files):
        folder = self.root / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        docker_archive(self.busybox, folder / "base.tar")
        (folder / "image.toml").write_text(toml)
        (folder / (file or f"{name}.def")).write_text(recipe)
        for path, text in files.items():
            (folder / path).write_text(text)
        return load_image(folder)

    def build(self, image, **options):
        return build(image, **({"variant": "", "base": None, "work": self.work, "progress": self.told} | options))

    def left(self, name="tiny"):
        return sorted(path.name for path in (self.work / "images" / name).iterdir() if path.name != ".lock")


@pytest.fixture(scope="session")
def busybox():
    wanted("apptainer")
    found = wanted("busybox").resolve()
    if not is_static(found):
        missing("busybox", f"{found} is not static (on Debian: busybox-static)")
    return found


@pytest.fixture
def shop(busybox, tmp_path):
    shop = Workshop(tmp_path, busybox)
    yield shop
    remove_rootfs(tmp_path / "work")


def run_in(built, *command):
    words = apptainer.exec_words(built.rootfs, command)
    return tools.run(words, env=apptainer.own_environment({})).stdout


def test_an_image_with_its_record(shop):
    image = shop.image(
        TINY + "%files\n    hello.txt /opt/hello.txt\n%post\n    echo made >/opt/made\n"
        "%environment\n    export GREETING=hello\n%labels\n    org.example.x my label\n",
        toml='bind_points = ["/cvmfs", "/scratch/data"]\n[[test]]\ncommand = ["cat", "/opt/made"]\nexpect = "^made$"\n',
        **{"hello.txt": "hello\n"},
    )
    built = shop.build(image)
    assert (built.rootfs / "opt/hello.txt").read_text() == "hello\n"
    assert (built.rootfs / "scratch/data").is_dir()
    assert run_in(built, "sh", "-c", "echo $GREETING") == "hello"
    labels = json.loads((built.rootfs / ".singularity.d/labels.json").read_text())
    assert labels["org.example.x"] == "my label"
    assert labels["org.afpub.inputs-digest"] == built.inputs_digest
    assert built.recipe == (image.recipe).read_text()
    assert dict(built.tools)["apptainer"].startswith("1.")
    assert built.files == len(list(built.tree))
    assert built.size_bytes > shop.busybox.stat().st_size
    assert read_record(built.folder).tree_digest == built.tree_digest
    assert shop.told.steps == [
        "building the image tiny",
        "settling the image tiny",
        "testing the image tiny: cat /opt/made",
        "taking the digest of the image tiny",
    ]
    assert shop.left() == [built.folder.name, f"{built.folder.name}.log"]
    assert sorted(path.name for path in built.folder.iterdir()) == ["build.json", "recipe.def", "rootfs"]


def test_the_same_inputs_are_built_once(shop, monkeypatch):
    image = shop.image(TINY + "%post\n    true\n")
    first = shop.build(image)
    assert not first.reused
    monkeypatch.setenv("PATH", "/nowhere")
    begin = time.perf_counter()
    again = shop.build(image)
    assert time.perf_counter() - begin < 0.05
    assert again.reused
    assert again.tree_digest == first.tree_digest
    assert find_built(image, variant="", base_digest="", work=shop.work) == again
    assert find_built(image, variant="", base_digest="sha256:other", work=shop.work) is None


def test_two_builds_of_the_same_inputs_are_the_same_tree(shop, tmp_path):
    image = shop.image(TINY + "%post\n    echo x >/opt\n")
    first = shop.build(image)
    other = shop.build(image, work=tmp_path / "work" / "elsewhere")
    assert other.folder != first.folder
    assert other.tree_digest == first.tree_digest
    meta = {entry.path: entry.mtime_s for entry in first.tree if entry.path.startswith(".singularity.d/")}
    assert meta == {entry.path: entry.mtime_s for entry in other.tree if entry.path in meta}


def test_variants_and_images_on_top_of_others(shop):
    below = shop.build(shop.image(TINY + "%labels\n    title below\n%post\n    echo 1 >/one\n", name="below"))
    above = shop.image(
        "Bootstrap: localimage\nFrom: {{ BASE }}\n%arguments\n    WHAT=x\n%labels\n    title above\n"
        "%post\n    cat /one; echo {{ WHAT }} >/what\n",
        name="above",
        toml='base = "below"\n[variants.a]\nbuild_args = { WHAT = "a" }\n[variants.b]\nbuild_args = { WHAT = "b" }\n',
    )
    built = {name: shop.build(above, variant=name, base=below) for name in ("a", "b")}
    assert {name: (item.rootfs / "what").read_text() for name, item in built.items()} == {
        "a": "a\n",
        "b": "b\n",
    }
    assert built["a"].folder.name.startswith("a-")
    assert built["a"].base.tree_digest == below.tree_digest
    labels = json.loads((built["a"].rootfs / ".singularity.d/labels.json").read_text())
    assert labels["title"] == "above"
    assert labels["org.label-schema.usage.singularity.deffile.from"] == "below"
    for file in (built["a"].rootfs / ".singularity.d").rglob("*"):
        assert not file.is_file() or str(shop.root) not in file.read_text()


def test_a_post_that_fails_shows_its_last_lines_and_leaves_its_log(shop):
    image = shop.image(TINY + "%post\n    echo begin\n    echo the reason >&2\n    sh -c 'exit 7'\n    echo never\n")
    with pytest.raises(BuildError) as caught:
        shop.build(image)
    assert caught.value.message == "the image tiny: %post failed with exit code 7"
    assert "the reason" in caught.value.detail
    assert "never" not in caught.value.detail
    (log,) = shop.left()
    assert caught.value.hint == f"all of its output: {shop.work}/images/tiny/{log}"
    assert "the reason" in (shop.work / "images/tiny" / log).read_text()


def test_a_test_section_that_fails(shop):
    with pytest.raises(BuildError) as caught:
        shop.build(shop.image(TINY + "%test\n    echo not good\n    false\n"))
    assert caught.value.message == "the image tiny: %test failed with exit code 1"
    assert "not good" in caught.value.detail
    assert [name for name in shop.left() if not name.endswith(".log")] == []


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            'command = ["sh", "-c", "echo oh; exit 3"]',
            "the test 'sh -c echo oh; exit 3' of image.toml failed: exit code 3",
        ),
        (
            'command = ["echo", "5.1"]\nexpect = "^6"',
            "the test 'echo 5.1' of image.toml failed: what it prints does not match '^6'",
        ),
    ],
)
def test_a_test_of_the_definition_that_fails(shop, test, message):
    with pytest.raises(BuildError) as caught:
        shop.build(shop.image(TINY, toml=f"[[test]]\n{test}\n"))
    assert caught.value.message == f"the image tiny: {message}"
    assert [name for name in shop.left() if not name.endswith(".log")] == []


def test_an_image_that_apptainer_cannot_read(shop):
    image = shop.image(TINY)
    (image.folder / "base.tar").write_bytes(b"no archive")
    with pytest.raises(BuildError) as caught:
        shop.build(image)
    assert caught.value.message.startswith("the image tiny could not be built: ")


def test_files_that_others_cannot_read_are_opened_and_listed(shop):
    built = shop.build(
        shop.image(
            TINY + "%post\n    mkdir -p /a/b; echo x >/a/b/secret; chmod 600 /a/b/secret\n"
            "    cp /bin/busybox /a/tool; chmod 4700 /a/tool; chmod 0 /a/b; touch /fine; chmod 644 /fine\n"
        )
    )
    assert built.repaired == (
        Repair(path="a/b", mode=0),
        Repair(path="a/b/secret", mode=0o600),
        Repair(path="a/tool", mode=0o4700),
    )
    modes = {entry.path: entry.mode for entry in built.tree}
    assert (modes["a/b"], modes["a/b/secret"], modes["a/tool"]) == (0o555, 0o644, 0o4755)


def test_a_recipe_that_empties_tmp_does_not_reach_this_machine(shop):
    with (
        tempfile.NamedTemporaryFile(dir="/tmp") as mine,
        tempfile.NamedTemporaryFile(dir="/var/tmp") as other,
    ):
        built = shop.build(shop.image(TINY + "%post\n    ls -A /tmp /var/tmp\n    rm -rf /tmp/* /var/tmp/*\n"))
        assert Path(mine.name).exists()
        assert Path(other.name).exists()
        assert Path(mine.name).name not in "".join(shop.told.lines)
    assert list((built.rootfs / "tmp").iterdir()) == []


def test_settings_reach_the_build_and_do_not_stay(shop, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://jane:s3cret@index.example/simple")
    monkeypatch.setenv("APPTAINERENV_MINE", "leak")
    built = shop.build(
        shop.image(
            TINY + '%post\n    case "$PIP_INDEX_URL" in https://*:*@*/simple) true;; *) exit 9;; esac\n'
            '    test -z "$MINE"\n    test "$SOURCE_DATE_EPOCH" -gt 0\n    echo "using $PIP_INDEX_URL"\n'
            '    if [ -n "$PIP_CERT" ]; then test -s "$PIP_CERT"; fi\n'
        )
    )
    assert "using https://***@index.example/simple" in shop.told.lines
    files = [file for file in (shop.work / "images").rglob("*") if file.is_file() and not file.is_symlink()]
    assert built.folder.with_name(f"{built.folder.name}.log") in files
    for file in files:
        assert b"s3cret" not in file.read_bytes(), file
        assert file.suffix == ".log" or b"index.example" not in file.read_bytes(), file
    assert built.repaired == ()


def test_two_builds_at_once_wait_for_each_other(shop):
    image = shop.image(TINY + "%post\n    sleep 1\n")
    results, listeners = [], [Told(), Told()]

    def one(told):
        results.append(shop.build(image, progress=told))

    threads = [threading.Thread(target=one, args=(told,)) for told in listeners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(result.reused for result in results) == [False, True]
    assert results[0].tree_digest == results[1].tree_digest
    assert ["waiting for another build of the image tiny"] in [told.steps for told in listeners]


def processes_with(text):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in words:
            found.append(folder.name)
    return found


def test_ctrl_c_leaves_nothing_half_built_and_nothing_running(shop):
    image = shop.image(TINY + "%post\n    echo ready\n    sleep 98.7654\n")
    script = (
        "import sys, pathlib\n"
        "from publisher.images.builder import build\n"
        "from publisher.project.image import load_image\n"
        "from publisher.progress import Silent\n"
        "build(load_image(pathlib.Path(sys.argv[1])), variant='', base=None, work=pathlib.Path(sys.argv[2]),"
        " progress=Silent())\n"
    )
    words = [sys.executable, "-c", script, str(image.folder), str(shop.work)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not processes_with("98.7654") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with("98.7654")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    deadline = time.monotonic() + 10
    while processes_with("98.7654") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with("98.7654") == []
    assert [name for name in shop.left() if not name.endswith(".log")] == []
    (image.folder / "tiny.def").write_text(TINY)
    assert shop.build(load_image(image.folder)).files


def test_what_a_killed_build_left_is_removed_by_the_next(shop):
    image = shop.image(TINY)
    built = shop.build(image)
    partial = built.folder.with_name(f"{built.folder.name}.partial")
    built.folder.rename(partial)
    (partial / "build.json").unlink()
    again = shop.build(image)
    assert again.tree_digest == built.tree_digest
    assert not partial.exists()


def test_a_full_disk_is_called_so(shop, require_root):
    if not tools.run(("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(shop.root)), check=False).ok:
        pytest.skip("this machine does not let root mount a small file system")
    try:
        image = shop.image(TINY + "%post\n    cp /bin/busybox /one; cp /bin/busybox /two\n")
        with pytest.raises(DiskError) as caught:
            shop.build(image)
        assert caught.value.message == "the disk is full: the image tiny could not be built"
    finally:
        tools.run(("umount", str(shop.root)))


def test_a_sif_file_of_the_same_build(shop):
    image = shop.image(TINY + "%labels\n    title tiny\n")
    plain = shop.build(image)
    packed = shop.build(image, sif=True)
    assert (packed.sif, packed.tree_digest) == ("tiny.sif", plain.tree_digest)
    assert "title: tiny" in tools.run(("apptainer", "inspect", packed.folder / packed.sif)).stdout
    assert shop.build(image, sif=True).reused
    assert shop.build(image).sif == "tiny.sif"


@pytest.mark.parametrize("archive", [docker_archive, oci_archive])
def test_a_dockerfile_on_a_local_archive(shop, archive):
    kind = archive.__name__.replace("_", "-")
    image = shop.image(
        f"ARG VERSION=1\nFROM {kind}:start.tar AS build\nARG VERSION\nWORKDIR /w\n"
        "RUN echo v$VERSION >made; false; true\n"
        f"RUN mkdir -p /usr/local/lib && echo lib >/usr/local/lib/x\n"
        f"FROM {kind}:start.tar\nENV GREETING='hello you' PATH=/opt/bin:$PATH\nWORKDIR /srv\n"
        "COPY --from=build /w/made /etc/\nCOPY --from=0 /usr/local /usr/local\nCOPY one.txt .\nCOPY . /all\n"
        'RUN test "$(cat one.txt)" = one && test "$GREETING" = "hello you" && echo $PATH >/path\n'
        'ENTRYPOINT ["echo", "a  b"]\nCMD ["c"]\n',
        file="Dockerfile",
        toml='[build_args]\nVERSION = "2"\n',
        **{"one.txt": "one", ".hidden": "h"},
    )
    archive(shop.busybox, image.folder / "start.tar")
    built = shop.build(image)
    root = built.rootfs
    assert (root / "etc/made").read_text() == "v2\n"
    assert (root / "usr/local/lib/x").read_text() == "lib\n"
    assert not (root / "usr/local/local").exists()
    assert (root / "srv/one.txt").read_text() == "one"
    assert (root / "all/.hidden").read_text() == "h"
    assert (root / "path").read_text().startswith("/opt/bin:")
    words = ("apptainer", "--silent", "run", "--no-privs", "--containall", root)
    assert tools.run(words).stdout == "a  b c"
    assert tools.run((*words, "d e")).stdout == "a  b d e"
    assert run_in(built, "sh", "-c", "echo $GREETING $PATH").startswith("hello you /opt/bin:")


@pytest.mark.parametrize(
    "recipe",
    [
        "Bootstrap: docker-archive\nFrom: base.tar\n%psot\n    true\n",
        "Bootstrap: docker-archive\nFrmo: base.tar\n",
        "Bootstrap: docker-archives\nFrom: base.tar\n",
        TINY + "%post\n    true <<X\n    %matplotlib\nX\n",
        TINY + "%post\n    echo {{ NOT_GIVEN }}\n",
        TINY + "%apprun\n    true\n",
    ],
)
def test_what_we_refuse_apptainer_refuses_too(shop, recipe):
    image = shop.image(TINY)
    (image.folder / "bad.def").write_text(recipe)
    words = ("apptainer", "build", "--fakeroot", "--sandbox", shop.root / "bad", "bad.def")
    assert not tools.run(words, cwd=image.folder, check=False).ok
    (image.folder / "tiny.def").write_text(recipe)
    with pytest.raises(Exception, match=r"tiny\.def") as caught:
        shop.build(load_image(image.folder))
    assert caught.type.__name__ == "RecipeError"


def test_what_we_fill_in_is_what_apptainer_fills_in(shop):
    recipe = (
        TINY + "%arguments\n    A=one\n    B={{ A }}+two\n%post\n"
        "    echo '{{ A }} {{B}}' >/filled  # {{ C }}\n    echo 'x # {{ A }}' >/comment\n"
        "    echo '{{ .A }}' >/field\n"
    )
    built = shop.build(shop.image(recipe, toml='[build_args]\nA = "1"\n'))
    assert (built.rootfs / "filled").read_text() == "1 1+two\n"
    assert (built.rootfs / "comment").read_text() == "x # {{ A }}\n"
    assert (built.rootfs / "field").read_text() == "{{ .A }}\n"


def ordinary_user():
    """A user with subordinate ids who is not root, or None."""
    for line in Path("/etc/subuid").read_text().splitlines():
        name = line.partition(":")[0]
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if user.pw_uid >= 1000:
            return user
    return None


def as_user(user, folder, action):
    """What ``action`` returned when the user did it, or what it raised; in a process of its own."""
    answer = folder / "answer"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
            os.environ.update(HOME=str(folder), USER=user.pw_name, LOGNAME=user.pw_name)
            tempfile.tempdir = str(folder)
            answer.write_text(json.dumps(action()))
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it was, it is handed to the test
            answer.write_text(traceback.format_exc())
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    text = answer.read_text()
    assert status == 0, text
    return json.loads(text)


def test_an_ordinary_user_builds_opens_and_removes(busybox, require_root):
    user = ordinary_user()
    if user is None:
        pytest.skip("no ordinary user with subordinate ids in /etc/subuid")
    # not below pytest's own folder, which only root may enter
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="afpub-test-"))
    os.chown(folder, user.pw_uid, user.pw_gid)

    def action():
        shop = Workshop(folder, busybox)
        image = shop.image(
            TINY + "%post\n    mkdir /private; echo x >/private/file; chmod 600 /private/file\n"
            "    chown -R 33:33 /private; chmod 700 /private\n"
            '%test\n    test "$(id -u)" = 0\n',
            toml='[[test]]\ncommand = ["cat", "/private/file"]\nexpect = "x"\n',
        )
        built = shop.build(image, sif=True)
        owner = (built.rootfs / "private").stat().st_uid
        text = (built.rootfs / "private/file").read_text()
        sif = (built.folder / built.sif).stat().st_size
        repaired = [[repair.path, repair.mode] for repair in built.repaired]
        remove_rootfs(built.folder)
        return [os.getuid(), owner, text, sif > 0, repaired, built.folder.exists()]

    try:
        uid, owner, text, has_sif, repaired, exists = as_user(user, folder, action)
        assert uid == user.pw_uid
        assert owner not in {0, uid}
        assert (text, has_sif, exists) == ("x\n", True, False)
        assert repaired == [["private", 0o700], ["private/file", 0o600]]
    finally:
        shutil.rmtree(folder)
