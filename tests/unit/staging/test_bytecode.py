import struct

import pytest

from publisher.staging.bytecode import check_bytecode
from publisher.tree import Entry, Kind

SOURCE = Entry(path="m.py", kind=Kind.FILE, mode=0o644, content=b"x=1\n", size_bytes=4, mtime_s=1000)


def check(path, data, source=SOURCE):
    compiled = Entry(path=path, kind=Kind.FILE, mode=0o644, content=data, size_bytes=len(data))
    return check_bytecode([source, compiled], where="images/x").findings


CACHED = "__pycache__/m.cpython-311.pyc"


@pytest.mark.parametrize(
    ("path", "header"),
    [
        (CACHED, struct.pack("<IIII", 1, 0, 1000, 4)),
        (CACHED, struct.pack("<IIQ", 1, 1, 99)),
        (CACHED, struct.pack("<IIQ", 1, 3, 99)),
        ("m.pyc", struct.pack("<IIQ", 1, 1000, 0)),
        ("__pycache__/other.cpython-311.pyc", struct.pack("<IIII", 1, 0, 7, 7)),
    ],
)
def test_right_bytecode(path, header):
    assert check(path, header) == ()


@pytest.mark.parametrize(
    ("path", "header"),
    [
        (CACHED, struct.pack("<IIII", 1, 0, 1001, 4)),
        (CACHED, struct.pack("<IIII", 1, 0, 1000, 5)),
        (CACHED, b"cut"),
        ("m.pyc", struct.pack("<IIQ", 1, 999, 0)),
    ],
)
def test_stale_bytecode(path, header):
    (finding,) = check(path, header)
    assert finding.message == f"1 .pyc files do not belong to the source beside them: /{path}"
