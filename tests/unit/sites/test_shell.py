from __future__ import annotations

import json

from publisher.names import ChannelName, Fqrn, RepoPath
from publisher.sites.shell import shell_site

SITE = shell_site(Fqrn("af.example.org"), RepoPath("/jupyter"), ChannelName("stable"), name="pyroot3")
BIN = "/cvmfs/af.example.org/jupyter/channels/stable/bin"


def test_the_terminal_starts_in_the_environment_of_the_kernel():
    assert SITE.lab.splitlines()[:3] == [
        "# Terminals of JupyterLab start in pyroot3. In jupyter_server_config.py:",
        '#     load_subconfig("/etc/jupyter/afpub-terminal.py")',
        "c = get_config()  # noqa",
    ]
    settings = SITE.lab.splitlines()[3].removeprefix("c.ServerApp.terminado_settings = ")
    shell, option, script = json.loads(settings)["shell_command"]
    assert (shell, option) == ("/bin/sh", "-c")
    assert script.startswith(f"if [ -x {BIN}/afpub-run ]; then {BIN}/afpub-run pyroot3; code=$?;")


def test_login_shells_find_the_programs_without_touching_the_repository():
    assert SITE.profile.splitlines()[-1] == f"PATH=$PATH:{BIN}"
    assert BIN not in SITE.profile.replace(f"PATH=$PATH:{BIN}", "")


def test_files_and_where_they_go():
    assert SITE.lines()[0] == "# /etc/jupyter/afpub-terminal.py"
    assert SITE.to_json()["afpub_run"] == f"{BIN}/afpub-run"
    assert [path for path, _ in SITE.files()] == ["jupyter/afpub-terminal.py", "profile.d/afpub.sh"]
