"""Repositories that the CVMFS tools wrote: unpacking them, showing them as expected.json does, damaging them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import tarfile
import zlib
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.envelope import Envelope
from publisher.cvmfs.keys import load_private_key, sign_manifest_hash, sign_whitelist_hash
from publisher.cvmfs.variant import expand_variant
from publisher.cvmfs.whitelist import parse_whitelist
from publisher.tree import Kind

VECTORS = Path(__file__).parent / "vectors" / "cvmfs"
NAMES = tuple(sorted(path.name for path in VECTORS.glob("*.example")))
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LABELS = tuple(
    (name, revision["label"])
    for name in NAMES
    for revision in json.loads((VECTORS / name / "manifest.json").read_text())["revisions"]
)
CASES = tuple(json.loads((VECTORS / "corrupt.json").read_text()))
_NOBODY = 65534
"""What a client shows for an owner that does not fit the kernel (-1 in the catalogs that ingest writes)."""


def load(name: str, file: str):
    return json.loads((VECTORS / name / file).read_text())


def public_key(name: str) -> bytes:
    return (VECTORS / name / "keys" / f"{name}.pub").read_bytes()


def extract(name: str, folder: Path, label: str | None = None) -> Path:
    """The repository as it was published, at one of its revisions."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # temporary folders are closed, repositories are open to web servers
    with tarfile.open(VECTORS / name / "repo.tar.gz") as archive:
        for member in archive:
            if member.isfile():
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
    older = VECTORS / name / (label or "")
    if label and older.is_dir():
        for file in (".cvmfspublished", ".cvmfsreflog"):
            (folder / file).write_bytes((older / file).read_bytes())
    return folder


def shown(reader, path: str = "") -> list[dict[str, object]]:
    """Everything a reader finds, as expected.json has it."""
    rows = [(os.fsencode(stored.path), _row(reader, stored)) for stored in reader.walk(path)]
    return [row for _, row in sorted(rows, key=lambda pair: b"/" + pair[0])]


def _row(reader, stored) -> dict[str, object]:
    entry = stored.entry
    target = expand_variant(entry.target, {})
    size = {Kind.DIRECTORY: stored.raw_size, Kind.SYMLINK: len(os.fsencode(target))}.get(entry.kind, entry.size_bytes)
    row: dict[str, object] = {
        "type": entry.kind.value,
        "mode": f"{entry.mode:04o}",
        "uid": _owner(entry.uid),
        "gid": _owner(entry.gid),
        "size": size,
        "mtime": entry.mtime_s,
        "mtime_ns": entry.mtime_ns,
        "nlink": stored.nlink,
    }
    row |= _text("path", f"/{entry.path}")
    if entry.kind is Kind.SYMLINK:
        row |= _text("target", target)
    if entry.kind is Kind.FILE:
        digest = hashlib.sha256()
        for piece in reader.read(stored):
            digest.update(piece)
        row["sha256"] = digest.hexdigest()
    if entry.kind in (Kind.CHAR, Kind.BLOCK):
        row["rdev"] = [os.major(entry.rdev), os.minor(entry.rdev)]
    if entry.xattrs:
        row["xattrs"] = {name: base64.b64encode(value).decode() for name, value in entry.xattrs}
    return row


def _owner(number: int) -> int:
    return _NOBODY if number == 0xFFFFFFFF else number


def _text(key: str, text: str) -> dict[str, str]:
    raw = os.fsencode(text)
    try:
        return {key: raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{key}_b64": base64.b64encode(raw).decode()}


def damage(case, repo: Path) -> None:
    """Applies one case of corrupt.json to an extracted repository."""
    for operation in case["patch"]:
        _OPERATIONS[operation["op"]](operation, repo, case["repository"])


def _flip(operation, repo: Path, _name: str) -> None:
    path = repo / operation["path"]
    data = bytearray(path.read_bytes())
    data[operation["offset"]] ^= operation["xor"]
    path.write_bytes(data)


def _truncate(operation, repo: Path, _name: str) -> None:
    os.truncate(repo / operation["path"], operation["size"])


def _append(operation, repo: Path, _name: str) -> None:
    with (repo / operation["path"]).open("ab") as file:
        file.write(base64.b64decode(operation["data_b64"]))


def _write(operation, repo: Path, _name: str) -> None:
    path = repo / operation["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(operation["data_b64"]))


def _delete(operation, repo: Path, _name: str) -> None:
    (repo / operation["path"]).unlink()


def _copy(operation, repo: Path, _name: str) -> None:
    (repo / operation["to"]).write_bytes((repo / operation["path"]).read_bytes())


def _manifest(operation, repo: Path, name: str) -> None:
    sign_manifest(repo, name, set_fields=operation.get("set", {}), remove=operation.get("remove", []))


def sign_manifest(repo: Path, name: str, *, set_fields: dict[str, str], remove=()) -> None:
    """Changes fields of the manifest and signs it again."""
    path = repo / ".cvmfspublished"
    head = path.read_bytes().split(b"\n--\n")[0].decode()
    fields = {line[0]: line[1:] for line in head.split("\n")} | set_fields
    body = "".join(f"{key}{value}\n" for key, value in fields.items() if key not in remove).encode()
    text = str(Digest.parse(fields["C"]).algorithm.digest(body))
    key = load_private_key(VECTORS / name / "keys" / f"{name}.key")
    path.write_bytes(bytes(Envelope(body=body, signed_hash=text, signature=sign_manifest_hash(key, text))))


def _whitelist(operation, repo: Path, name: str) -> None:
    path = repo / ".cvmfswhitelist"
    whitelist, _ = parse_whitelist(path.read_bytes())
    if "expires" in operation:
        moment = datetime.strptime(operation["expires"], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        whitelist = replace(whitelist, expires=moment)
    if "repository" in operation:
        whitelist = replace(whitelist, fqrn=operation["repository"])
    if "fingerprint" in operation:
        whitelist = replace(whitelist, fingerprints=(operation["fingerprint"],))
    text = str(Algorithm.SHA1.digest(whitelist.body()))
    key = load_private_key(VECTORS / name / "keys" / f"{name}.masterkey")
    signature = sign_whitelist_hash(key, text)
    path.write_bytes(bytes(Envelope(body=whitelist.body(), signed_hash=text, signature=signature)))


def _sql(operation, repo: Path, name: str) -> None:
    chain = _chain(repo, operation["catalog"])
    path, digest = chain[-1]
    data = edit_database(_load(repo, digest), operation["statement"])
    if operation["names"] == "keep":
        (repo / digest.object_name(ObjectKind.CATALOG)).write_bytes(zlib.compress(data))
        return
    for parent_path, parent in reversed([("", None), *chain[:-1]]):
        digest = _store(repo, data, digest.algorithm)
        if parent is None:
            break
        statement = f"UPDATE nested_catalogs SET sha1='{digest}', size={len(data)} WHERE path='{path}'"
        data = edit_database(_load(repo, parent), statement)
        path = parent_path
    reflog = repo / ".cvmfsreflog"
    changed = edit_database(reflog.read_bytes(), f"INSERT INTO refs VALUES ('{digest}', 0, 1)")
    reflog.write_bytes(changed)
    size = str(len(data))
    sign_manifest(repo, name, set_fields={"C": str(digest), "B": size, "Y": str(digest.algorithm.digest(changed))})


def _chain(repo: Path, mount: str) -> list[tuple[str, Digest]]:
    """The catalogs from the root to the one mounted at a path."""
    head = (repo / ".cvmfspublished").read_bytes().split(b"\n")[0].decode()
    chain = [("", Digest.parse(head[1:]))]
    while chain[-1][0] != mount:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(_load(repo, chain[-1][1]))
            database.text_factory = bytes
            refs = [
                (os.fsdecode(path), text.decode())
                for path, text in database.execute("SELECT path, sha1 FROM nested_catalogs")
            ]
        chain.append(next((path, Digest.parse(text)) for path, text in refs if f"{mount}/".startswith(f"{path}/")))
    return chain


def _load(repo: Path, digest: Digest) -> bytes:
    return zlib.decompress((repo / digest.object_name(ObjectKind.CATALOG)).read_bytes())


def tables_and_indexes(repo: Path) -> dict[str, list[str]]:
    """The columns of each table of a repository's root catalog, and of each index that is not SQLite's own."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(_load(repo, _chain(repo, "")[0][1]))
        rows = database.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        return {
            name: [row[1 if kind == "table" else 2] for row in database.execute(f"PRAGMA {kind}_info({name})")]
            for kind, name in rows
        }


def _store(repo: Path, data: bytes, algorithm: Algorithm) -> Digest:
    stored = zlib.compress(data)
    digest = algorithm.digest(stored)
    path = repo / digest.object_name(ObjectKind.CATALOG)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored)
    return digest


def edit_database(data: bytes, statements: str) -> bytes:
    """A database after SQL statements."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.deserialize(data)
        database.executescript(statements)
        return database.serialize()


_OPERATIONS = {
    "flip_byte": _flip,
    "truncate": _truncate,
    "append": _append,
    "write": _write,
    "delete": _delete,
    "copy": _copy,
    "manifest": _manifest,
    "whitelist": _whitelist,
    "sql": _sql,
}
