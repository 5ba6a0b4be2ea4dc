"""Publishing: trees put into a repository, and paths removed, in one revision."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from publisher.cvmfs.catalog_writer import CatalogContents, CatalogTask
from publisher.cvmfs.commit import Commit, commit, read_reflog
from publisher.cvmfs.content_index import ContentIndex
from publisher.cvmfs.contents import ContentWriter
from publisher.cvmfs.crew import Crew, Hands, Job
from publisher.cvmfs.digest import Digest, ObjectKind
from publisher.cvmfs.drafts import Drafts, Outcome
from publisher.cvmfs.finisher import Written
from publisher.cvmfs.history import History, Tag
from publisher.cvmfs.keys import KeyFiles
from publisher.cvmfs.limits import Limits, check_catalog_sizes, refuse
from publisher.cvmfs.location import Location, storage_of
from publisher.cvmfs.lock import hold
from publisher.cvmfs.manifest import MANIFEST_NAME
from publisher.cvmfs.packer import Packed
from publisher.cvmfs.preflight import check_surveys, survey_grafts
from publisher.cvmfs.reader import Reader, open_repository
from publisher.cvmfs.reflog import REFLOG_NAME
from publisher.cvmfs.rows import Content
from publisher.cvmfs.settings import Settings, read_settings
from publisher.cvmfs.signing import Signer, check_may_sign, load_signer
from publisher.cvmfs.storage import Storage
from publisher.cvmfs.store import ObjectStore
from publisher.cvmfs.survey import Survey
from publisher.errors import AlreadyPublishedError, RepositoryError, StaleBaseError
from publisher.names import Fqrn, RepoPath, TagName
from publisher.report import Report
from publisher.tree import Entry, Graft


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishProgress:
    """How far a publish has come."""

    step: str
    """``contents``, ``catalogs`` or ``manifest``."""
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishResult:
    """What a publish did."""

    revision: int
    root_hash: Digest
    changed: bool
    """False when the repository held all of it already; there is no new revision then."""
    files: int
    """Files that were read."""
    read_bytes: int
    objects_new: int
    stored_bytes: int
    """Bytes of the new objects as they are stored."""
    catalogs_written: int
    seconds: float
    report: Report
    """Warnings, such as very big files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A repository that this process holds and may change."""

    storage: Storage
    reader: Reader
    settings: Settings
    signer: Signer
    store: ObjectStore
    now_s: int


@contextlib.contextmanager
def session(
    location: Location, *, keys_folder: Path, now: datetime, wait_s: float = 0.0, removing: bool = False
) -> Iterator[Session]:
    """Holds a repository for a change; what a failure leaves behind is removed.

    Args:
        location: the repository.
        keys_folder: holds its certificate and its private repository key.
        now: the time of the change.
        wait_s: how long to wait for another publisher, in seconds.
        removing: objects will be removed, so that publishers must keep away, wherever they are.

    Raises:
        TransactionOpenError: another publisher holds it.
        TrustError: the keys or the whitelist do not allow to publish.
        RepositoryError: there is no repository, or it cannot be changed.
    """
    storage = storage_of(location)
    with open_repository(storage) as reader:  # says so before a folder is made in a place that is no repository
        one_publisher = read_settings(storage, algorithm=reader.manifest.algorithm).one_publisher
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold(storage, wait_s=wait_s))
        storage.check_apart(one_publisher=one_publisher)
        if removing:
            stack.enter_context(storage.sweeping())
        reader = stack.enter_context(open_repository(storage))
        if not removing:
            storage.guard()  # behind the reader: a sweep that begins later changes the manifest that was read
        manifest = reader.manifest
        if manifest.alternative_path:
            raise RepositoryError(f"{storage.where} is an access controlled repository, which afpub cannot change")
        files = KeyFiles(folder=keys_folder, fqrn=Fqrn(manifest.fqrn))
        signer = load_signer(files)
        check_may_sign(signer, storage, files, algorithm=manifest.algorithm, now=now)
        settings = read_settings(storage, algorithm=manifest.algorithm)
        index = stack.enter_context(ContentIndex(storage.spool / "contents.sqlite"))
        store = ObjectStore(storage, algorithm=settings.algorithm, index=index)
        store.sweep()
        storage.tidy(MANIFEST_NAME, REFLOG_NAME)
        try:
            yield Session(
                storage=storage,
                reader=reader,
                settings=settings,
                signer=signer,
                store=store,
                now_s=int(now.timestamp()),
            )
        finally:
            store.sweep()


def publish(  # noqa: PLR0913 - one call with everything a revision is made of
    location: Location,
    *,
    keys_folder: Path,
    now: datetime,
    grafts: tuple[Graft, ...] = (),
    removals: tuple[RepoPath, ...] = (),
    tag: TagName | None = None,
    description: str = "",
    base: Digest | None = None,
    progress: Callable[[PublishProgress], None] | None = None,
    wait_s: float = 0.0,
    limits: Limits | None = None,
    jobs: int | None = None,
    hands: Hands | None = None,
) -> PublishResult:
    """Puts trees into a repository and removes paths, as one new revision or not at all.

    Removals come first, then the grafts in their order.

    Args:
        location: the repository.
        keys_folder: holds its certificate and its private repository key.
        now: the revision's time.
        grafts: trees, each in the place of what is there.
        removals: paths that must exist.
        tag: a name for the revision, which must be new.
        description: of the tag.
        base: the root catalog that the change was made for; another one is refused.
        progress: told from time to time how far it has come.
        wait_s: how long to wait for another publisher, in seconds.
        limits: sizes to stay below; those of the repository's settings when left out.
        jobs: processes that read and compress; what the repository's settings say when left out.
        hands: such processes, if there are any already.

    Raises:
        TransactionOpenError: another publisher holds the repository.
        StaleBaseError: the repository is not at ``base`` any more.
        AlreadyPublishedError: the tag exists.
        TrustError: the keys or the whitelist do not allow to publish.
        NotFoundError: a path to remove is not there.
        RepositoryError: the trees cannot be held by a repository.
        DiskError: a file cannot be read or written, or changed meanwhile.
    """
    start = time.monotonic()
    with session(location, keys_folder=keys_folder, now=now, wait_s=wait_s) as held:
        _check_base(held, base)
        hands = hands or Hands(jobs or held.settings.jobs)
        work = _Work(held, limits or held.settings.limits, hands, progress)
        outcome = work.apply(grafts, removals)
        work.tell("manifest")
        history = tagged_history(held.reader, outcome, held.now_s, tag, description)
        if outcome.changed or history is not None:
            commit_outcome(held, outcome, history or held.reader.history())
        return work.result(outcome, seconds=time.monotonic() - start)


def _check_base(held: Session, base: Digest | None) -> None:
    reader = held.reader
    if base is not None and base != reader.root_hash:
        there = f"revision {reader.manifest.revision} ({reader.root_hash})"
        raise StaleBaseError(
            f"{held.storage.where} moved on to {there} since {base}",
            hint="run it again: it starts from the newest revision",
        )


def tagged_history(reader: Reader, outcome: Outcome, now_s: int, name: str | None, description: str) -> History | None:
    """The tag database after the change; None when it stays as it is."""
    history = reader.history()
    head = Tag(
        name="",
        root=outcome.root.digest,
        revision=outcome.revision,
        published_s=now_s,
        size_bytes=outcome.root.size_bytes,
    )
    result = history.with_head(head) if outcome.changed else history
    if name is not None:
        former = history.tag(name)
        if former is not None and (outcome.changed or former.root != outcome.root.digest):
            raise AlreadyPublishedError(
                f"the tag {name!r} exists already: it names revision {former.revision}",
                hint="choose another tag; tags never move",
            )
        if former is None:
            result = result.with_tag(replace(head, name=name, description=description))
    if result == history:
        return None
    return replace(result, previous=str(reader.manifest.history or ""))


def commit_outcome(held: Session, outcome: Outcome, history: History) -> None:
    """Makes a new root catalog the newest revision."""
    manifest = held.reader.manifest
    reflog = read_reflog(held.storage, manifest, held.reader.history())
    change = Commit(
        former=manifest,
        root=outcome.root,
        revision=outcome.revision,
        ttl_s=held.settings.ttl_s,
        garbage_collectable=manifest.garbage_collectable,
        history=history,
        now_s=held.now_s,
    )
    commit(held.store, held.signer, change, reflog)


class _Work:
    """Reads the trees, stores contents and catalogs, and keeps count."""

    def __init__(
        self, held: Session, limits: Limits, hands: Hands, progress: Callable[[PublishProgress], None] | None
    ) -> None:
        self._held = held
        self._limits = limits
        self._hands = hands
        self._progress = progress
        self._files_total = 0
        self._bytes_total = 0
        self._files_done = 0
        self._bytes_done = 0
        self._report = Report()

    def tell(self, step: str) -> None:
        """Reports progress."""
        if self._progress is not None:
            self._progress(
                PublishProgress(
                    step=step,
                    files_done=self._files_done,
                    files_total=self._files_total,
                    bytes_done=self._bytes_done,
                    bytes_total=self._bytes_total,
                )
            )

    def apply(self, grafts: tuple[Graft, ...], removals: tuple[RepoPath, ...]) -> Outcome:
        """Stores everything but the manifest."""
        held = self._held
        trees = survey_grafts(held.reader, grafts, self._limits)
        self._files_total = sum(tree.files for tree in trees)
        self._bytes_total = sum(tree.bytes for tree in trees)
        plan = held.store.plan(held.settings.compressor, held.settings.chunk_rule)
        with Crew(self._hands, plan, held.store.index) as crew:  # nobody writes any more when what is left is removed
            catalogs = _Catalogs(held.store, crew)
            drafts = Drafts(held.reader, catalogs, now_s=held.now_s, nanoseconds=held.settings.nanoseconds)
            for path in removals:
                drafts.remove(path)
            self._report += check_surveys(drafts, trees, self._limits)
            refuse(self._report.findings)
            self.tell("contents")
            marker = self._marker(trees)
            for number, tree in enumerate(trees, 1):
                at = tree.graft.at
                last = not any(_related(at, other.graft.at) for other in trees[number:])
                crew.expect(files=tree.files, size_bytes=tree.bytes)
                drafts.graft(at, self._stored(tree, crew), tree.catalogs, marker, last=last)
            self.tell("catalogs")
            refuse(check_catalog_sizes(drafts.entries(), self._limits))
            return drafts.write(ttl_s=held.settings.ttl_s)

    def result(self, outcome: Outcome, *, seconds: float) -> PublishResult:
        """What all of it came to."""
        totals = self._held.store.totals
        return PublishResult(
            revision=outcome.revision,
            root_hash=outcome.root.digest,
            changed=outcome.changed,
            files=self._files_done,
            read_bytes=self._bytes_done,
            objects_new=totals.objects,
            stored_bytes=totals.stored_bytes,
            catalogs_written=outcome.catalogs_written,
            seconds=seconds,
            report=self._report,
        )

    def _marker(self, trees: Iterable[Survey]) -> Content:
        """The content of an empty file; stored only if a tree has nested catalogs."""
        compressor = self._held.settings.compressor
        algorithm = self._held.store.algorithm
        digest = algorithm.digest(compressor.compress(b""))
        if any(tree.catalogs for tree in trees):
            self._held.store.add(b"", ObjectKind.FILE, compressor)
        return Content(size_bytes=0, algorithm=algorithm, compression=compressor.compression, digest=digest.raw)

    def _stored(self, tree: Survey, crew: Crew) -> Iterator[tuple[Entry, Content | None]]:
        settings = self._held.settings
        at, is_plain = tree.graft.at, settings.is_plain
        writer = ContentWriter(
            self._held.store,
            settings.compressor,
            settings.chunk_rule,
            crew=crew,
            plain=lambda path: is_plain(f"{at}/{path}".rstrip("/")),
            progress=self._count,
        )
        return writer.stored(tree.graft.tree)

    def _count(self, files: int, size_bytes: int) -> None:
        self._files_done += files
        self._bytes_done += size_bytes
        self.tell("contents")


class _Catalogs:
    """Stores catalogs: a crew encodes them while the next ones come into being."""

    def __init__(self, store: ObjectStore, crew: Crew) -> None:
        self._store = store
        self._crew = crew

    def write(self, contents: CatalogContents, done: Callable[[Written], None]) -> None:
        """See :class:`CatalogStore`."""

        def packed(answer: list[Packed]) -> None:
            (catalog,) = answer
            self._store.adopt(catalog, ObjectKind.CATALOG)
            done(Written(Digest(raw=catalog.digest, algorithm=self._store.algorithm), catalog.length))

        self._crew.hand_out(Job(CatalogTask(contents=contents), packed))

    def wait(self) -> None:
        """See :class:`CatalogStore`."""
        self._crew.wait()


def _related(one: RepoPath, other: RepoPath) -> bool:
    """True when one of two paths is the other one, or lies below it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
