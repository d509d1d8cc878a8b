"""`python -m commands.reactors`: all reactors as a process. SIGTERM ends it; a failure that it cannot cure, with code 70."""

from __future__ import annotations

import contextlib
import os
import sys

import uvloop

from commands.reactors.erasure import Erasures
from commands.reactors.follow import Follower
from streams import telemetry
from streams.kafka import Cluster, Kafka, connected, stopped
from streams.privacy.key_store import KeyStore
from streams.settings import Settings, SettingsError, read_settings
from streams.until_told import until_told

SOFTWARE_ERROR = 70


async def serve(settings: Settings, cluster: Cluster) -> None:
    async with contextlib.AsyncExitStack() as opened:
        store = KeyStore(settings)
        opened.push_async_callback(store.close)
        producer = await connected(lambda: cluster.idempotent_producer("reactors"))
        opened.push_async_callback(stopped, producer)
        erasures = Erasures(store, producer, settings.topics)
        follower = Follower(erasures.reactor, cluster, settings.topics, store)
        metrics = await telemetry.serve_metrics(settings.metrics_port, lambda: follower.is_ready, settings.metrics_host)
        if metrics is not None:
            opened.callback(metrics.close)
        await until_told(follower.run(), erasures.keep_expiring())


def main() -> None:
    try:
        settings = read_settings()
    except SettingsError as error:
        sys.exit(str(error))
    telemetry.configure("reactors", settings)
    log = telemetry.log("reactors")
    try:
        uvloop.run(serve(settings, Kafka(settings.kafka)))
    except Exception:
        log.exception("the reactors failed")
        sys.stderr.flush()
        os._exit(SOFTWARE_ERROR)


if __name__ == "__main__":
    main()
