from dataclasses import replace

from publisher.names import ChannelName, Fqrn, ImageName, ImageVersion, KernelName, ReleaseVersion, RepoPath
from publisher.records.compare import compare
from publisher.records.release import ImageRecord, KernelRecord, Package, ReleaseRecord

KERNEL = KernelRecord(
    name=KernelName("py"),
    display_name="Python",
    language="python",
    image=ImageName("i"),
    image_version=ImageVersion("1"),
)


def image(version, **packages):
    return ImageRecord(
        name=ImageName("i"), version=ImageVersion(version), variant="", description="", base="", features=(),
        licenses=(), inputs_digest="", tree_digest="", entries=1, size_bytes=1, recipe="", builder="", os="",
        packages=tuple(Package(kind="python", name=name, version=value) for name, value in packages.items()),
        changes=(),
    )  # fmt: skip


def record(version, *images, kernels=(KERNEL,)):
    return ReleaseRecord(
        version=ReleaseVersion(version), digest="", created="", fqrn=Fqrn("a.example"), prefix=RepoPath(""),
        channel=ChannelName("c"), notes="", images=images, kernels=kernels, files=(), tools=(),
    )  # fmt: skip


def rows(first, second):
    return [(row.kind, row.where, row.name, row.before, row.after) for row in compare(first, second)]


def test_the_same():
    assert rows(record("1", image("1", numpy="2")), record("2", image("1", numpy="2"))) == []


def test_packages_and_versions():
    before = record("1", image("1", numpy="1.0", uproot="5", old="1"))
    after = record("2", image("2", numpy="2.0", uproot="5", new="3"))
    assert rows(before, after) == [
        ("image", "", "i", "1", "2"),
        ("python", "i", "new", "", "3"),
        ("python", "i", "numpy", "1.0", "2.0"),
        ("python", "i", "old", "1", ""),
    ]


def test_kernels():
    other = replace(KERNEL, name=KernelName("root"), display_name="ROOT")
    moved = replace(KERNEL, image_version=ImageVersion("2"))
    assert rows(record("1", kernels=(KERNEL, other)), record("2", kernels=(moved,))) == [
        ("kernel", "", "py", "Python (i 1)", "Python (i 2)"),
        ("kernel", "", "root", "ROOT (i 1)", ""),
    ]
