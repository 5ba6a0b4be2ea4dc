import os
import platform
import pwd
import sys

import pytest

from publisher.doctor import examine
from publisher.machine import look
from publisher.report import Severity


def test_this_machine_is_looked_at_as_it_is(tmp_path):
    machine = look((tmp_path,), environment={})
    assert (machine.user, machine.uid) == (pwd.getpwuid(os.geteuid()).pw_name, os.geteuid())
    assert machine.python == sys.version_info[:3]
    assert machine.umask == 0o022
    assert machine.spaces[0].folder == str(tmp_path)
    assert machine.now_s + 60 > machine.newest_file_s
    assert machine.system == platform.freedesktop_os_release()["ID"]


def test_the_runtime_really_starts_a_program(tmp_path, require_tool):
    require_tool("apptainer")
    runtime = look((tmp_path,), environment={}).runtime
    assert runtime.name == "apptainer"
    assert runtime.version >= (1, 0)
    if look((tmp_path,), environment={}).namespaces:
        pytest.skip("no user namespaces here: no runtime can start a program")
    assert runtime.trouble == ""


def test_certificate_settings_are_found(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("", encoding="utf-8")
    machine = look((tmp_path,), environment={"PIP_CERT": str(bundle), "SSL_CERT_FILE": "/nowhere.pem"})
    found = {entry.setting: entry.readable for entry in machine.ca_bundles}
    assert found["PIP_CERT"]
    assert not found["SSL_CERT_FILE"]


def test_the_report_can_be_read_by_machines(tmp_path):
    report = examine(tmp_path)
    rows = report.to_json()["findings"]
    assert {row["severity"] for row in rows} <= {severity.value for severity in Severity}
    assert {"Python", "NVIDIA GPU"} <= {row["where"] for row in rows}
    assert all(row["hint"] for row in rows if row["severity"] != "note")
