"""The command ``adopt``: taking over what was published by hand."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from publisher.adoption.judge import judge, place
from publisher.adoption.survey import survey
from publisher.adoption.write import Adoption, write
from publisher.cli.common import Session, command
from publisher.errors import UsageError
from publisher.names import Fqrn, ImageName, ReleaseVersion, RepoPath
from publisher.project.settings import find_project, load_settings

_CVMFS = 3
"""Parts of ``/cvmfs/<fqrn>`` in a path."""


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app)
    def adopt(
        session: Session,
        tree: Annotated[Path, typer.Argument(help="Folder that was published by hand, such as /cvmfs/FQRN/jupyter.")],
        into: Annotated[Path, typer.Option(help="Folder for the definitions; a project, or to become one.")] = Path(),
        fqrn: Annotated[str, typer.Option(help="The repository; default: read from the path, or the project's.")] = "",
        at: Annotated[str, typer.Option(help="Path of the tree in the repository; default: read from the path.")] = "",
        prefix: Annotated[str, typer.Option(help="Where releases will be published.")] = "/afpub",
        image: Annotated[str, typer.Option(help="Image for kernels that name none themselves.")] = "",
    ) -> None:
        """Write definitions, an index, a report and menus for a tree that was made by hand; it stays as it is."""
        name, where = _repository(session, tree, fqrn, at)
        with session.screen.progress() as progress:
            progress.step(f"looking through {tree}")
            found = survey(tree)
            progress.step(f"judging {len(found.kernels)} kernels and {len(found.images)} images")
            report = judge(found)
        adoption = Adoption(
            survey=found,
            fqrn=name,
            at=where,
            prefix=RepoPath(prefix),
            version=ReleaseVersion(f"{dt.datetime.now(tz=dt.UTC):%Y.%-m}.1"),
            image=ImageName(image) if image else None,
        )
        files = write(adoption, report, into)
        defined = {kernel.folder for _, kernel, _, _ in adoption.kernels()}
        session.screen.report(report)
        session.screen.table(
            "",
            ("what", "path", "becomes"),
            [
                *(
                    ("kernel", place(found, row.folder), f"kernelspecs/{row.name}" if row.folder in defined else "-")
                    for row in found.kernels
                ),
                *((row.kind, place(found, row.path), f"images/{adoption.images()[row.path]}") for row in found.images),
                *((row.kind, place(found, row.folder), "a list in adopted/") for row in found.environments),
            ],
        )
        session.screen.result(
            {"tree": f"{found.root}", "files": [f"{file}" for file in files], **report.to_json()},
            lines=_lines(into, len(files), len(report.errors), aliases=where is not None),
        )


def _repository(session: Session, tree: Path, fqrn: str, at: str) -> tuple[Fqrn, RepoPath | None]:
    parts = tree.absolute().parts
    in_cvmfs = len(parts) >= _CVMFS and parts[1] == "cvmfs"
    name = fqrn or (parts[2] if in_cvmfs else "")
    if not name:
        root = find_project(session.folder)
        if root is None:
            raise UsageError("which repository is the tree in?", hint="name it: --fqrn NAME")
        name = load_settings(root).fqrn
    if at:
        return Fqrn(name), RepoPath(at)
    return Fqrn(name), RepoPath("/" + "/".join(parts[_CVMFS:])) if in_cvmfs else None


def _lines(into: Path, files: int, errors: int, *, aliases: bool) -> tuple[str, ...]:
    return (
        f"{files} files in {into.resolve()}; {errors} errors in the tree, all in adopted/index.json. What to do next:",
        f"  cd {into}",
        "  afpub check                              are the definitions right?",
        "  afpub plan manifests/adopted.toml        what a release of them would do",
        "  The old paths become links with that release."
        if aliases
        else "  No aliases were written: where the tree is in the repository was not told (--at).",
    )
