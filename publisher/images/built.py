"""The record of a built image: ``build.json`` beside its root file system."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from publisher.errors import BuildError, ProjectError
from publisher.images.inventory import Inventory
from publisher.images.permissions import Repair
from publisher.names import ImageName
from publisher.project.toml import Table
from publisher.tree import FolderTree

RECORD: Final = "build.json"
ROOTFS: Final = "rootfs"
_SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseImage:
    """The image that another one was built on."""

    name: ImageName
    inputs_digest: str
    tree_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltImage:
    """An image that was built and is ready to be staged."""

    image: ImageName
    variant: str
    """``""`` for a recipe without variants."""
    folder: Path
    """The folder of this build: the root file system, the log, the record."""
    inputs_digest: str
    tree_digest: str
    """Over names, kinds, modes, sizes, targets and contents of the root file system."""
    base: BaseImage | None
    recipe: str = field(repr=False)
    """Text of the definition file, its arguments not filled in."""
    build_args: tuple[tuple[str, str], ...]
    tools: tuple[tuple[str, str], ...]
    """Names and versions of the programs that built it."""
    inventory: Inventory = field(repr=False)
    repaired: tuple[Repair, ...]
    """What others could not read before it was opened."""
    seconds: float
    """How long the build took."""
    size_bytes: int
    """Sum of the sizes of all files."""
    files: int
    """Number of entries of the tree."""
    sif: str = ""
    """Name of the SIF file in the folder; empty when none was made."""
    reused: bool = False
    """True when it was found built; not part of the record."""

    @property
    def rootfs(self) -> Path:
        """The root file system."""
        return self.folder / ROOTFS

    @property
    def tree(self) -> FolderTree:
        """The root file system as a tree."""
        return FolderTree(folder=self.rootfs)

    def to_json(self) -> dict[str, object]:
        """The record as plain JSON values; says nothing of this machine."""
        base = self.base
        return {
            "schema": _SCHEMA,
            "image": self.image,
            "variant": self.variant,
            "inputs_digest": self.inputs_digest,
            "tree_digest": self.tree_digest,
            "base": None
            if base is None
            else {
                "name": base.name,
                "inputs_digest": base.inputs_digest,
                "tree_digest": base.tree_digest,
            },
            "recipe": self.recipe,
            "build_args": dict(self.build_args),
            "tools": dict(self.tools),
            "inventory": self.inventory.to_json(),
            "repaired": [{"path": os.fsencode(r.path).hex(), "mode": r.mode} for r in self.repaired],
            "milliseconds": round(self.seconds * 1000),
            "size_bytes": self.size_bytes,
            "files": self.files,
            "sif": self.sif,
        }

    @classmethod
    def from_json(cls, document: dict[str, object], *, folder: Path) -> Self:
        """The record that :meth:`to_json` made.

        Raises:
            ProjectError: it is something else.
        """
        table = Table(document, file=folder / RECORD)
        if table.integer("schema") != _SCHEMA:
            raise table.problem("another version of afpub wrote it")
        base = table.table("base") if document.get("base") else None
        return cls(
            image=table.named("image", ImageName),
            variant=table.text("variant"),
            folder=folder,
            inputs_digest=table.text("inputs_digest"),
            tree_digest=table.text("tree_digest"),
            base=_base(base) if base else None,
            recipe=table.text("recipe"),
            build_args=table.pairs("build_args"),
            tools=table.pairs("tools"),
            inventory=Inventory.from_json(table.table("inventory")),
            repaired=tuple(
                Repair(path=os.fsdecode(bytes.fromhex(row.text("path"))), mode=row.integer("mode"))
                for row in table.tables("repaired")
            ),
            seconds=table.integer("milliseconds") / 1000,
            size_bytes=table.integer("size_bytes"),
            files=table.integer("files"),
            sif=table.text("sif", ""),
        )


def _base(table: Table) -> BaseImage:
    return BaseImage(
        name=table.named("name", ImageName),
        inputs_digest=table.text("inputs_digest"),
        tree_digest=table.text("tree_digest"),
    )


def write_record(built: BuiltImage) -> None:
    """Writes ``build.json`` into the folder of the build, all or nothing."""
    target = built.folder / RECORD
    new = target.with_suffix(".new")
    new.write_text(json.dumps(built.to_json(), indent=1) + "\n", encoding="utf-8")
    new.replace(target)


def read_record(folder: Path) -> BuiltImage | None:
    """The record of a build; None where the folder holds no finished build.

    Raises:
        BuildError: there is a record that cannot be read.
    """
    try:
        document = json.loads((folder / RECORD).read_bytes())
        if not isinstance(document, dict):
            raise BuildError(f"{folder / RECORD} is no JSON object", hint=f"remove {folder}")
        return replace(BuiltImage.from_json(document, folder=folder), reused=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ProjectError) as exc:
        raise BuildError(f"{folder / RECORD} cannot be read: {exc}", hint=f"remove {folder}") from exc
