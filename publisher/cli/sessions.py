"""Commands about sessions in the published environments: shell, and what a site includes for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher import tools
from publisher.cli.common import Session, command
from publisher.errors import NotFoundError, UsageError
from publisher.names import ChannelName
from publisher.project.settings import Settings
from publisher.sites.shell import shell_site


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _shell(app)


def register_site(site: typer.Typer) -> None:
    """Adds what belongs to ``afpub site``."""

    @command(site)
    def shell(
        session: Session,
        name: Annotated[str, typer.Argument(help="A kernel, or an image: where terminals start.")],
        channel: Annotated[str, typer.Option(help="The channel that the site follows.")] = "stable",
        mount: Annotated[str, typer.Option(help="Where the site mounts CVMFS.")] = "/cvmfs",
        write: Annotated[Path | None, typer.Option(help="Write the files below this folder, such as /etc.")] = None,
    ) -> None:
        """Print, or write, the files that make JupyterLab's terminals start in the environment of a kernel."""
        settings = session.project().settings
        made = shell_site(settings.fqrn, settings.prefix, ChannelName(channel), name=name, mount=mount)
        if write is None:
            session.screen.result(made.to_json(), lines=made.lines())
            return
        for path, text in made.files():
            file = write / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        session.screen.result(
            made.to_json() | {"folder": f"{write}"}, lines=[f"{write / path} is written" for path, _ in made.files()]
        )


def _shell(app: typer.Typer) -> None:
    @command(app)
    def shell(
        session: Session,
        words: Annotated[list[str] | None, typer.Argument(help="A command, after --, instead of a shell.")] = None,
        kernel: Annotated[str, typer.Option(help="A kernel.")] = "",
        image: Annotated[str, typer.Option(help="An image.")] = "",
        release: Annotated[str, typer.Option(help="A release, or a channel.")] = "stable",
        at: Annotated[Path | None, typer.Option(help="Folder that holds channels/ and releases/.")] = None,
    ) -> None:
        """Open a shell in the environment of a published kernel, or in an image; with --json, print its command."""
        tree = _tree(session.project().settings, at)
        folder = _release(tree, release)
        if bool(kernel) == bool(image):
            raise UsageError("which kernel, or which image?", hint=f"--kernel {_names(folder, 'jupyter/kernels')}")
        chosen = ["--image", image] if image else [kernel]
        argv = [f"{folder / 'bin/afpub-run'}", *chosen, *(["--", *words] if words else [])]
        if session.screen.as_json:
            session.screen.result({"command": argv})
            return
        tools.become(argv)


def _tree(settings: Settings, at: Path | None) -> Path:
    """The published tree as this machine sees it: mounted, or as the copy that the last release made."""
    places = [at] if at else [Path(f"/cvmfs/{settings.fqrn}{settings.prefix}"), settings.work / "published"]
    for place in places:
        if (place / "releases").is_dir():
            return place.resolve()
    raise NotFoundError(
        f"nothing that is published is in {' or '.join(map(str, places))}",
        hint="mount the repository, or make a copy with 'afpub export CHANNEL DIR' and name it with --at DIR",
    )


def _release(tree: Path, name: str) -> Path:
    for folder in (tree / "releases" / name, tree / "channels" / name):
        if (folder / "bin/afpub-run").is_file():
            return folder
        if folder.is_dir():
            raise NotFoundError(f"{folder} has no bin/afpub-run: it was made by an afpub that had none")
    there = [item.name for kind in ("channels", "releases") for item in sorted((tree / kind).glob("*"))]
    raise NotFoundError(f"there is no release or channel {name!r} in {tree}", hint=f"there are: {', '.join(there)}")


def _names(release: Path, below: str) -> str:
    return " | ".join(item.name for item in sorted((release / "share" / below).glob("*")))
