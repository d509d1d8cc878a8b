"""The archive process: closes ranges of the log into object storage until SIGTERM.

It is ready once it has looked, whatever it saw: a storage that does not answer stops no stream. Metrics and `fw doctor` say it.
"""

from __future__ import annotations

import asyncio
import sys

from streams.archive.archiver import Archiver, archived_topics
from streams.archive.errors import ArchiveError
from streams.archive.objects import Objects
from streams.settings import Settings, SettingsError, read_settings
from streams.telemetry import configure, log, serve_metrics
from streams.until_told import until_told

logger = log(__name__)


def archiver(settings: Settings) -> Archiver:
    """Raises ArchiveUnreachable when the storage cannot even be opened."""
    return Archiver(
        Objects(settings.archive_url),
        settings.kafka,
        archived_topics(settings.topics),
        settings.archive_range_seconds,
        settings.archive_range_mib << 20,
    )


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. A range in the making is dropped: it lies on the log."""
    worker = archiver(settings)
    metrics = await serve_metrics(settings.metrics_port, worker.has_looked.is_set, settings.metrics_host)
    logger.info("archive worker runs", archive=worker.objects.name)
    try:
        await until_told(worker.run())
    finally:
        if metrics is not None:
            metrics.close()


def main() -> int:
    try:
        settings = read_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    configure("archive", settings)
    try:
        asyncio.run(run(settings))
    except ArchiveError as error:
        logger.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
