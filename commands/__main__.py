"""`python -m commands`: the command worker as a process. SIGTERM ends it cleanly; a failure it cannot cure, with code 70."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys

import uvloop

from commands.worker import CommandWorker
from streams import telemetry
from streams.kafka import Kafka
from streams.settings import Settings, SettingsError, read_settings

SOFTWARE_ERROR = 70


def tune_collector() -> None:
    """State only grows and holds no cycles: looking through it for some again and again is a tenth of the time."""
    gc.set_threshold(50_000, 20, 100)


async def serve(settings: Settings) -> None:
    worker = CommandWorker(Kafka(settings.kafka), settings.topics)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    metrics = await telemetry.serve_metrics(settings.metrics_port, lambda: worker.is_ready, settings.metrics_host)
    try:
        await worker.run()
    finally:
        if metrics is not None:
            metrics.close()


def main() -> None:
    try:
        settings = read_settings()
    except SettingsError as error:
        sys.exit(str(error))
    telemetry.configure("commands", settings)
    tune_collector()
    log = telemetry.log("commands")
    try:
        uvloop.run(serve(settings))
    except Exception:
        log.exception("the command worker failed")
        sys.stderr.flush()
        # At once: nothing here is worth saving, and clients of a broken connection may hang in their end.
        os._exit(SOFTWARE_ERROR)


if __name__ == "__main__":
    main()
