"""What the archiver tells Prometheus. The alarm is `fw_archive_seconds_to_loss`: near zero, history gets lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from streams.archive.manifest import Manifest

if TYPE_CHECKING:
    from streams.archive.archiver import Part

RECORDS = Counter("fw_archive_records_total", "Records archived", ["topic"])
BYTES = Counter("fw_archive_bytes_total", "Bytes of data objects written", ["topic"])
RANGES = Counter("fw_archive_ranges_total", "Ranges closed", ["topic"])
RANGE_SECONDS = Histogram("fw_archive_range_seconds", "To read, write and name a range", buckets=(0.01, 0.1, 0.5, 1, 5, 10, 60))
LAG = Gauge("fw_archive_lag_records", "Offsets between the archive and the end of the log", ["topic"])
OLDEST = Gauge("fw_archive_oldest_seconds", "Age of the oldest record that only the log has", ["topic"])
TO_LOSS = Gauge("fw_archive_seconds_to_loss", "Until the log deletes a record that is not archived", ["topic"])
LOST = Gauge("fw_archive_lost_records", "Offsets that the log deleted before they were archived", ["topic"])
PROBLEMS = Gauge("fw_archive_problems", "Partitions that cannot be archived; all of them when the storage does not answer")


def count(manifest: Manifest) -> None:
    RECORDS.labels(manifest.topic).inc(manifest.records)
    BYTES.labels(manifest.topic).inc(manifest.object_bytes)
    RANGES.labels(manifest.topic).inc()


def show(parts: Iterable[Part], problem: str | None, now: float) -> None:
    """Takes over what the archiver saw. While it sees nothing (`problem`), what it saw last stays."""
    of = defaultdict[str, list["Part"]](list)
    for part in parts:
        of[part.topic.name].append(part)
    for topic, theirs in of.items():
        LAG.labels(topic).set(sum(p.open_records for p in theirs))
        OLDEST.labels(topic).set(max(p.age_seconds(now) for p in theirs))
        LOST.labels(topic).set(sum(p.lost_records for p in theirs))
        to_loss = [seconds for p in theirs if (seconds := p.seconds_to_loss(now)) is not None]
        if theirs[0].topic.retention_ms > 0:
            TO_LOSS.labels(topic).set(min(to_loss, default=theirs[0].topic.retention_ms / 1000))
    broken = sum(p.problem is not None for theirs in of.values() for p in theirs)
    PROBLEMS.set(broken + (problem is not None))
