"""What the places have, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from publisher.names import Fqrn
from publisher.propagation.judge import Propagation
from publisher.propagation.observe import Observation

_LABELS = ("fqrn", "kind", "place")
_GAUGES = (
    ("afpub_revision", "Revision of the repository at this place.", "revision"),
    ("afpub_published_timestamp_seconds", "When that revision was published.", "published_s"),
    ("afpub_snapshot_timestamp_seconds", "When the stratum 1 last fetched.", "snapshot_s"),
    ("afpub_whitelist_expiry_timestamp_seconds", "When the whitelist expires.", "whitelist_expires_s"),
    ("afpub_ttl_seconds", "How long clients may go on with what they know.", "ttl_s"),
)


def exposition(propagation: Propagation, *, fqrn: Fqrn) -> str:
    """The text format of Prometheus: one line for each figure that is known, ``afpub_up`` for every place."""
    registry = CollectorRegistry()
    up = Gauge("afpub_up", "Whether the place answered as it should.", _LABELS, registry=registry)
    for row in propagation.observations:
        up.labels(*_labels(fqrn, row)).set(not row.trouble)
    for name, text, field in _GAUGES:
        gauge = Gauge(name, text, _LABELS, registry=registry)
        for row in propagation.observations:
            if not row.trouble and getattr(row, field):
                gauge.labels(*_labels(fqrn, row)).set(getattr(row, field))
    release = Gauge("afpub_release", "Whether the place has the release.", (*_LABELS, "release"), registry=registry)
    everywhere = {version for row in propagation.observations for version in row.releases}
    for row in propagation.observations:
        for version in sorted(everywhere) if not row.trouble else ():
            release.labels(*_labels(fqrn, row), version).set(version in row.releases)
    return generate_latest(registry).decode()


def _labels(fqrn: Fqrn, row: Observation) -> tuple[str, str, str]:
    return (fqrn, row.place.kind.value, row.place.name)
