"""What is different between two releases: kernels, images, and the packages in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publisher.records.release import ImageRecord, ReleaseRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One thing that is not the same in both."""

    kind: str
    """``kernel``, ``image``, or ``deb`` and ``python`` for a package."""
    where: str
    """The image that holds the package; else empty."""
    name: str
    before: str
    """Empty when the second release added it."""
    after: str
    """Empty when the second release does not have it any more."""

    def to_json(self) -> dict[str, object]:
        """The difference as JSON values."""
        return {
            "kind": self.kind,
            "where": self.where,
            "name": self.name,
            "before": self.before,
            "after": self.after,
        }


def compare(first: ReleaseRecord, second: ReleaseRecord) -> tuple[Difference, ...]:
    """Kernels first, then images, then the packages of each image; what is the same is left out."""
    return (
        *_pairs("kernel", "", _kernels(first), _kernels(second)),
        *_pairs("image", "", _images(first), _images(second)),
        *(
            difference
            for name in sorted({image.name for image in (*first.images, *second.images)})
            for kind in ("deb", "python")
            for difference in _pairs(kind, name, _packages(first, name, kind), _packages(second, name, kind))
        ),
    )


def _pairs(kind: str, where: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, ""), after.get(name, "")
        if old != new:
            yield Difference(kind=kind, where=where, name=name, before=old, after=new)


def _kernels(record: ReleaseRecord) -> dict[str, str]:
    return {row.name: f"{row.display_name} ({row.image} {row.image_version})" for row in record.kernels}


def _images(record: ReleaseRecord) -> dict[str, str]:
    return {row.name: row.version for row in record.images}


def _packages(record: ReleaseRecord, image: str, kind: str) -> dict[str, str]:
    """The packages of an image that both releases may have; none where this one does not have the image."""
    found: tuple[ImageRecord, ...] = tuple(row for row in record.images if row.name == image)
    return {item.name: item.version for row in found for item in row.packages if item.kind == kind}
