"""Work on files whose owners exist only inside a user namespace.

An ordinary user's build leaves files that belong to the user's subordinate ids. Only root of a user namespace
that maps those ids can read, open or remove all of them; `unshare` makes one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from publisher import tools
from publisher.errors import BuildError, DiskError, ToolError

_ENTER: Final = ("unshare", "--user", "--map-auto", "--map-root-user")
_HINT: Final = "give the user subordinate ids in /etc/subuid and /etc/subgid; 'afpub doctor' says how"


def inside(argv: tuple[str | Path, ...], *, cwd: Path | None = None) -> tools.Completed:
    """What a program did as root over everything that the current user may own.

    Root runs it as it is.

    Raises:
        BuildError: there is no such namespace on this machine.
        ToolError: the program failed.
    """
    if os.geteuid() == 0:
        return tools.run(argv, cwd=cwd)
    tools.require("unshare", hint="install util-linux 2.38 or newer")
    trial = tools.run((*_ENTER, "true"), check=False)
    if not trial.ok:
        raise BuildError("this user cannot make a user namespace with subordinate ids", hint=_HINT, detail=trial.tail)
    return tools.run((*_ENTER, *argv), cwd=cwd)


def remove_rootfs(path: Path) -> None:
    """Removes a folder that a build left, whoever owns what is in it.

    Raises:
        DiskError: something of it cannot be removed.
    """
    if not path.exists() and not path.is_symlink():
        return
    with contextlib.suppress(OSError):
        shutil.rmtree(path)
        return
    try:
        inside(("rm", "-rf", "--one-file-system", "--", path))
    except (BuildError, ToolError) as exc:
        raise DiskError(f"{path} cannot be removed: {exc.message}", hint=exc.hint, detail=exc.detail) from exc
