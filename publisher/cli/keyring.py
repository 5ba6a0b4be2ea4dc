"""Commands for the keys of a repository: create, show, resign, rotate."""

from __future__ import annotations

import datetime as dt
import shlex
from pathlib import Path
from typing import Annotated

import typer

from publisher import tools
from publisher.cli.common import Session, command
from publisher.cli.options import Keys, MasterKey, Repo, SignCommand, Wait
from publisher.cli.places import find_place, now
from publisher.cvmfs.keys import KeyFiles, create_keys
from publisher.cvmfs.keystate import KeyState, inspect_keys
from publisher.cvmfs.rotation import finish_rotation, rotate_key
from publisher.cvmfs.signing import SignHash, master_signer, resign_whitelist
from publisher.errors import UsageError
from publisher.names import Fqrn

_SIGN_LIMIT_S = 600.0
"""Somebody may have to find a card and type its number."""


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for register_one in (_create, _show, _resign, _rotate):
        register_one(app)


def master_sign(files: KeyFiles, master_key: Path | None, sign_command: str) -> SignHash:
    """What signs the whitelist: a program, or a master key, whose password is asked for when it has one.

    Raises:
        UsageError: two ways are given, or the command cannot be split into words.
        TrustError: the master key cannot be read.
    """
    if master_key and sign_command:
        raise UsageError("two ways to sign are given", hint="give --master-key or --sign-command")
    if not sign_command:
        return master_signer(master_key or files.master_key, ask=_ask)
    try:
        words = shlex.split(sign_command)
    except ValueError as exc:
        raise UsageError(f"the command {sign_command!r} cannot be split into words: {exc}") from None
    if not words:
        raise UsageError("the command that signs is empty")
    return lambda text: tools.filtered(words, text.encode(), timeout_s=_SIGN_LIMIT_S)


def _ask(path: Path) -> str:
    return _prompt(f"password of {path}", confirm=False)


def _prompt(text: str, *, confirm: bool) -> str:
    try:
        answer: str = typer.prompt(text, hide_input=True, err=True, confirmation_prompt=confirm)
    except typer.Abort:
        raise UsageError(f"nobody gave the {text}", hint="run it in a terminal, or use --sign-command") from None
    return answer


def _create(app: typer.Typer) -> None:
    @command(app)
    def create(
        session: Session,
        fqrn: Annotated[str, typer.Argument(help="Name of the repository, such as kernels.example.org.")],
        keys: Annotated[Path, typer.Option("--keys", help="Folder that gets the keys.")] = Path("keys"),
        master_key: Annotated[
            Path | None, typer.Option("--master-key", help="File that gets the master key; default: in the folder.")
        ] = None,
        password: Annotated[
            bool, typer.Option("--password", help="Encrypt the master key; asks for the password.")
        ] = False,
    ) -> None:
        """Make the keys of a repository that is created later, perhaps on another machine."""
        secret = _prompt("password of the master key", confirm=True) if password else ""
        files = create_keys(Fqrn(fqrn), keys, now=now(), master_key=master_key, master_password=secret)
        master = master_key or files.master_key
        session.screen.result(
            {
                "fqrn": files.fqrn,
                "master_key": f"{master}",
                "public_key": f"{files.public_key}",
                "repository_key": f"{files.repository_key}",
                "certificate": f"{files.certificate}",
            },
            lines=(
                f"The keys of {files.fqrn}:",
                f"  {files.public_key}  give it to every client",
                f"  {files.repository_key}  signs what is published: keep it on the publishing machine",
                f"  {files.certificate}  its certificate",
                f"  {master}  signs the whitelist every 30 days: keep it apart, and a copy",
            ),
        )


def _show(app: typer.Typer) -> None:
    @command(app)
    def show(session: Session, repo: Repo = "", keys: Keys = None) -> None:
        """Show fingerprints, permissions, and how long clients go on trusting the repository."""
        place = find_place(session, repo, keys=keys)
        state = inspect_keys(KeyFiles(folder=place.key_folder(), fqrn=place.fqrn()), place.storage(), now=now())
        session.screen.report(state.report)
        session.screen.table(
            "",
            ("key", "mode", "file", "fingerprint"),
            [
                (row.role, "not here" if row.mode is None else f"{row.mode:04o}", f"{row.path}", row.fingerprint)
                for row in state.files
            ],
        )
        lines = [f"the newest revision is signed by {state.signed_by}"] if state.signed_by else []
        session.conclude(state.report, "the keys are not in order")
        if state.whitelist is not None and state.left is not None:
            until = f"{state.whitelist.expires:%Y-%m-%d %H:%M UTC}"
            lines.append(f"the whitelist is valid until {until}: {_days(state.left)} left")
            lines += [f"  allowed: {mark}" for mark in state.whitelist.fingerprints]
        session.screen.result(_state_json(state), lines=lines)


def _days(left: dt.timedelta) -> str:
    return "1 day" if left.days == 1 else f"{left.days} days"


def _state_json(state: KeyState) -> dict[str, object]:
    return {
        "files": [
            {
                "role": row.role,
                "path": f"{row.path}",
                "mode": None if row.mode is None else f"{row.mode:04o}",
                "fingerprint": row.fingerprint,
            }
            for row in state.files
        ],
        "signed_by": state.signed_by,
        "expires": state.whitelist.expires.isoformat() if state.whitelist else None,
        "days_left": state.left.days if state.left is not None else None,
        "allowed": list(state.whitelist.fingerprints) if state.whitelist else [],
        **state.report.to_json(),
    }


def _resign(app: typer.Typer) -> None:
    @command(app)
    def resign(
        session: Session,
        repo: Repo = "",
        keys: Keys = None,
        days: Annotated[int, typer.Option(min=1, help="How long the whitelist is to be valid.")] = 30,
        master_key: MasterKey = None,
        sign_command: SignCommand = "",
    ) -> None:
        """Sign the whitelist again with the master key, so that clients go on trusting the repository."""
        place = find_place(session, repo, keys=keys)
        whitelist = resign_whitelist(
            place.storage(),
            keys_folder=place.key_folder(),
            now=now(),
            validity=dt.timedelta(days=days),
            sign=master_sign(KeyFiles(folder=place.key_folder(), fqrn=place.fqrn()), master_key, sign_command),
        )
        session.screen.result(
            {"expires": whitelist.expires.isoformat()},
            lines=(f"the whitelist is valid until {whitelist.expires:%Y-%m-%d %H:%M UTC}",),
        )


def _rotate(app: typer.Typer) -> None:
    @command(app)
    def rotate(
        session: Session,
        repo: Repo = "",
        keys: Keys = None,
        master_key: MasterKey = None,
        sign_command: SignCommand = "",
        finish: Annotated[
            bool, typer.Option("--finish", help="Take the old certificate off the whitelist; remove the old key.")
        ] = False,
        wait: Wait = 0.0,
    ) -> None:
        """Sign with a new repository key from now on; clients accept the old and the new one until --finish."""
        place = find_place(session, repo, keys=keys)
        sign = master_sign(KeyFiles(folder=place.key_folder(), fqrn=place.fqrn()), master_key, sign_command)
        if finish:
            whitelist = finish_rotation(
                place.storage(), keys_folder=place.key_folder(), now=now(), sign=sign, wait_s=wait
            )
            lines = ["the old certificate is not allowed any more, and its key is removed"]
            document: dict[str, object] = {}
        else:
            done = rotate_key(place.storage(), keys_folder=place.key_folder(), now=now(), sign=sign, wait_s=wait)
            whitelist = done.whitelist
            document = {"old": done.old, "new": done.new, "old_key": f"{done.old_key}"}
            lines = [
                f"the newest revision is signed by the new key {done.new}",
                f"the old one {done.old} is still allowed;",
                "when all servers and caches have the new manifest: afpub keys rotate --finish",
            ]
        session.screen.result(
            document | {"allowed": list(whitelist.fingerprints), "expires": whitelist.expires.isoformat()}, lines=lines
        )
