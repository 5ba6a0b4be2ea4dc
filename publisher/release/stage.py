"""The staged release: virtual trees that point at the built files, and a folder where kernels can start."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from publisher.images.built import BuiltImage
from publisher.images.inventory import os_name
from publisher.names import ImageName, ImageVersion, RepoPath
from publisher.progress import Progress
from publisher.project.settings import Settings
from publisher.records.index import IndexImage
from publisher.records.release import CatalogPart, Change, FileDigest, ImageRecord, KernelRecord, Package
from publisher.release.build import Obtained
from publisher.release.layout import JUPYTER, channel_target, folder_entry, image_path, release_folder
from publisher.release.plan import Action, ImagePlan, ReleasePlan
from publisher.release.preview import catalogs_before
from publisher.release.state import PublishedState
from publisher.report import Finding, Report, Severity, collect, error, note, warning
from publisher.staging.bytecode import check_bytecode
from publisher.staging.catalogs import check_split, parts, split_tree
from publisher.staging.digest import tree_digest
from publisher.staging.links import check_links
from publisher.staging.normalize import Policy, normalize
from publisher.staging.secrets import check_secrets
from publisher.tree import Entry, FolderTree, Graft, Kind, pre_order
from publisher.validation.kernelspecs import check_kernelspecs
from publisher.validation.systems import check_systems


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedImage:
    """An image as it is to be published."""

    name: ImageName
    version: ImageVersion
    entries: Sequence[Entry] = field(repr=False)
    catalogs: frozenset[str]
    record: ImageRecord
    report: Report

    def index_row(self) -> IndexImage:
        """The image's row of the index."""
        return IndexImage(
            name=self.name,
            version=self.version,
            inputs_digest=self.record.inputs_digest,
            tree_digest=self.record.tree_digest,
            entries=self.record.entries,
            size_bytes=self.record.size_bytes,
        )

    def graft(self, prefix: RepoPath) -> Graft:
        """What is put into the repository for it."""
        return Graft(at=image_path(prefix, self.name, self.version), tree=self.entries, catalogs=self.catalogs)


def stage_images(
    plan: ReleasePlan,
    images: Mapping[ImageName, Obtained],
    settings: Settings,
    state: PublishedState,
    progress: Progress,
) -> tuple[StagedImage, ...]:
    """The new images of a release as they are to be published; published ones stay as they are."""
    staged = []
    for image in plan.images:
        built = images[image.selection.name].built
        if image.action is Action.BUILD:
            assert built is not None, "an image that is not published has been built"
            progress.line(f"{image.selection.name} {image.selection.version}")
            before = [part.path for part in catalogs_before(state, image)]
            staged.append(stage_image(image, built, settings, before=before))
    return tuple(staged)


def stage_image(plan: ImagePlan, built: BuiltImage, settings: Settings, *, before: Sequence[str] = ()) -> StagedImage:
    """The image's tree, normalized, split into catalogs, checked and digested; nothing is copied.

    ``before`` are the directories that begin a catalog in the image as it was published last.

    Raises:
        DiskError: a file of the built image cannot be read.
    """
    where = f"{plan.selection.name}"
    tree = normalize(FolderTree(folder=built.rootfs), where=where, policy=Policy(unreadable=settings.unreadable))
    found = split_tree(tree.entries, settings.catalogs, previous=before)
    opened = collect(_opened(built, where, settings))
    report = (
        opened
        + tree.report
        + check_links(tree.entries, where=where, strict=False)
        + check_bytecode(tree.entries, where=where)
        + check_secrets(tree.entries, where=where)
        + collect(_metadata(tree.entries, where))
        + check_split(found, where=where, bounds=settings.catalogs)
    )
    catalogs = parts(tree.entries, found.catalogs) if found.catalogs else ()
    record = _record(plan, built, tree.entries, opened + tree.report, catalogs)
    return StagedImage(
        name=plan.selection.name,
        version=plan.selection.version,
        entries=tree.entries,
        catalogs=found.catalogs,
        record=record,
        report=report,
    )


def _opened(built: BuiltImage, where: str, settings: Settings) -> Iterator[Finding]:
    """What the builder had to open, so that everything can be read here, counts as the policy says."""
    for repair in built.repaired:
        message = f"others could not read it (mode {repair.mode:04o})"
        if settings.unreadable == "refuse":
            yield error(
                "unreadable",
                f"{where}:/{repair.path}",
                message,
                hint="chmod it in the recipe, or set policy.unreadable",
            )
        else:
            yield note("unreadable", f"{where}:/{repair.path}", f"{message}; it was opened")


def _metadata(entries: Sequence[Entry], where: str) -> Iterator[Finding]:
    if not any(entry.path == ".singularity.d" for entry in entries):
        yield warning("no-metadata", where, "there is no .singularity.d: the environment of the recipe is lost")


def _record(
    plan: ImagePlan, built: BuiltImage, entries: Sequence[Entry], changes: Report, catalogs: tuple[CatalogPart, ...]
) -> ImageRecord:
    definition = plan.definition
    return ImageRecord(
        name=plan.selection.name,
        version=plan.selection.version,
        variant=plan.selection.variant,
        description=definition.description,
        base=definition.base or "",
        features=definition.features,
        licenses=definition.licenses,
        inputs_digest=plan.inputs_digest,
        tree_digest=tree_digest(entries),
        entries=len(entries),
        size_bytes=sum(entry.size_bytes for entry in entries if entry.kind is Kind.FILE),
        recipe=built.recipe,
        builder=" ".join(built.tools[0]),
        os=built.inventory.os,
        packages=tuple(
            Package(kind=item.kind, name=item.name, version=item.version, license=item.license)
            for item in built.inventory.packages
        ),
        changes=tuple(
            Change(check=item.check, path=item.where.partition(":")[2], message=item.message)
            for item in changes.findings
            if item.severity is Severity.NOTE
        ),
        catalogs=catalogs,
    )


def release_files(plan: ReleasePlan) -> tuple[FileDigest, ...]:
    """The digests of the rendered files of a release."""
    return tuple(
        FileDigest(path=entry.path, sha256=hashlib.sha256(entry.content).hexdigest())
        for entry in plan.files
        if isinstance(entry.content, bytes)
    )


def kernel_records(plan: ReleasePlan) -> tuple[KernelRecord, ...]:
    """The rows of the release record about kernels."""
    versions = {image.selection.name: image.selection.version for image in plan.images}
    return tuple(
        KernelRecord(
            name=kernel.name,
            display_name=kernel.display_name,
            language=kernel.language,
            image=kernel.image,
            image_version=versions[kernel.image] if kernel.image else None,
        )
        for kernel in plan.kernels
    )


def release_entries(plan: ReleasePlan, record: bytes, *, mtime_s: int) -> tuple[Entry, ...]:
    """The tree of the release's folder, with its record."""
    root = folder_entry(mtime_s=mtime_s)
    files = [entry._replace(mtime_s=mtime_s) for entry in plan.files]
    own = Entry(
        path="release.json",
        kind=Kind.FILE,
        mode=0o644,
        mtime_s=mtime_s,
        size_bytes=len(record),
        content=record,
    )
    return tuple(pre_order([root, *files, own]))


def lay_out(plan: ReleasePlan, images: Mapping[ImageName, Obtained], folder: Path) -> Path:
    """A folder with the release's own files and links to the images: kernels start from it as published.

    Args:
        plan: the release.
        images: every image of the release.
        folder: emptied and filled; stands for the folder of the prefix.
    """
    if folder.exists():
        shutil.rmtree(folder)
    prefix = RepoPath("")
    release = release_folder(folder, plan.manifest.version)
    release.mkdir(parents=True)
    for entry in plan.files:
        _write(entry, release / entry.path)
    for image in plan.images:
        link = folder / image_path(prefix, image.selection.name, image.selection.version)[1:]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(images[image.selection.name].rootfs.resolve())
    channel = folder / "channels" / plan.manifest.channel
    channel.parent.mkdir()
    channel.symlink_to(channel_target(plan.manifest.version))
    return folder


def _write(entry: Entry, path: Path) -> None:
    if entry.kind is Kind.DIRECTORY:
        path.mkdir()
    elif entry.kind is Kind.SYMLINK:
        path.symlink_to(entry.target)
    else:
        assert isinstance(entry.content, bytes)
        path.write_bytes(entry.content)
        path.chmod(entry.mode)


def check_staged(plan: ReleasePlan, staged: Sequence[StagedImage], folder: Path) -> Report:
    """What is wrong with a staged release; ``folder`` is where :func:`lay_out` put it."""
    where = f"releases/{plan.manifest.version}"
    report = check_links([folder_entry(mtime_s=0), *plan.files], where=where, strict=True)
    for image in staged:
        report += image.report
    selected = [image.selection for image in plan.images]
    roots = {image.name: folder / image_path(RepoPath(""), image.name, image.version)[1:] for image in selected}
    report += check_systems(plan.kernels, {name: os_name(root) for name, root in roots.items()})
    kernels = release_folder(folder, plan.manifest.version) / JUPYTER / "kernels"
    return report + (check_kernelspecs(kernels) if plan.kernels else Report())
