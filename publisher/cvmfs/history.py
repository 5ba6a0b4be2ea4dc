"""The tag database: names for revisions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace

from publisher.cvmfs import sqlite
from publisher.cvmfs.digest import Digest
from publisher.errors import FormatError

TRUNK = "trunk"
TRUNK_PREVIOUS = "trunk-previous"
_WHERE = "the tag database"
_TABLES = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
    (
        "CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER, "
        "CONSTRAINT pk_branch PRIMARY KEY (branch), FOREIGN KEY (parent) REFERENCES branches (branch), "
        "CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)))"
    ),
    (
        "CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER, "
        "description TEXT, size INTEGER, branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name), "
        "FOREIGN KEY (branch) REFERENCES branches (branch))"
    ),
    "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash))",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tag:
    """A name for a revision. Source: cvmfs/history_sql.cc (2.12)."""

    name: str
    root: Digest
    revision: int
    published_s: int
    """When the revision was made, seconds since 1970."""
    description: str = ""
    size_bytes: int = 0
    """Size of the uncompressed root catalog."""
    branch: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A branch of revisions; every repository has the one without a name."""

    name: str = ""
    parent: str | None = None
    initial_revision: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """A tag database."""

    fqrn: str
    tags: tuple[Tag, ...] = ()
    branches: tuple[Branch, ...] = (Branch(),)
    previous: str = ""
    """Digest of the tag database before this one, in text form."""

    def tag(self, name: str) -> Tag | None:
        """The tag of that name."""
        return next((tag for tag in self.tags if tag.name == name), None)

    def with_tag(self, tag: Tag) -> History:
        """The history with a tag added, or replaced where it is."""
        rest = tuple(other for other in self.tags if other.name != tag.name)
        return replace(self, tags=(*rest, tag))

    def without_tag(self, name: str) -> History:
        """The history without a tag."""
        return replace(self, tags=tuple(tag for tag in self.tags if tag.name != name))

    def with_head(self, head: Tag) -> History:
        """The history with ``trunk`` moved to a new revision and ``trunk-previous`` to the one before."""
        history = self
        former = self.tag(TRUNK)
        if former is not None:
            previous = replace(former, name=TRUNK_PREVIOUS, description="default undo target")
            history = history.with_tag(previous)
        return history.with_tag(replace(head, name=TRUNK, description="current HEAD"))


def encode_history(history: History) -> bytes:
    """The bytes of the (uncompressed) tag database."""

    def fill(database: sqlite3.Connection) -> None:
        rows = [("schema", "1.0"), ("schema_revision", "3"), ("fqrn", history.fqrn)]
        if history.previous:
            rows.append(("previous_revision", history.previous))
        database.executemany("INSERT INTO properties VALUES (?, ?)", rows)
        branches = [(branch.name, branch.parent, branch.initial_revision) for branch in history.branches]
        database.executemany("INSERT INTO branches VALUES (?, ?, ?)", branches)
        tags = [
            (t.name, str(t.root), t.revision, t.published_s, 0, t.description, t.size_bytes, t.branch)
            for t in history.tags
        ]
        database.executemany("INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tags)

    return sqlite.build(_TABLES, fill)


def parse_history(data: bytes) -> History:
    """The tags in the bytes of a tag database.

    Raises:
        FormatError: it is damaged.
    """
    tables = frozenset({"properties", "tags"})
    with closing(sqlite.open_bytes(data, tables=tables, where=_WHERE)) as database:
        names = sqlite.properties(database, where=_WHERE)
        try:
            if int(names.get("schema_revision", "0")) < 3:
                raise FormatError(
                    f"{_WHERE} is of an old version", hint="publish once with a CVMFS server of 2.5 or newer"
                )
            tags = database.execute(
                "SELECT name, hash, revision, timestamp, description, size, branch FROM tags ORDER BY rowid"
            ).fetchall()
            branches = database.execute(
                "SELECT branch, parent, initial_revision FROM branches ORDER BY rowid"
            ).fetchall()
        except (*sqlite.DAMAGE, ValueError) as exc:
            raise FormatError(f"{_WHERE} is damaged ({exc})") from None
    return History(
        fqrn=names.get("fqrn", ""),
        tags=tuple(_tag(row) for row in tags),
        branches=tuple(_branch(row) for row in branches),
        previous=names.get("previous_revision", ""),
    )


def _tag(row: tuple[object, ...]) -> Tag:
    return Tag(
        name=sqlite.as_text(row[0], where=_WHERE),
        root=Digest.parse(sqlite.as_text(row[1], where=_WHERE)),
        revision=sqlite.as_int(row[2], where=_WHERE),
        published_s=sqlite.as_int(row[3], where=_WHERE),
        description="" if row[4] is None else sqlite.as_text(row[4], where=_WHERE),
        size_bytes=sqlite.as_int(row[5], where=_WHERE),
        branch=sqlite.as_text(row[6], where=_WHERE),
    )


def _branch(row: tuple[object, ...]) -> Branch:
    return Branch(
        name=sqlite.as_text(row[0], where=_WHERE),
        parent=None if row[1] is None else sqlite.as_text(row[1], where=_WHERE),
        initial_revision=sqlite.as_int(row[2], where=_WHERE),
    )
