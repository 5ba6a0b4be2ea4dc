"""Commands for the project itself: init, check, doctor."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from publisher import doctor as machine
from publisher.backends.embedded import examine_bucket
from publisher.cli.common import Session, command
from publisher.cli.places import server_of
from publisher.cvmfs.location import is_bucket
from publisher.errors import UsageError
from publisher.kernels.probe import ProbeOptions, ProbeResult, probe
from publisher.kernels.session import Depth
from publisher.kernels.targets import listed
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
    def doctor(
        session: Session,
        names: Annotated[list[str] | None, typer.Argument(metavar="[KERNEL]...", help="Only these kernels.")] = None,
        kernels: Annotated[
            bool, typer.Option("--kernels", help="Start and test every kernel that a Jupyter server here would list.")
        ] = False,
        jupyter_path: Annotated[
            list[Path] | None,
            typer.Option(help="Folder with a folder 'kernels', instead of JUPYTER_PATH and Jupyter's own; repeatable."),
        ] = None,
    ) -> None:
        """Is this machine able to build, publish and run kernels? Each finding with its mend."""
        if kernels:
            _examine_kernels(session, names or [], jupyter_path or [])
            return
        if names or jupyter_path:
            raise UsageError("names of kernels and --jupyter-path need --kernels", hint="afpub doctor --kernels ...")
        root = find_project(session.folder)
        settings = load_settings(root) if root else None
        report = machine.examine(settings.work if settings else session.folder)
        if settings is not None and settings.backend == SERVER:
            report += server_of(settings).examine()
        elif settings is not None and is_bucket(settings.repository):
            report += examine_bucket(f"{settings.repository}")
        session.screen.report(report)
        session.conclude(report, "this machine is not ready")
        session.screen.result(report.to_json())


def _examine_kernels(session: Session, names: list[str], jupyter_paths: list[Path]) -> None:
    """Starts the kernels that a server would list, and says what each did."""
    targets, report = listed(names, jupyter_paths=jupyter_paths)
    done = 0
    with session.screen.progress() as progress, tempfile.TemporaryDirectory(prefix="afpub-doctor-") as scratch:
        progress.step(f"starting {len(targets)} kernels")

        def tell(result: ProbeResult) -> None:
            nonlocal done
            done += 1
            progress.line(f"{result.kernel}: {_verdict(result)}")
            progress.advance(done, len(targets), "kernels")

        results = probe(targets, ProbeOptions(scratch=Path(scratch), depth=Depth.ALL), on_done=tell)
    for result in results:
        report += result.report
    session.screen.table("", ("kernel", "", *_SHOWN), [_row(result) for result in results])
    session.screen.report(report)
    session.conclude(report, "not every kernel works")
    session.screen.result(report.to_json() | {"kernels": [result.to_json() for result in results]})


_SHOWN = ("start", "completion", "interrupt", "restart", "shutdown")
"""The checks whose time is worth a column."""


def _row(result: ProbeResult) -> tuple[str, ...]:
    times = (f"{result.seconds[check]:.1f} s" if check in result.seconds else "-" for check in _SHOWN)
    return (result.kernel, _verdict(result), *times)


def _verdict(result: ProbeResult) -> str:
    return "works" if result.report.ok else "FAILS"
