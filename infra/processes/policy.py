"""The policy process: folds decisions into what edges must know, and writes it, signed, to the policy topic until SIGTERM.

Exit codes: 0 told to stop; 1 another process took over, and the supervisor may try again; 70 a decision cannot be read: the
policy stays as it is, and a person has to look.
"""

from __future__ import annotations

import sys

import uvloop

from projections.policy import Policies
from streams.errors import Superseded
from streams.kafka import Kafka
from streams.policy_publisher import BrokenDecisions, PolicyPublisher
from streams.settings import Settings, SettingsError, read_settings
from streams.telemetry import configure, log, serve_metrics
from streams.until_told import until_told

SOFTWARE_ERROR = 70

logger = log(__name__)


def publisher(settings: Settings) -> PolicyPublisher:
    return PolicyPublisher(Kafka(settings.kafka), settings.topics, settings.secret_key, Policies)


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. A transaction under way is dropped: its decisions lie on the log."""
    worker = publisher(settings)
    metrics = await serve_metrics(settings.metrics_port, lambda: worker.is_current, settings.metrics_host)
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
    configure("policy", settings)
    try:
        uvloop.run(run(settings))
    except Superseded as error:
        logger.error(str(error))
        return 1
    except BrokenDecisions as error:
        logger.error(str(error))
        return SOFTWARE_ERROR
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
