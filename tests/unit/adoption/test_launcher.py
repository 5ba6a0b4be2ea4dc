from pathlib import Path

import pytest

from publisher.adoption.launcher import Command, Launched, read_command

FILE = "{connection_file}"


def read(tmp_path, *argv):
    return read_command(Command(argv=argv, resource_dir=tmp_path))


def script(tmp_path, text, name="launch.sh"):
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    return f"{path}"


def test_a_plain_interpreter(tmp_path):
    argv = ("/opt/conda/bin/python", "-m", "ipykernel_launcher", "-f", FILE)
    assert read(tmp_path, *argv) == Launched(program=argv)


@pytest.mark.parametrize("runtime", ["singularity", "apptainer", "/usr/local/bin/singularity"])
def test_a_container_in_argv(tmp_path, runtime):
    found = read(
        tmp_path, runtime, "exec", "--nv", "-B", "/cvmfs,/sdf:/sdf", "--pwd", "/tmp", "/i/x.sif", "python3", "-f", FILE
    )
    assert found == Launched(program=("python3", "-f", FILE), image="/i/x.sif", gpu=True, binds=("/cvmfs", "/sdf:/sdf"))


def test_a_script_with_the_set_up_file_of_users(tmp_path):
    path = script(
        tmp_path,
        "#!/bin/bash\nexport PYTHON_VER=$1\n[ -f ~/notebooks/.user_setups ] && . ~/notebooks/.user_setups\n"
        'asetup AnalysisBase,21.2.111  # the release\nexec python$1 -m ipykernel -f "$2"\n',
    )
    assert read(tmp_path, path, "3", FILE) == Launched(
        program=("python3", "-m", "ipykernel", "-f", FILE),
        script=path,
        user_setup="~/notebooks/.user_setups",
        python_ver="3",
        analysisbase="AnalysisBase,21.2.111",
    )


def test_a_script_that_starts_a_container(tmp_path):
    path = script(
        tmp_path,
        '#!/usr/bin/env bash\nIMAGE="/cvmfs/x/atlas.sif"\nOPTIONS=`cat /etc/options`\n'
        'exec singularity exec \\\n    --nv --bind=/cvmfs \\\n    ${IMAGE} "$@"\n',
    )
    found = read(tmp_path, path, "python3", "-m", "ipykernel_launcher", "-f", FILE)
    assert found.program == ("python3", "-m", "ipykernel_launcher", "-f", FILE)
    assert (found.image, found.gpu, found.binds, found.script) == ("/cvmfs/x/atlas.sif", True, ("/cvmfs",), path)


def test_resource_dir(tmp_path):
    script(tmp_path, "#!/bin/sh\nexec root --notebook $1\n", "launch")
    assert read(tmp_path, "{resource_dir}/launch", FILE).program == ("root", "--notebook", FILE)


@pytest.mark.parametrize(
    "text",
    ["#!/bin/sh\n", "#!/bin/sh\neval $(make-command)\n", '#!/bin/sh\necho "unbalanced\n', "#!/bin/sh\n$@ &\n$2\n"],
)
def test_what_cannot_be_told(tmp_path, text):
    assert read(tmp_path, script(tmp_path, text), "x", "y") is None


def test_no_shell_script(tmp_path):
    path = Path(script(tmp_path, "\x7fELF", "program"))
    assert read(tmp_path, f"{path}", FILE) == Launched(program=(f"{path}", FILE))
    assert read(tmp_path, "\0", FILE) == Launched(program=("\0", FILE))
