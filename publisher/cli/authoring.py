"""Commands for the project itself: init, check, doctor."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from publisher import doctor as machine
from publisher.cli.common import Session, command
from publisher.cli.places import server_of
from publisher.names import Fqrn, ReleaseVersion
from publisher.project.init import init_project
from publisher.project.settings import SERVER, find_project, load_settings
from publisher.validation.project import check_project


def register(app: typer.Typer) -> None:
    """Adds the commands."""

    @command(app)
    def init(
        session: Session,
        folder: Annotated[Path, typer.Argument(help="Folder of the new project.")] = Path(),
        fqrn: Annotated[str, typer.Option(help="The repository it will publish into.")] = "kernels.example.org",
    ) -> None:
        """Make a new publishing project: an image, a kernel, a release; it releases as it is."""
        version = ReleaseVersion(f"{dt.datetime.now(tz=dt.UTC):%Y.%-m}.1")
        files = init_project(folder, fqrn=Fqrn(fqrn), version=version)
        session.screen.result(
            {"folder": f"{folder}", "fqrn": fqrn, "files": [f"{file}" for file in files]},
            lines=(
                f"{len(files)} files in {folder.resolve()}. What to do next:",
                f"  cd {folder}",
                "  afpub doctor                            is this machine able to build and publish?",
                f"  afpub repo create {fqrn} --at repository --keys keys",
                "  afpub release manifests/first.toml      build, validate, publish, read back",
            ),
        )

    @command(app)
    def check(session: Session) -> None:
        """Check recipes, kernels and manifests without building anything."""
        report = check_project(session.project())
        session.screen.report(report)
        session.conclude(report, "the project is not right")
        session.screen.result(report.to_json())

    @command(app)
    def doctor(session: Session) -> None:
        """Is this machine able to build, publish and run kernels? Each finding with its mend."""
        root = find_project(session.folder)
        settings = load_settings(root) if root else None
        report = machine.examine(settings.work if settings else session.folder)
        if settings is not None and settings.backend == SERVER:
            report += server_of(settings).examine()
        session.screen.report(report)
        session.conclude(report, "this machine is not ready")
        session.screen.result(report.to_json())
