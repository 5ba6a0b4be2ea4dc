"""Reading back what a client would read, and proving that it is what was built."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from publisher.cvmfs.reader import Reader, Stored
from publisher.cvmfs.rows import MARKER
from publisher.names import RepoPath
from publisher.records.release import RELEASE_FILE, ImageRecord, ReleaseRecord
from publisher.release.layout import image_path, release_path
from publisher.report import Finding, Report, collect, error, note
from publisher.staging.digest import file_blocks, sha256_of, tree_digest
from publisher.tree import Entry, FolderTree, Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A published tree as somebody sees it."""

    walk: Callable[[RepoPath], Iterable[Entry]]
    """The tree at a path, in tree order; raises where there is none."""
    sha256: Callable[[RepoPath, Entry], bytes]
    """The digest of the bytes of a file of the tree at a path."""
    link: Callable[[RepoPath], str | None] | None = None
    """The target of the link at a path; None where only what is below the prefix can be seen."""


def folder_view(folder: Path, prefix: RepoPath) -> View:
    """A plain copy, or a mount, of everything below the prefix."""

    def place(path: RepoPath) -> Path:
        return folder / path.removeprefix(prefix).strip("/")

    def walk(path: RepoPath) -> Iterable[Entry]:
        return FolderTree(folder=place(path))

    def sha256(path: RepoPath, entry: Entry) -> bytes:
        return sha256_of(file_blocks(place(path) / entry.path))

    return View(walk=walk, sha256=sha256)


def reader_view(reader: Reader) -> View:
    """A revision of a repository, read object by object; what has been read once is known."""
    known: dict[str, bytes] = {}
    waiting: dict[str, Stored] = {}

    def walk(path: RepoPath) -> Iterable[Entry]:
        top = f"{path}".strip("/")
        for stored in reader.walk(path):
            waiting[stored.path] = stored
            yield stored.entry._replace(path=stored.path.removeprefix(top).strip("/"))

    def sha256(path: RepoPath, entry: Entry) -> bytes:
        stored = waiting.pop(f"{path}/{entry.path}".strip("/"))
        digest = known.get(stored.content_key)
        if digest is None:
            digest = known[stored.content_key] = sha256_of(reader.read(stored))
        return digest

    def link(path: RepoPath) -> str | None:
        found = reader.lookup(path)
        return found.entry.target if found is not None and found.entry.kind is Kind.SYMLINK else None

    return View(walk=walk, sha256=sha256, link=link)


def verify_record(view: View, record: ReleaseRecord, *, images: Iterable[ImageRecord]) -> Report:
    """What is not as the release record says.

    Args:
        view: what is published.
        record: the record of the release.
        images: the images to be read in full.
    """
    findings = [*_release_findings(view, record), *_alias_findings(view, record)]
    for image in images:
        findings.extend(_image_findings(view, record, image))
    return collect(findings)


def _release_findings(view: View, record: ReleaseRecord) -> Iterator[Finding]:
    path = release_path(record.prefix, record.version)
    expected = {row.path: row.sha256 for row in record.files}
    found = {
        entry.path: view.sha256(path, entry).hex()
        for entry in view.walk(path)
        if entry.kind is Kind.FILE and entry.path != RELEASE_FILE
    }
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield error("release-files", f"{path}/{name}", "is missing")
        elif name not in expected:
            yield error("release-files", f"{path}/{name}", "is not in the release record")
        elif found[name] != expected[name]:
            yield error("release-files", f"{path}/{name}", "is not what was released")
    yield note("release-files", path, f"{len(found)} files are what was released")


def _alias_findings(view: View, record: ReleaseRecord) -> Iterator[Finding]:
    """An old path must lead to something that afpub published; a later release may have made it lead elsewhere."""
    for path, target in record.aliases if view.link is not None else ():
        assert view.link is not None
        found = view.link(RepoPath(path))
        place = os.path.normpath(f"{RepoPath(path).parent}/{found}")
        if found is None:
            yield error("alias", path, f"is no link, the release made it lead to {target}")
        elif found != target and not place.startswith(f"{record.prefix}/"):
            yield error("alias", path, f"leads to {found}, the release made it lead to {target}")


def _image_findings(view: View, record: ReleaseRecord, image: ImageRecord) -> Iterator[Finding]:
    path = image_path(record.prefix, image.name, image.version)
    count = 0

    def counted() -> Iterator[Entry]:
        nonlocal count
        for entry in view.walk(path):
            count += entry.name != MARKER
            yield entry

    digest = tree_digest(counted(), content=lambda entry: view.sha256(path, entry))
    if digest != image.tree_digest:
        yield error(
            "image-tree",
            path,
            f"is not what was built: {count:,} entries with digest {digest}, "
            f"the record says {image.entries:,} with {image.tree_digest}",
            hint="run 'afpub repo fsck' and read what it says",
        )
    else:
        yield note("image-tree", path, f"{count:,} entries are what was built")
