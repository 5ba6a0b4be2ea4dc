"""Checking objects: they are there, their bytes are those of their names, and they unpack rightly."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from publisher.cvmfs.check_catalog import Reference
from publisher.cvmfs.compression import Compression, decompress
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.reflog import REFLOG_NAME
from publisher.cvmfs.s3.storage import S3Storage
from publisher.cvmfs.source import FolderSource, Source, object_blocks
from publisher.cvmfs.whitelist import WHITELIST_NAME
from publisher.errors import AfpubError, FormatError, NotFoundError, RepositoryError
from publisher.report import Finding, error, warning

References = dict[str, list[Reference]]
"""What is said of each object, by its name below the repository folder."""
_NO_LIMIT = 1 << 62
_READ = 0o444
_ENTER = 0o555
_METADATA = {ObjectKind.CATALOG, ObjectKind.HISTORY, ObjectKind.CERTIFICATE, ObjectKind.METAINFO}


def by_name(references: Iterable[Reference]) -> References:
    """References by object, each different claim once."""
    found: References = {}
    for reference in references:
        claims = found.setdefault(reference.digest.object_name(reference.kind), [])
        if not any(_claim(each) == _claim(reference) for each in claims):
            claims.append(reference)
    return found


def _claim(reference: Reference) -> tuple[Compression, int]:
    return reference.compression, reference.size_bytes


def check_present(source: Source, references: References, jobs: int) -> Iterator[Finding]:
    """A finding for each object that is missing; contents are not read."""

    def look(name: str) -> list[Finding]:
        try:
            source.open(name).close()
        except NotFoundError:
            return [_missing(name, references[name])]
        except RepositoryError as exc:
            return [error("object-unreadable", name, exc.message)]
        return []

    yield from _in_parallel(look, references, jobs)


def check_contents(source: Source, references: References, jobs: int) -> Iterator[Finding]:
    """A finding for each object that is missing or damaged, or does not unpack to what catalogs say.

    In a folder or bucket all objects are read, also those that nothing refers to, and everything else that lies there
    is reported.
    """
    names: Iterable[str] = references
    if isinstance(source, FolderSource | S3Storage):
        stray: list[Finding] = []
        listed = _objects(source.folder, stray) if isinstance(source, FolderSource) else _in_bucket(source, stray)
        present = list(listed)
        yield from stray
        if isinstance(source, FolderSource):
            yield from check_permissions(source.folder)
        for name in sorted(set(references) - set(present)):
            yield _missing(name, references[name])
        names = present
    yield from _in_parallel(lambda name: _check_one(source, name, references.get(name, [])), names, jobs)


def check_permissions(folder: Path) -> Iterator[Finding]:
    """A warning for each file and folder of a repository that a web server may not be able to read."""
    for path, wanted in readable_paths(folder):
        mode = stat.S_IMODE(path.stat(follow_symlinks=False).st_mode)
        if mode & wanted != wanted and not path.is_symlink():
            name = path.relative_to(folder)
            yield warning(
                "permissions",
                f"{name}",
                f"a web server that runs as another user cannot read it (mode {mode:04o})",
                hint=f"chmod {mode | wanted:04o} {path}, or --repair",
            )


def readable_paths(folder: Path) -> Iterator[tuple[Path, int]]:
    """What clients need of a repository folder, and the permission bits that let everybody read it."""
    yield folder, _ENTER
    for name in (MANIFEST_NAME, WHITELIST_NAME, REFLOG_NAME):
        if (folder / name).is_file():
            yield folder / name, _READ
    yield folder / "data", _ENTER
    for place in sorted((folder / "data").glob("??")):
        if place.is_dir():
            yield place, _ENTER
            for item in sorted(os.scandir(place), key=lambda each: each.name):
                if item.is_file(follow_symlinks=False):
                    yield Path(item.path), _READ


def _in_parallel(work: Callable[[str], list[Finding]], names: Iterable[str], jobs: int) -> Iterator[Finding]:
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="check") as pool:
        for findings in pool.map(work, names):
            yield from findings


def _missing(name: str, claims: list[Reference]) -> Finding:
    where = claims[0].where if claims else ""
    return error("object-missing", where or name, f"the object {name} is missing")


def _check_one(source: Source, name: str, claims: list[Reference]) -> list[Finding]:
    digest, kind = parse_object_name(name)
    where = claims[0].where if claims else name
    wanted: list[tuple[Compression, int]] = [_claim(each) for each in claims]
    if not wanted and kind in _METADATA:
        wanted = [(Compression.ZLIB, -1)]
    findings: list[Finding] = []
    try:
        if not wanted:
            for _ in object_blocks(source, digest, kind):
                pass
        for compression, size_bytes in wanted:
            findings += _unpack(source, digest, kind, compression, size_bytes, where)
    except RepositoryError as exc:
        return [error("object-missing" if "missing" in exc.message else "object-damaged", where, exc.message)]
    except AfpubError as exc:
        return [error("object-damaged", where, exc.message)]
    return findings


def _unpack(  # noqa: PLR0913, PLR0917 - everything that is said of an object
    source: Source, digest: Digest, kind: ObjectKind, compression: Compression, size_bytes: int, where: str
) -> list[Finding]:
    blocks = object_blocks(source, digest, kind)
    name = digest.object_name(kind)
    limit = size_bytes if size_bytes >= 0 else _NO_LIMIT
    try:
        got = sum(len(piece) for piece in decompress(blocks, compression, limit=limit))
    except FormatError as exc:
        for _ in blocks:  # a wrong digest says more than what the decompressor stumbled over
            pass
        return [error("object-contents", where, f"the object {name} {exc.message}")]
    if size_bytes >= 0 and got != size_bytes:
        return [error("object-contents", where, f"the object {name} has {got} bytes of content, not {size_bytes}")]
    return []


def parse_object_name(name: str) -> tuple[Digest, ObjectKind]:
    """The digest and kind of an object named ``data/xx/...``.

    Raises:
        FormatError: it is no name of an object.
    """
    parts = name.split("/")
    if len(parts) != 3 or len(parts[1]) != 2:
        raise FormatError(f"{name} is no name of an object")
    text, letter = parts[2], ""
    if text[-1:] in {kind.value for kind in ObjectKind if kind.value}:
        text, letter = text[:-1], text[-1]
    try:
        return Digest.parse(parts[1] + text), ObjectKind(letter)
    except FormatError:
        raise FormatError(f"{name} is no name of an object") from None


def _in_bucket(storage: S3Storage, stray: list[Finding]) -> Iterator[str]:
    for listed in storage.folders():
        for name, _ in listed:
            try:
                parse_object_name(name)
            except FormatError as exc:
                stray.append(error("stray-file", name, exc.message))
            else:
                yield name


def _objects(folder: Path, stray: list[Finding]) -> Iterator[str]:
    """The names of all objects; what is none goes to ``stray``."""
    for path in sorted((folder / "data").iterdir()):
        name = path.name
        if name == "txn":
            continue
        if len(name) != 2 or path.is_symlink() or not path.is_dir():
            stray.append(error("stray-file", f"data/{name}", "is no folder of objects"))
            continue
        for item in sorted(os.scandir(path), key=lambda each: each.name):
            full = f"data/{name}/{item.name}"
            try:
                parse_object_name(full)
            except FormatError as exc:
                stray.append(error("stray-file", full, exc.message))
                continue
            if item.is_file(follow_symlinks=False):
                yield full
            else:
                stray.append(error("stray-file", full, "is no plain file"))
