"""Builds images: from a recipe to a root file system and its record, or from the cache of earlier builds."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from publisher import tools
from publisher.errors import BuildError, DiskError
from publisher.images import apptainer
from publisher.images.built import (
    ROOTFS,
    BaseImage,
    BuiltImage,
    read_record,
    write_record,
)
from publisher.images.finish import finish_rootfs
from publisher.images.host import BuildHost, read_host
from publisher.images.inputs import inputs_digest
from publisher.images.inventory import read_inventory
from publisher.images.permissions import repair_permissions
from publisher.images.recipe import Recipe, load_recipe
from publisher.images.userns import remove_rootfs
from publisher.progress import Progress
from publisher.project.image import ImageDefinition, ImageTest
from publisher.staging.digest import tree_digest
from publisher.tree import FolderTree, Kind

_SETTINGS: Final = ".afpub"
"""Folder below /tmp of the build that holds what the machine gives to it."""
_PROBLEM_LINES: Final = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One build on its way."""

    image: ImageDefinition
    variant: str
    recipe: Recipe
    digest: str
    base: BuiltImage | None
    host: BuildHost
    folder: Path
    """Everything that the build writes; renamed when it is finished, removed when it fails."""
    log: Path
    progress: Progress

    @property
    def what(self) -> str:
        return f"the image {self.image.name}" + (f" ({self.variant})" if self.variant else "")


def build(  # noqa: PLR0913 - everything that a build depends on, each by name
    image: ImageDefinition,
    *,
    variant: str,
    base: BuiltImage | None,
    work: Path,
    progress: Progress,
    apt_mirror: str = "",
    sif: bool = False,
) -> BuiltImage:
    """The built image; taken from earlier builds where its inputs are the same.

    Two builds of one image at once wait for each other. A build that fails or is interrupted leaves its log
    and nothing else.

    Args:
        image: the image.
        variant: one of its variants, ``""`` for a recipe without variants.
        base: the image that it is based on, built.
        work: folder of the project for built things; images go below ``images/``.
        progress: told what is going on.
        apt_mirror: Debian mirror; empty for the one that apt uses here.
        sif: pack the image into a SIF file too.

    Raises:
        ProjectError: the recipe is wrong.
        BuildError: it cannot be built; carries the last lines of the output.
        ToolError: Apptainer is not installed.
        DiskError: the disk is full or cannot be written.
    """
    digest = inputs_digest(image, variant=variant, base_digest=base.inputs_digest if base else "")
    # the runtime is started in the folder of the image
    home = work.resolve() / "images" / image.name
    folder = home / build_key(digest, variant)
    if (built := _finished(folder)) and (built.sif or not sif):
        return built
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DiskError(f"the folder {home} cannot be made: {exc.strerror}") from exc
    with _lock(home, image.name, progress):
        built = _finished(folder)
        if built is None:
            recipe = load_recipe(image, variant)
            host = read_host(apt_mirror=apt_mirror, needs_apt="APT_MIRROR" in recipe.asks)
            job = _Job(
                image=image,
                variant=variant,
                recipe=recipe,
                digest=digest,
                base=base,
                host=host,
                folder=folder.with_name(f"{folder.name}.partial"),
                log=folder.with_name(f"{folder.name}.log"),
                progress=progress,
            )
            built = _build(job, folder)
        return _packed(built, progress) if sif and not built.sif else built


def build_key(digest: str, variant: str) -> str:
    """The name of a build's folder."""
    short = digest.removeprefix("sha256:")[:16]
    return f"{variant}-{short}" if variant else short


def find_built(image: ImageDefinition, *, variant: str, base_digest: str, work: Path) -> BuiltImage | None:
    """The image from an earlier build with the same inputs, or None.

    Raises:
        ProjectError: the recipe is wrong.
        BuildError: the record of the build cannot be read.
    """
    digest = inputs_digest(image, variant=variant, base_digest=base_digest)
    return _finished(work / "images" / image.name / build_key(digest, variant))


def _finished(folder: Path) -> BuiltImage | None:
    return read_record(folder) if (folder / ROOTFS).is_dir() else None


@contextlib.contextmanager
def _lock(home: Path, name: str, progress: Progress) -> Iterator[None]:
    with (home / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            progress.step(f"waiting for another build of the image {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(job: _Job, folder: Path) -> BuiltImage:
    begin = time.monotonic()
    remove_rootfs(job.folder)
    remove_rootfs(folder)
    job.log.unlink(missing_ok=True)
    try:
        job.folder.mkdir()
        job.progress.step(f"building {job.what}")
        _run_apptainer(job)
        rootfs = job.folder / ROOTFS
        job.progress.step(f"settling {job.what}")
        finish_rootfs(
            rootfs,
            recipe=job.recipe.definition.text,
            base=job.base.image if job.base else "",
            inputs_digest=job.digest,
            bind_points=job.image.bind_points,
        )
        repaired = repair_permissions(rootfs)
        for test in job.image.tests:
            _run_test(job, test)
        built = _measured(job)
        done = replace(built, repaired=repaired, seconds=time.monotonic() - begin)
        write_record(done)
        job.folder.rename(folder)
    except OSError as exc:
        raise DiskError(f"{job.what} could not be built: {exc.filename}: {exc.strerror}") from exc
    finally:
        # what cannot be removed now is removed before the next build; the reason for the failure matters more
        with contextlib.suppress(DiskError):
            remove_rootfs(job.folder)
    return replace(done, folder=folder)


def _measured(job: _Job) -> BuiltImage:
    """The record of a root file system that is ready, all but repairs and time."""
    tree = FolderTree(folder=job.folder / ROOTFS)
    entries = list(tree)
    size = sum(entry.size_bytes for entry in entries if entry.kind is Kind.FILE)
    # targets of links count as read
    total = sum(entry.size_bytes for entry in entries)
    job.progress.step(f"taking the digest of {job.what}")
    digest = tree_digest(entries, progress=lambda done: job.progress.advance(done, total, "bytes"))
    base = job.base
    return BuiltImage(
        image=job.image.name,
        variant=job.variant,
        folder=job.folder,
        inputs_digest=job.digest,
        tree_digest=digest,
        base=BaseImage(name=base.image, inputs_digest=base.inputs_digest, tree_digest=base.tree_digest)
        if base
        else None,
        recipe=job.recipe.definition.text,
        build_args=job.recipe.arguments,
        tools=(apptainer.version(),),
        inventory=read_inventory(tree.folder),
        repaired=(),
        seconds=0.0,
        size_bytes=size,
        files=len(entries),
    )


def _run_apptainer(job: _Job) -> None:
    recipe = job.folder / "recipe.def"
    recipe.write_text(job.recipe.definition.text, encoding="utf-8")
    # the build sees folders of its own in the place of the machine's /tmp, which recipes like to empty
    folders = {name: job.folder / name for name in ("tmp", "vartmp", "scratch")}
    for path in folders.values():
        path.mkdir()
        path.chmod(0o1777)
    variables = _given_settings(job.host, folders["tmp"])
    words = apptainer.build_words(
        recipe=recipe,
        target=job.folder / ROOTFS,
        arguments=_arguments(job),
        binds=((folders["tmp"], "/tmp"), (folders["vartmp"], "/var/tmp")),  # noqa: S108 - inside the build
    )
    environment = apptainer.own_environment(
        {f"APPTAINERENV_{key}": value for key, value in variables.items()}
        | {"APPTAINER_TMPDIR": str(folders["scratch"]), "SOURCE_DATE_EPOCH": str(apptainer.SOURCE_DATE_EPOCH)}
    )
    with job.log.open("w", encoding="utf-8") as log:

        def on_line(line: str) -> None:
            masked = job.host.mask(line)
            log.write(masked + "\n")
            job.progress.line(masked)

        done = tools.run(words, env=environment, cwd=job.image.folder, on_line=on_line, check=False)
    if not done.ok:
        raise apptainer.build_failure(job.what, job.host.mask(done.tail), log=job.log)
    for path in folders.values():
        remove_rootfs(path)


def _arguments(job: _Job) -> dict[str, str]:
    provided = {
        "APT_MIRROR": job.host.apt_mirror,
        "APT_SECURITY_MIRROR": job.host.apt_security_mirror,
    }
    if "BASE" in job.recipe.asks:
        if job.base is None:
            raise BuildError(f"{job.what} needs a base that is not built", hint="name it with 'base' in its image.toml")
        provided["BASE"] = str(job.base.rootfs)
    asked = {name: value for name, value in provided.items() if name in job.recipe.asks}
    return dict(job.recipe.arguments) | asked


def _given_settings(host: BuildHost, tmp: Path) -> Mapping[str, str]:
    """Variables for ``%post``; the files that they name are put below its /tmp."""
    variables = dict(host.variables) | {"SOURCE_DATE_EPOCH": str(apptainer.SOURCE_DATE_EPOCH)}
    if host.ca_bundle is None:
        return variables
    folder = tmp / _SETTINGS
    folder.mkdir()
    shutil.copyfile(host.ca_bundle, folder / "ca-certificates.crt")
    inside = f"/tmp/{_SETTINGS}"  # noqa: S108 - inside the build
    (folder / "apt.conf").write_text(f'Acquire::https::CAInfo "{inside}/ca-certificates.crt";\n')
    bundle = f"{inside}/ca-certificates.crt"
    names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
    return variables | dict.fromkeys(names, bundle) | {"APT_CONFIG": f"{inside}/apt.conf"}


def _run_test(job: _Job, test: ImageTest) -> None:
    shown = " ".join(test.command)
    job.progress.step(f"testing {job.what}: {shown[:60]}")
    words = apptainer.exec_words(job.folder / ROOTFS, test.command)
    done = tools.run(words, env=apptainer.own_environment({}), check=False)
    problem = ""
    if not done.ok:
        problem = f"exit code {done.returncode}"
    elif not re.search(test.expect, done.stdout):
        problem = f"what it prints does not match {test.expect!r}"
    if problem:
        raise BuildError(
            f"{job.what}: the test {shown!r} of image.toml failed: {problem}",
            hint=f"the image was not kept; its build is logged in {job.log}",
            detail="\n".join(done.tail.splitlines()[-_PROBLEM_LINES:]),
        )


def _packed(built: BuiltImage, progress: Progress) -> BuiltImage:
    name = f"{built.image}.sif"
    progress.step(f"packing the image {built.image} into {name}")
    new = built.folder / f".{name}.new"
    words = apptainer.sif_words(rootfs=built.rootfs, target=new)
    try:
        tools.run(words, env=apptainer.own_environment({}), on_line=progress.line)
        new.replace(built.folder / name)
    finally:
        new.unlink(missing_ok=True)
    packed = replace(built, sif=name)
    write_record(packed)
    return packed
