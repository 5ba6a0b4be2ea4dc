"""Checking objects: they are there, their bytes are those of their names, and they unpack rightly."""

from __future__ import annotations

import functools
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from publisher.cvmfs.check_catalog import Reference
from publisher.cvmfs.compression import Compression, decompress
from publisher.cvmfs.digest import Algorithm, Digest, ObjectKind
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.reflog import REFLOG_NAME
from publisher.cvmfs.s3.storage import S3Storage
from publisher.cvmfs.shelves import SHELVES, Shelves
from publisher.cvmfs.source import FolderSource, Source, object_blocks
from publisher.cvmfs.whitelist import WHITELIST_NAME
from publisher.errors import AfpubError, FormatError, NotFoundError, RepositoryError
from publisher.report import Finding, error, warning

_NO_LIMIT = 1 << 62
_AT_ONCE = 1000
_FOLDERS = {f"{number:02x}" for number in range(SHELVES)}
_ALGORITHMS, _KINDS, _COMPRESSIONS = tuple(Algorithm), tuple(ObjectKind), tuple(Compression)
_RECORD = struct.Struct("<20sBBBqI")
"""Digest, numbers of algorithm, kind and compression, size, and the length of the path, which follows."""
_READ = 0o444
_ENTER = 0o555
_METADATA = {ObjectKind.CATALOG, ObjectKind.HISTORY, ObjectKind.CERTIFICATE, ObjectKind.METAINFO}


class References:
    """What catalogs say of objects, for millions of them: most of it is in a file."""

    def __init__(self) -> None:
        self._shelves = Shelves()

    def add(self, reference: Reference) -> None:
        """Adds what a row says."""
        self._shelves.add(reference.digest.raw[0], _encode(reference))

    def extend(self, references: Iterable[Reference]) -> None:
        """Adds what many rows say."""
        for reference in references:
            self.add(reference)

    def folder(self, number: int) -> dict[str, list[Reference]]:
        """What is said of the objects in ``data/XX``, by their names, sorted; each different claim once."""
        found: dict[str, list[Reference]] = {}
        for reference in _decode(self._shelves.read(number)):
            claims = found.setdefault(reference.digest.object_name(reference.kind), [])
            if not any(_claim(each) == _claim(reference) for each in claims):
                claims.append(reference)
        return dict(sorted(found.items()))


def _encode(reference: Reference) -> bytes:
    digest, where = reference.digest, os.fsencode(reference.where)
    head = _RECORD.pack(
        digest.raw,
        _ALGORITHMS.index(digest.algorithm),
        _KINDS.index(reference.kind),
        _COMPRESSIONS.index(reference.compression),
        reference.size_bytes,
        len(where),
    )
    return head + where


def _decode(data: bytes) -> Iterator[Reference]:
    start = 0
    while start < len(data):
        raw, algorithm, kind, compression, size_bytes, length = _RECORD.unpack_from(data, start)
        start += _RECORD.size + length
        yield Reference(
            digest=Digest(raw=raw, algorithm=_ALGORITHMS[algorithm]),
            kind=_KINDS[kind],
            compression=_COMPRESSIONS[compression],
            size_bytes=size_bytes,
            where=os.fsdecode(data[start - length : start]),
        )


def _claim(reference: Reference) -> tuple[Compression, int]:
    return reference.compression, reference.size_bytes


def check_present(source: Source, references: References, jobs: int) -> Iterator[Finding]:
    """A finding for each object that is missing; contents are not read."""

    def look(item: tuple[str, list[Reference]]) -> list[Finding]:
        name, claims = item
        try:
            source.open(name).close()
        except NotFoundError:
            return [_missing(name, claims)]
        except RepositoryError as exc:
            return [error("object-unreadable", name, exc.message)]
        return []

    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="check") as pool:
        for number in range(SHELVES):
            yield from _in_parallel(pool, look, list(references.folder(number).items()))


def check_contents(source: Source, references: References, jobs: int) -> Iterator[Finding]:
    """A finding for each object that is missing or damaged, or does not unpack to what catalogs say.

    In a folder or bucket all objects are read, also those that nothing refers to, and everything else that lies there
    is reported. One folder of objects after the other is held in memory.
    """
    listed = _listed(source)
    if isinstance(source, FolderSource):
        yield from _stray_folders(source.folder)
        yield from check_permissions(source.folder)
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="check") as pool:
        for number in range(SHELVES):
            claims = references.folder(number)
            names = list(claims)
            if listed is not None:
                names, stray = next(listed)
                yield from stray
                for name in sorted(claims.keys() - set(names)):
                    yield _missing(name, claims[name])
            items = [(name, claims.get(name, [])) for name in names]
            yield from _in_parallel(pool, functools.partial(_check_one, source), items)


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


def _in_parallel(
    pool: ThreadPoolExecutor,
    work: Callable[[tuple[str, list[Reference]]], list[Finding]],
    items: Sequence[tuple[str, list[Reference]]],
) -> Iterator[Finding]:
    for start in range(0, len(items), _AT_ONCE):
        for findings in pool.map(work, items[start : start + _AT_ONCE]):
            yield from findings


def _missing(name: str, claims: list[Reference]) -> Finding:
    where = claims[0].where if claims else ""
    return error("object-missing", where or name, f"the object {name} is missing")


def _check_one(source: Source, item: tuple[str, list[Reference]]) -> list[Finding]:
    name, claims = item
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


Listed = tuple[list[str], list[Finding]]
"""The names of objects, and what else lies beside them."""


def _listed(source: Source) -> Iterator[Listed] | None:
    """What is in each of the folders ``data/00`` to ``data/ff``; None where that cannot be known."""
    if isinstance(source, FolderSource):
        return (_in_folder(source.folder / "data" / f"{number:02x}") for number in range(SHELVES))
    if isinstance(source, S3Storage):
        return (_sorted_out(name for name, _ in listed) for listed in source.folders())
    return None


def _sorted_out(names: Iterable[str]) -> Listed:
    good: list[str] = []
    stray: list[Finding] = []
    for name in names:
        try:
            parse_object_name(name)
        except FormatError as exc:
            stray.append(error("stray-file", name, exc.message))
        else:
            good.append(name)
    return good, stray


def _in_folder(place: Path) -> Listed:
    if place.is_symlink() or not place.is_dir():
        return [], []
    items = {f"data/{place.name}/{item.name}": item for item in os.scandir(place)}
    good, stray = _sorted_out(sorted(items))
    plain = [name for name in good if items[name].is_file(follow_symlinks=False)]
    known = set(plain)
    stray += [error("stray-file", name, "is no plain file") for name in good if name not in known]
    return plain, stray


def _stray_folders(folder: Path) -> Iterator[Finding]:
    """What lies beside the folders of objects, or in the place of one."""
    for path in sorted((folder / "data").iterdir()):
        if path.name != "txn" and (path.name not in _FOLDERS or path.is_symlink() or not path.is_dir()):
            yield error("stray-file", f"data/{path.name}", "is no folder of objects")
