"""How a repository is written; kept beside it so that every publish does it alike."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from publisher.cvmfs.chunker import ChunkRule
from publisher.cvmfs.compression import Compression, Compressor
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.disk import failing_as
from publisher.cvmfs.manifest import DEFAULT_TTL_S
from publisher.errors import AfpubError, RepositoryError

SIDE_FOLDER = ".afpub"
"""What afpub keeps beside a repository; no reader needs it, and no web server should show it (mode 0700)."""
_FILE = "settings.json"
_USUAL = 5
_USUAL_ZLIB = 6
_USUAL_JOBS = 8
_MOST_JOBS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a repository is written."""

    algorithm: Algorithm = Algorithm.SHA1
    """What names objects; every client knows SHA-1."""
    compression: str = "zlib"
    """``zlib`` or ``none``."""
    compression_level: int = 0
    """1 (fast) to 12 (small); 0 is the usual one: 6 of zlib, and 5 of libdeflate, which stores as many bytes."""
    reference_compressor: bool = False
    """Compress with zlib, as the CVMFS tools do, so that objects get the same names as theirs; slower."""
    chunk_least: int = 4 << 20
    """Bytes; files of at most this size are never cut."""
    chunk_average: int = 8 << 20
    chunk_most: int = 16 << 20
    chunk_fixed: bool = False
    """Cut every ``chunk_average`` bytes instead of where the content says."""
    ttl_s: int = DEFAULT_TTL_S
    """How often clients look for a new revision."""
    garbage_collectable: bool = True
    nanoseconds: bool = False
    """Store the nanoseconds of modification times."""
    jobs: int = 0
    """Processes that read and compress; 0 for one for each processor, at most 8."""

    def __post_init__(self) -> None:
        if self.compression not in {"zlib", "none"}:
            raise RepositoryError(f"there is no compression {self.compression!r}", hint="use 'zlib' or 'none'")
        if self.ttl_s <= 0:
            raise RepositoryError(f"the time to live must be positive, not {self.ttl_s} s")
        if not 0 <= self.jobs <= _MOST_JOBS:
            raise RepositoryError(f"there can be 0 to {_MOST_JOBS} jobs, not {self.jobs}")
        _ = self.compressor, self.chunk_rule

    @property
    def workers(self) -> int:
        """How many processes read and compress on this machine."""
        return self.jobs or min(_USUAL_JOBS, len(os.sched_getaffinity(0)))

    @property
    def compressor(self) -> Compressor:
        """How file contents are stored."""
        kind = Compression.ZLIB if self.compression == "zlib" else Compression.NONE
        level = self.compression_level or (_USUAL_ZLIB if self.reference_compressor else _USUAL)
        return Compressor(compression=kind, level=level, reference=self.reference_compressor)

    @property
    def chunk_rule(self) -> ChunkRule:
        """Where big files are cut."""
        return ChunkRule(
            least=self.chunk_least, average=self.chunk_average, most=self.chunk_most, fixed=self.chunk_fixed
        )


def encode_settings(settings: Settings) -> bytes:
    """The bytes of the settings file."""
    return (json.dumps(asdict(settings), indent=2) + "\n").encode()


def settings_path(folder: Path) -> Path:
    """Where a repository's settings are."""
    return folder / SIDE_FOLDER / _FILE


def read_settings(folder: Path, *, algorithm: Algorithm) -> Settings:
    """A repository's settings; the defaults, with its own algorithm, where afpub did not create it.

    Raises:
        RepositoryError: the file is damaged.
    """
    path = settings_path(folder)
    try:
        with failing_as("read", path):
            data = json.loads(path.read_bytes()) if path.exists() else {"algorithm": algorithm}
        names = {field.name for field in fields(Settings)}
        unknown = sorted(set(data) - names)
        if unknown:
            raise RepositoryError(f"unknown setting {unknown[0]!r}")
        return Settings(**{**data, "algorithm": Algorithm(data.get("algorithm", algorithm))})
    except AfpubError as exc:
        raise RepositoryError(f"{path}: {exc.message}", hint=exc.hint) from exc
    except (ValueError, TypeError) as exc:
        raise RepositoryError(f"{path} is damaged: {exc}", hint="remove the file to go on with the defaults") from exc
