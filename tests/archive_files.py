"""Archives without a log, for tests of what reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from streams.archive.container import Archived, FileWriter
from streams.archive.manifest import Manifest, object_name
from streams.archive.objects import Objects
from streams.faust_batches.fetched import TP
from streams.topics import DAY_MS, Topic


async def archive(folder: Path, topic: Topic, *, ranges: int = 3, days: int = 100) -> list[Manifest]:
    """Ranges of ten records each, a day apart, the last one `days` ago at most."""
    objects, manifests = Objects(str(folder)), list[Manifest]()
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    for n in range(ranges):
        file, first = FileWriter(TP(topic.name, 0), 10 * n), 10 * n
        appended_ms = now_ms - (days + ranges - n) * DAY_MS
        file.add([Archived(topic.name, 0, o, appended_ms, b"k", b"v", ()) for o in range(first, first + 10)])
        data = file.close()
        digest = sha256(data).hexdigest()
        manifest = Manifest(
            topic=topic.name,
            partition=0,
            first=first,
            end=first + 10,
            records=10,
            first_appended_ms=appended_ms,
            last_appended_ms=appended_ms,
            schema_ids=(),
            object=object_name(first, digest),
            object_bytes=len(data),
            raw_bytes=file.raw_bytes,
            sha256=digest,
        )
        await objects.put(manifest.object_path or "", data)
        await objects.put(manifest.path, manifest.encoded())
        manifests.append(manifest)
    return manifests
