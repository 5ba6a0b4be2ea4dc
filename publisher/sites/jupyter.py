"""What a site adds so that the kernels of a channel show in its launcher."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.names import ChannelName, Fqrn, RepoPath


@dataclass(frozen=True, kw_only=True, slots=True)
class JupyterSite:
    """The lines for one channel."""

    folder: str
    """The folder that goes into JUPYTER_PATH."""
    script: str
    """A line for the shell, or the job script, that starts the Jupyter server."""
    hub: str
    """A line for ``jupyterhub_config.py``."""
    check: str
    """A command that lists the kernels as the server will see them."""

    def to_json(self) -> dict[str, object]:
        """The lines as JSON values."""
        return {
            "jupyter_path": self.folder,
            "script": self.script,
            "jupyterhub": self.hub,
            "check": self.check,
        }

    def lines(self) -> tuple[str, ...]:
        """The lines as a commented text that can be read and pasted."""
        return (
            "# Before the Jupyter server starts (profile script, job script, before.sh of Open OnDemand):",
            self.script,
            "",
            "# Or, with JupyterHub, in jupyterhub_config.py:",
            self.hub,
            "",
            "# New releases of the channel then show by themselves. To see what the server sees:",
            self.check,
        )


def jupyter_site(fqrn: Fqrn, prefix: RepoPath, channel: ChannelName, *, mount: str = "/cvmfs") -> JupyterSite:
    """What a site adds for one channel.

    Args:
        fqrn: the repository.
        prefix: folder of the repository below which everything is published.
        channel: the channel that the site follows.
        mount: where the site mounts CVMFS repositories.
    """
    folder = f"{mount}/{fqrn}{prefix}/channels/{channel}/share/jupyter"
    return JupyterSite(
        folder=folder,
        script=f'export JUPYTER_PATH="{folder}${{JUPYTER_PATH:+:$JUPYTER_PATH}}"',
        hub=f'c.Spawner.environment["JUPYTER_PATH"] = "{folder}"',
        check=f"JUPYTER_PATH={folder} jupyter kernelspec list",
    )
