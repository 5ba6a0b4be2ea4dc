"""Commands for repositories: create, publish, ls, cat, fsck, tag."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from publisher.backends.base import Changeset, Published
from publisher.cli import keyring, upkeep
from publisher.cli.common import Session, command, from_newest
from publisher.cli.keyring import master_sign
from publisher.cli.options import At, Key, Keys, MasterKey, Repo, SignCommand, Wait
from publisher.cli.places import Place, ProjectBackend, find_place, now, revision_of
from publisher.cvmfs.check import check
from publisher.cvmfs.create import create_repository
from publisher.cvmfs.crew import Hands
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.keys import KeyFiles, create_keys
from publisher.cvmfs.location import is_bucket, source_of
from publisher.cvmfs.preflight import nested_below
from publisher.cvmfs.reader import Stored
from publisher.cvmfs.repair import Origin
from publisher.cvmfs.repair import repair as repair_repository
from publisher.cvmfs.settings import Settings, with_values
from publisher.cvmfs.tags import add_tag, remove_tag
from publisher.errors import NotFoundError, UsageError
from publisher.names import Fqrn, RepoPath, TagName
from publisher.project.settings import CatalogBounds
from publisher.report import Report
from publisher.staging.catalogs import check_split, split_tree
from publisher.staging.normalize import Policy, normalize
from publisher.staging.secrets import check_secrets
from publisher.tree import FORMAT_OF_KIND, FolderTree, Graft, Kind


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    repo = typer.Typer(help="Look into and look after repositories.", no_args_is_help=True)
    keys = typer.Typer(help="Look after the keys of a repository.", no_args_is_help=True)
    app.add_typer(repo, name="repo")
    app.add_typer(keys, name="keys")
    for register_one in (_create, _publish, _ls, _cat, _fsck, _tag):
        register_one(repo)
    upkeep.register(repo)
    keyring.register(keys)


def _create(app: typer.Typer) -> None:
    @command(app)
    def create(
        session: Session,
        fqrn: Annotated[str, typer.Argument(help="Name of the repository, such as kernels.example.org.")],
        at: Annotated[
            str, typer.Option("--at", help="Folder of the repository, made if it is not there; or s3://BUCKET/PREFIX.")
        ],
        keys: Keys = None,
        algorithm: Annotated[Algorithm, typer.Option(help="What names the objects.")] = Algorithm.SHA1,
        master_key: MasterKey = None,
        sign_command: SignCommand = "",
        values: Annotated[
            list[str] | None, typer.Option("--set", help="A setting, NAME=VALUE; see 'afpub repo settings'.")
        ] = None,
    ) -> None:
        """Create an empty signed repository and its keys."""
        settings = with_values(Settings(algorithm=algorithm), values or (), new=True)
        place = find_place(session, at, keys=keys) if is_bucket(at) else None
        folder = keys or (place.keys if place else None) or (Path() if place else Path(at).absolute().parent) / "keys"
        name = Fqrn(fqrn)
        moment = now()
        files = KeyFiles(folder=folder, fqrn=name)
        if not files.repository_key.exists():
            create_keys(name, folder, now=moment)
        create_repository(
            place.storage() if place else Path(at),
            name,
            keys_folder=folder,
            settings=settings,
            now=moment,
            sign=master_sign(files, master_key, sign_command),
        )
        session.screen.result(
            {
                "fqrn": name,
                "repository": f"{at}",
                "public_key": f"{files.public_key}",
                "master_key": f"{files.master_key}",
            },
            lines=(
                f"{name} is in {at}, revision 1. Its keys are in {folder}:",
                f"  {files.public_key.name:<40} give it to every client",
                f"  {files.repository_key.name:<40} signs what is published: keep it on this machine",
                f"  {files.master_key.name:<40} signs the whitelist every 30 days: keep it apart, and a copy",
            ),
        )


def _publish(app: typer.Typer) -> None:
    @command(app)
    def publish(
        session: Session,
        folder: Annotated[Path, typer.Argument(help="Any folder.", exists=True, file_okay=False)],
        path: Annotated[str, typer.Argument(help="Where it goes in the repository, such as /sw/tool/1.0.")],
        repo: Repo = "",
        keys: Keys = None,
        tag: Annotated[str, typer.Option(help="Name of the new revision.")] = "",
        wait: Wait = 0.0,
    ) -> None:
        """Publish a folder as one revision; it replaces what is at the path."""
        target = RepoPath(path)
        if not target:
            raise UsageError("a folder cannot replace the root", hint="name a folder, such as /sw/tool/1.0")
        name = TagName(tag) if tag else None
        place = find_place(session, repo, keys=keys)
        backend = place.backend(wait_s=wait)
        with place.hands() as hands:
            changeset, entries = _examined(session, place, backend, hands, folder, target)
            with session.screen.progress() as progress:
                progress.step(f"publishing {entries:,} entries")
                backend = place.backend(wait_s=wait, progress=progress, hands=hands)

                def once() -> Published:
                    change = replace(changeset, base=backend.head(), tag=name)
                    return backend.publish(change, progress=lambda read, total: progress.advance(read, total, "bytes"))

                # Whatever else was published meanwhile stays: the folder goes to its place in the newest revision.
                done = from_newest(wait, once)
        text = f"{target} is revision {done.revision.number} of {backend.fqrn}"
        session.screen.result(
            {
                "fqrn": backend.fqrn,
                "path": target,
                "revision": done.revision.number,
                "root_hash": done.revision.root_hash,
                "new": done.new,
                "entries": entries,
                "objects": done.objects,
                "stored_bytes": done.stored_bytes,
                "seconds": done.seconds,
            },
            lines=(
                f"{text}: {done.objects:,} new objects, {done.stored_bytes / 1e6:,.1f} MB"
                if done.new
                else f"{text} already: nothing to do",
            ),
        )


def _examined(
    session: Session, place: Place, backend: ProjectBackend, hands: Hands, folder: Path, target: RepoPath
) -> tuple[Changeset, int]:
    """What puts a folder at a path, and its entries: found to be fit. Hands start meanwhile if there are many.

    It has no tag yet: one that is taken has an exit code of its own, when it is published.
    """
    where = f"{folder}"
    tree = normalize(hands.start_behind(FolderTree(folder=folder)), where=where, policy=Policy())
    bounds = CatalogBounds()
    with place.open(session) as reader:
        found = split_tree(tree.entries, bounds, previous=nested_below(reader, target))
    changeset = Changeset(
        base=backend.head(),
        grafts=(Graft(at=target, tree=tree.entries, catalogs=found.catalogs),),
        description=f"publish_{target.name}",
    )
    report = tree.report + check_secrets(tree.entries, where=where) + check_split(found, where=where, bounds=bounds)
    report += backend.preflight(changeset)
    session.screen.report(report)
    session.conclude(report, "nothing was published")
    return changeset, len(tree.entries)


def _ls(app: typer.Typer) -> None:
    @command(app)
    def ls(
        session: Session,
        path: Annotated[str, typer.Argument(help="A path in the repository.")] = "/",
        repo: Repo = "",
        key: Key = None,
        at: At = "",
        recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Everything below it.")] = False,
    ) -> None:
        """List what is at a path."""
        where = RepoPath(path)
        with find_place(session, repo, public_key=key).open(session, at=at) as reader:
            found = reader.lookup(where)
            if found is None:
                raise NotFoundError(f"there is no {where or '/'} in {reader.fqrn}")
            if recursive:
                rows: Sequence[Stored] = tuple(reader.walk(where))
            elif found.entry.kind is Kind.DIRECTORY:
                rows = reader.listdir(where)
            else:
                rows = (found,)
            session.screen.result(
                {"fqrn": reader.fqrn, "path": where, "entries": [_stored_json(row) for row in rows]},
                lines=[_stored_line(row, recursive=recursive) for row in rows],
            )


def _stored_line(row: Stored, *, recursive: bool) -> str:
    entry = row.entry
    mode = stat.filemode(FORMAT_OF_KIND[entry.kind] | entry.mode)
    name = f"/{entry.path}" if recursive else entry.name
    target = f" -> {entry.target}" if entry.kind is Kind.SYMLINK else ""
    mark = " (nested catalog)" if row.catalog else ""
    shown = f"{name}{target}".encode(errors="backslashreplace").decode()
    return f"{mode} {entry.size_bytes:>12} {shown}{mark}"


def _stored_json(row: Stored) -> dict[str, object]:
    entry = row.entry
    return {
        "path": f"/{entry.path}".encode(errors="backslashreplace").decode(),
        "type": entry.kind.value,
        "mode": f"{entry.mode:04o}",
        "size_bytes": entry.size_bytes,
        "mtime_s": entry.mtime_s,
        "target": entry.target.encode(errors="backslashreplace").decode(),
        "digest": f"{row.digest}" if row.digest else None,
        "chunks": len(row.chunks),
        "nested_catalog": f"{row.catalog}" if row.catalog else None,
    }


def _cat(app: typer.Typer) -> None:
    @command(app)
    def cat(
        session: Session,
        path: Annotated[str, typer.Argument(help="A file in the repository.")],
        repo: Repo = "",
        key: Key = None,
        at: At = "",
    ) -> None:
        """Write the bytes of a file to stdout, verified."""
        if session.screen.as_json:
            raise UsageError("cat writes the bytes of the file, which is no JSON", hint="leave --json out")
        with find_place(session, repo, public_key=key).open(session, at=at) as reader:
            for block in reader.read(RepoPath(path)):
                sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()


def _fsck(app: typer.Typer) -> None:
    @command(app)
    def fsck(
        session: Session,
        repo: Repo = "",
        key: Key = None,
        data: Annotated[bool, typer.Option(help="Read every object and check its digest and size.")] = True,
        repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired, then check.")] = False,
        keys: Keys = None,
        mirror: Annotated[str, typer.Option(help="Folder or address of a copy that may have the objects.")] = "",
        from_tree: Annotated[
            tuple[str, str], typer.Option("--from-tree", help="A folder that was published, and the path there.")
        ] = ("", ""),
    ) -> None:
        """Check a repository: signatures, catalogs, counters, links between them, every object."""
        place = find_place(session, repo, keys=keys, public_key=key)
        if not repair and (mirror or any(from_tree)):
            raise UsageError("nothing is repaired without being asked", hint="add --repair")
        origin = Origin(folder=Path(from_tree[0]), at=RepoPath(from_tree[1])) if from_tree[0] else None
        public_key = key or (KeyFiles(folder=place.keys, fqrn=place.fqrn()).public_key if place.keys else None)
        with session.screen.progress() as progress:
            done = Report()
            if repair:
                progress.step(f"repairing {place.location}")
                done = repair_repository(
                    place.storage(),
                    keys_folder=place.key_folder(),
                    now=now(),
                    mirror=source_of(mirror) if mirror else None,
                    origin=origin,
                )
            progress.step(f"checking {place.location}")
            report = done + check(place.location, public_key=public_key.read_bytes() if public_key else None, data=data)
        session.screen.report(report)
        session.conclude(report, f"{place.location} is damaged")
        session.screen.result(report.to_json(), lines=("no problems found",))


def _tag(app: typer.Typer) -> None:
    @command(app)
    def tag(
        session: Session,
        repo: Repo = "",
        keys: Keys = None,
        add: Annotated[str, typer.Option(help="Give a revision a name; the newest one without --at.")] = "",
        at: At = "",
        remove: Annotated[str, typer.Option(help="Forget a name; the revision stays.")] = "",
        wait: Wait = 0.0,
    ) -> None:
        """List the tags of a repository, or add or remove one."""
        place = find_place(session, repo, keys=keys)
        if at and not add:
            raise UsageError("a revision without a name for it", hint="give the name: --add NAME")
        if remove:
            remove_tag(place.folder, remove, keys_folder=place.key_folder(), now=now(), wait_s=wait)
        if add:
            revision = revision_of(at) if at else None
            add_tag(
                place.folder, TagName(add), keys_folder=place.key_folder(), now=now(), revision=revision, wait_s=wait
            )
        with place.open(session) as reader:
            tags = sorted(reader.tags(), key=lambda row: (row.revision, row.name))
        session.screen.table(
            "",
            ("tag", "revision", "root", "description"),
            [(row.name, f"{row.revision}", f"{row.root}", row.description) for row in tags],
        )
        session.screen.result(
            {
                "tags": [
                    {
                        "name": row.name,
                        "revision": row.revision,
                        "root_hash": f"{row.root}",
                        "published_s": row.published_s,
                        "description": row.description,
                    }
                    for row in tags
                ]
            }
        )
