from publisher.report import Severity
from publisher.staging.normalize import Policy, normalize
from publisher.tree import Entry, Kind


def entry(path, kind=Kind.FILE, mode=0o644, **more):
    content = b"" if kind is Kind.FILE else None
    return Entry(path=path, kind=kind, mode=mode, content=content, **more)


ROOT = entry("", Kind.DIRECTORY, 0o755)


def run(*entries, unreadable="repair"):
    done = normalize((ROOT, *entries), where="images/x", policy=Policy(unreadable=unreadable))
    return {item.path: item for item in done.entries}, done.report


def test_ordinary_entries_are_kept_but_belong_to_root():
    tree, report = run(entry("a", uid=1000, gid=5, mtime_s=-3, mtime_ns=7, xattrs=(("user.x", b"1"),), link_group=4))
    assert tree["a"] == entry("a", mtime_s=-3, mtime_ns=7)
    assert report.findings == ()


def test_special_files_are_left_out_and_listed():
    kinds = (Kind.FIFO, Kind.SOCKET, Kind.CHAR, Kind.BLOCK)
    tree, report = run(*(entry(kind.value, kind, 0o600) for kind in kinds))
    assert set(tree) == {""}
    assert [(finding.check, finding.where) for finding in report.findings] == [
        ("special-file", f"images/x:/{kind.value}") for kind in kinds
    ]
    assert report.ok


def test_set_id_bits_are_stripped_and_listed():
    tree, report = run(entry("su", mode=0o4755), entry("mail", mode=0o2755), entry("d", Kind.DIRECTORY, 0o2755))
    assert [tree[name].mode for name in ("su", "mail", "d")] == [0o755, 0o755, 0o755]
    assert [finding.message for finding in report.findings] == [
        "set-id bits were removed from mode 4755",
        "set-id bits were removed from mode 2755",
    ]


def test_sticky_bit_stays():
    tree, _ = run(entry("tmp", Kind.DIRECTORY, 0o1777))
    assert tree["tmp"].mode == 0o1777


def test_unreadable_entries_are_repaired_and_listed():
    tree, report = run(entry("shadow", mode=0o640), entry("run", mode=0o700), entry("priv", Kind.DIRECTORY, 0o700))
    assert [tree[name].mode for name in ("shadow", "run", "priv")] == [0o644, 0o755, 0o755]
    assert report.findings[0].message == "others cannot read it (mode 0640); published as 0644"
    assert report.ok


def test_unreadable_entries_are_refused_when_the_policy_says_so():
    _, report = run(entry("shadow", mode=0o640), unreadable="refuse")
    assert [finding.severity for finding in report.findings] == [Severity.ERROR]
    assert report.findings[0].where == "images/x:/shadow"


def test_whiteouts_and_variant_links_stop_a_release():
    _, report = run(entry(".wh.gone"), entry("l", Kind.SYMLINK, 0o777, target="$(HOME)/x"))
    assert [finding.check for finding in report.errors] == ["whiteout", "variant-link"]


def test_odd_names_are_warned_about():
    _, report = run(entry("a\nb"), entry("\udcff"))
    assert [finding.check for finding in report.findings] == ["odd-name", "odd-name"]


def test_file_capabilities_are_listed(tmp_path, monkeypatch):
    program = tmp_path / "ping"
    program.write_bytes(b"")
    monkeypatch.setattr("os.getxattr", lambda path, name: b"\1" if name == "security.capability" else b"")
    tree, report = run(Entry(path="ping", kind=Kind.FILE, mode=0o755, content=str(program)))
    assert tree["ping"].xattrs == ()
    assert [finding.check for finding in report.findings] == ["capability"]
