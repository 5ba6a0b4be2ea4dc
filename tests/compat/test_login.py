"""The image for terminals and batch jobs.

Building it takes two minutes that not every run has: it is tested where AFPUB_TEST_LOGIN is set (``make test`` with it
once before a release of the image), or where the image has been built already. Its own tests, those of image.toml, are
run by every build.
"""

from __future__ import annotations

import os

import pytest
from compat.real_images import open_facility
from wanted import wanted

pytestmark = pytest.mark.images


@pytest.fixture(scope="module")
def facility(tmp_path_factory, pytestconfig):
    wanted("apptainer")
    if not (os.environ.get("AFPUB_TEST_LOGIN") or any(pytestconfig.rootpath.glob("build/afpub/images/login/*/rootfs"))):
        pytest.skip("building the image login takes two minutes: set AFPUB_TEST_LOGIN to have it")
    return open_facility(pytestconfig.rootpath, tmp_path_factory.mktemp("login"), images=("login",))


def test_a_program_is_written_built_and_debugged(facility):
    source = "int twice(int n) { return 2 * n; } int main() { return twice(21); }"
    line = f"""echo '{source}' >a.cxx && g++ -g -o a a.cxx && gdb -batch -ex 'break twice' -ex run -ex 'print n' ./a"""
    assert "$1 = 21" in facility.out("login", "--", "sh", "-c", line)


@pytest.mark.parametrize(
    "program", ["vi", "nano", "cmake", "git", "ssh", "kinit", "xrdcp", "gfal-copy", "voms-proxy-init"]
)
def test_what_a_terminal_wants_is_there(facility, program):
    assert facility.out("login", "--", "sh", "-c", f"command -v {program}") == f"/usr/bin/{program}"


def test_a_file_is_copied_by_the_grid_tools(facility):
    (facility.home / "data").write_text("17")
    facility.out(
        "login", "--", "sh", "-c", 'gfal-copy "file://$PWD/data" "file://$PWD/copied" && xrdcp -s copied again'
    )
    assert (facility.home / "again").read_text() == "17"


def test_certificates_are_looked_for_on_cvmfs_unless_the_user_says_where(facility):
    line = 'echo "$X509_CERT_DIR"'
    assert facility.out("login", "--", "sh", "-c", line) == "/cvmfs/grid.cern.ch/etc/grid-security/certificates"
    assert facility.out("login", "--", "sh", "-c", line, X509_CERT_DIR="/mine") == "/mine"
