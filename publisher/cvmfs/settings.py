"""How a repository is written; kept beside it so that every publish does it alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace

from publisher.cvmfs.chunker import ChunkRule
from publisher.cvmfs.compression import Compression, Compressor
from publisher.cvmfs.digest import Algorithm
from publisher.cvmfs.limits import Limits
from publisher.cvmfs.manifest import DEFAULT_TTL_S
from publisher.cvmfs.source import Source, read_file
from publisher.cvmfs.storage import SIDE_FOLDER
from publisher.errors import AfpubError, NotFoundError, RepositoryError, UsageError
from publisher.patterns import PathPattern, matcher

SETTINGS_NAME = f"{SIDE_FOLDER}/settings.json"
_USUAL = 5
_USUAL_ZLIB = 6
_MOST_JOBS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a repository is written."""

    algorithm: Algorithm = Algorithm.SHA1
    """What names objects; every client knows SHA-1."""
    compression: str = "zlib"
    """``zlib`` or ``none``."""
    uncompressed: tuple[str, ...] = ()
    """Patterns (:class:`publisher.patterns.PathPattern`) of files that are stored as they are, whatever
    ``compression`` says: those whose format is compressed already. Nothing, as the CVMFS tools have it."""
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
    one_publisher: bool = False
    """Only one machine ever publishes: for buckets on servers that cannot keep two publishers apart."""
    limit_root_entries: int = Limits().root_entries
    """Most entries of the root catalog; 0 switches it off, as for all limits."""
    limit_nested_entries: int = Limits().nested_entries
    limit_file_bytes: int = Limits().file_bytes
    enforce_limits: bool = Limits().enforce
    """Refuse what is above a limit that otherwise gives a warning only."""

    def __post_init__(self) -> None:
        if self.compression not in {"zlib", "none"}:
            raise RepositoryError(f"there is no compression {self.compression!r}", hint="use 'zlib' or 'none'")
        if self.ttl_s <= 0:
            raise RepositoryError(f"the time to live must be positive, not {self.ttl_s} s")
        if not 0 <= self.jobs <= _MOST_JOBS:
            raise RepositoryError(f"there can be 0 to {_MOST_JOBS} jobs, not {self.jobs}")
        _ = self.compressor, self.chunk_rule, self.is_plain, self.limits

    @property
    def compressor(self) -> Compressor:
        """How file contents are stored."""
        kind = Compression.ZLIB if self.compression == "zlib" else Compression.NONE
        level = self.compression_level or (_USUAL_ZLIB if self.reference_compressor else _USUAL)
        return Compressor(compression=kind, level=level, reference=self.reference_compressor)

    @property
    def is_plain(self) -> Callable[[str], bool]:
        """Says whether the contents of the file at a path of the repository are stored as they are."""
        return matcher([PathPattern(text) for text in self.uncompressed])

    @property
    def limits(self) -> Limits:
        """What may be published."""
        return Limits(
            root_entries=self.limit_root_entries,
            nested_entries=self.limit_nested_entries,
            file_bytes=self.limit_file_bytes,
            enforce=self.enforce_limits,
        )

    @property
    def chunk_rule(self) -> ChunkRule:
        """Where big files are cut."""
        return ChunkRule(
            least=self.chunk_least, average=self.chunk_average, most=self.chunk_most, fixed=self.chunk_fixed
        )


_FIXED = {
    "algorithm": "it names every object: create another repository",
    "garbage_collectable": "'afpub repo gc --enable' declares a repository garbage collectable",
}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def with_values(settings: Settings, assignments: Iterable[str], *, new: bool = False) -> Settings:
    """Settings with other values.

    Args:
        settings: those to begin with.
        assignments: ``name=value``; sizes may end in K, M or G, lists are separated by commas.
        new: the repository is being created, so that everything may be chosen.

    Raises:
        UsageError: a name is unknown, or a value is not of its kind.
        RepositoryError, NameInvalidError: the values cannot be used.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        kinds = {field.name: type(getattr(settings, field.name)) for field in fields(Settings)}
        if not equals or name not in kinds:
            raise UsageError(f"{assignment!r} sets nothing", hint=f"write NAME=VALUE; names: {', '.join(kinds)}")
        if name in _FIXED and not new:
            raise UsageError(f"{name!r} is chosen when a repository is created", hint=_FIXED[name])
        values[name] = _value(name, kinds[name], text)
    return replace(settings, **values)  # type: ignore[arg-type] # of the kinds of the fields


def _value(name: str, kind: type, text: str) -> object:
    if kind is bool:
        if text not in {"true", "false"}:
            raise UsageError(f"{name!r} is true or false, not {text!r}")
        return text == "true"
    if kind is int:
        number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
        if not (number.isascii() and number.isdigit()):
            raise UsageError(f"{name!r} is a whole number, not {text!r}", hint="sizes may end in K, M or G")
        return int(number) * unit
    if kind is tuple:
        return tuple(part for part in text.split(",") if part)
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{name!r} cannot be {text!r}") from None


def encode_settings(settings: Settings) -> bytes:
    """The bytes of the settings file."""
    return (json.dumps(asdict(settings), indent=2) + "\n").encode()


def read_settings(source: Source, *, algorithm: Algorithm) -> Settings:
    """A repository's settings; the defaults, with its own algorithm, where afpub did not create it.

    Raises:
        RepositoryError: the file is damaged.
    """
    path = f"{source.where}/{SETTINGS_NAME}"
    try:
        try:
            data = json.loads(read_file(source, SETTINGS_NAME))
        except NotFoundError:
            data = {}
        names = {field.name for field in fields(Settings)}
        unknown = sorted(set(data) - names)
        if unknown:
            raise RepositoryError(f"unknown setting {unknown[0]!r}")
        data["uncompressed"] = tuple(data.get("uncompressed", ()))
        return Settings(**{**data, "algorithm": Algorithm(data.get("algorithm", algorithm))})
    except AfpubError as exc:
        raise RepositoryError(f"{path}: {exc.message}", hint=exc.hint) from exc
    except (ValueError, TypeError) as exc:
        raise RepositoryError(f"{path} is damaged: {exc}", hint="remove the file to go on with the defaults") from exc
