"""Tiny images made of one static program, as archives that Apptainer reads."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

COMMANDS = (
    *(
        "sh",
        "cat",
        "chmod",
        "chown",
        "cp",
        "echo",
        "env",
        "false",
        "find",
        "grep",
        "id",
        "ls",
        "mkdir",
        "mv",
        "printf",
    ),
    *("rm", "sleep", "stat", "test", "touch", "true", "wc"),
)
FOLDERS = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "usr/local", "var", "var/tmp")


def is_static(program: Path) -> bool:
    """Whether an ELF program needs no loader (it has no PT_INTERP header)."""
    data = program.read_bytes()
    offset = int.from_bytes(data[32:40], "little")
    size, count = int.from_bytes(data[54:56], "little"), int.from_bytes(data[56:58], "little")
    kinds = {int.from_bytes(data[offset + i * size :][:4], "little") for i in range(count)}
    return data[:4] == b"\x7fELF" and 3 not in kinds


def _layer(busybox: Path) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder.endswith("tmp") else 0o755
            tar.addfile(entry)
        program = tarfile.TarInfo("bin/busybox")
        program.mode, program.size = 0o755, busybox.stat().st_size
        with busybox.open("rb") as file:
            tar.addfile(program, file)
        for command in COMMANDS:
            link = tarfile.TarInfo(f"bin/{command}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _config(layer: bytes) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]}
    run = {"Env": ["PATH=/bin"]}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": run, "rootfs": rootfs}).encode()


def docker_archive(busybox: Path, target: Path) -> None:
    """What ``docker save`` writes."""
    layer = _layer(busybox)
    config = _config(layer)
    name = f"{_sha256(config)}.json"
    manifest = [{"Config": name, "RepoTags": ["tiny:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        _add(tar, name, config)
        _add(tar, "layer.tar", layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def oci_archive(busybox: Path, target: Path) -> None:
    """The OCI image layout in a tar file."""
    layer = _layer(busybox)
    config = _config(layer)

    def descriptor(kind: str, data: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": f"sha256:{_sha256(data)}", "size": len(data)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    ).encode()
    index = {
        "schemaVersion": 2,
        "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", manifest)],
    }
    with tarfile.open(target, "w") as tar:
        for folder in ("blobs", "blobs/sha256"):
            # Apptainer makes no folder that is not in the archive
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for data in (layer, config, manifest):
            _add(tar, f"blobs/sha256/{_sha256(data)}", data)
        _add(tar, "index.json", json.dumps(index).encode())
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
