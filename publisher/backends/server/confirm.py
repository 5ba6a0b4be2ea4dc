"""Whether a revision holds what was to be published: the manifest and the catalogs decide, not how a tool ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from publisher.backends.server.compare import Wanted
from publisher.cvmfs.reader import Reader, Stored
from publisher.cvmfs.rows import Content
from publisher.errors import NotFoundError
from publisher.tree import Entry, Kind


def differences(want: Wanted, reader: Reader, described: Mapping[str, Content]) -> Iterator[str]:
    """What a revision lacks of a changeset, each as a sentence.

    Names, kinds, modes, sizes and targets of everything are compared, and the digests of what was described.
    """
    there: dict[str, Stored] = {}
    for top in want.tops:
        try:
            there |= {stored.path: stored for stored in reader.walk(top)}
        except NotFoundError:
            yield f"/{top} is not there"
    for path in want.removals:
        if path not in want.entries and reader.lookup(path) is not None:
            yield f"/{path} is still there"
    for path, entry in want.entries.items():
        stored = there.pop(path, None)
        if stored is None:
            yield f"/{path} is not there"
        else:
            yield from _difference(entry, stored, described.get(path))
    for path in there:
        if not path.startswith(".cvmfs"):  # the server's own, in the root
            yield f"/{path} should not be there"


def _difference(entry: Entry, stored: Stored, content: Content | None) -> Iterator[str]:
    was = stored.entry
    if entry.kind is not was.kind:
        yield f"/{entry.path} is a {was.kind}, not a {entry.kind}"
    elif entry.kind is Kind.SYMLINK:
        if entry.target != was.target:
            yield f"/{entry.path} leads to {was.target!r}, not to {entry.target!r}"
    elif entry.mode != was.mode:
        yield f"/{entry.path} has mode {was.mode:o}, not {entry.mode:o}"
    elif entry.kind is Kind.FILE and entry.size_bytes != was.size_bytes:
        yield f"/{entry.path} has {was.size_bytes} bytes, not {entry.size_bytes}"
    elif content is not None and not _same(content, stored):
        yield f"/{entry.path} has other contents than were stored"


def _same(content: Content, stored: Stored) -> bool:
    if content.chunks:
        return content.chunks == stored.chunks
    return stored.digest is not None and content.digest == stored.digest.raw
