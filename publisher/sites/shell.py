"""What a site adds so that terminals and batch jobs run in the environment of a kernel, or in an image."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from publisher.names import ChannelName, Fqrn, RepoPath

LAB_FILE = "jupyter/afpub-terminal.py"
"""Below ``/etc``; to be included by ``jupyter_server_config.py``, since drop-in folders hold extensions only."""
PROFILE_FILE = "profile.d/afpub.sh"
"""Below ``/etc``."""
_TERMINAL = """\
if [ -x {program} ]; then {program} {name}; code=$?; \
case $code in 6[4-9]|7[0-6]|255) ;; *) exit $code ;; esac; \
else echo {missing} >&2; fi; \
echo 'This is a shell of the machine itself.' >&2; exec "${{SHELL:-/bin/sh}}"\
"""
"""When the image cannot be entered the user still gets a terminal; the codes are those of the launcher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShellSite:
    """The files for one channel."""

    program: str
    """``afpub-run`` of the channel."""
    name: str
    """The kernel or image that JupyterLab's terminal starts in."""
    lab: str
    """Text of :data:`LAB_FILE`."""
    profile: str
    """Text of :data:`PROFILE_FILE`."""

    def to_json(self) -> dict[str, object]:
        """The files as JSON values."""
        return {"afpub_run": self.program, "files": dict(self.files())}

    def files(self) -> tuple[tuple[str, str], ...]:
        """Paths and texts."""
        return ((LAB_FILE, self.lab), (PROFILE_FILE, self.profile))

    def lines(self) -> tuple[str, ...]:
        """Both files, and where they go, as a text to be read."""
        return (
            f"# /etc/{LAB_FILE}",
            *self.lab.splitlines(),
            "",
            f"# /etc/{PROFILE_FILE}",
            *self.profile.splitlines(),
        )


def shell_site(fqrn: Fqrn, prefix: RepoPath, channel: ChannelName, *, name: str, mount: str = "/cvmfs") -> ShellSite:
    """What a site adds for one channel.

    Args:
        fqrn: the repository.
        prefix: folder of the repository below which everything is published.
        channel: the channel that the site follows.
        name: a kernel or an image of the channel's releases.
        mount: where the site mounts CVMFS repositories.
    """
    folder = f"{mount}/{fqrn}{prefix}/channels/{channel}/bin"
    program = shlex.quote(f"{folder}/afpub-run")
    missing = shlex.quote(f"afpub: {folder} is not on this machine.")
    script = _TERMINAL.format(program=program, name=shlex.quote(name), missing=missing)
    return ShellSite(
        program=f"{folder}/afpub-run",
        name=name,
        lab=(
            f"# Terminals of JupyterLab start in {name}. In jupyter_server_config.py:\n"
            f'#     load_subconfig("/etc/{LAB_FILE}")\n'
            "c = get_config()  # noqa\n"
            f"c.ServerApp.terminado_settings = {json.dumps({'shell_command': ['/bin/sh', '-c', script]})}\n"
        ),
        profile=(
            f"# afpub-run: any command in the environment of a kernel of the channel {channel}.\n"
            "# At the end of PATH, and not looked at: a repository that is not mounted must not delay a login.\n"
            f"PATH=$PATH:{shlex.quote(folder)}\n"
        ),
    )
