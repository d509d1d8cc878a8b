"""`python -m edge_agent`: an edge agent, settings from the environment, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys

import maxminddb
import uvloop

from edge_agent.running import running
from edge_agent.settings import EdgeSettings, read_edge_settings
from streams.settings import SettingsError
from streams.telemetry import configure


async def run(settings: EdgeSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings):
        await stop.wait()


def main() -> int:
    try:
        settings = read_edge_settings()
        configure("edge_agent", settings)
        uvloop.run(run(settings))
    except SettingsError as problems:
        print(problems, file=sys.stderr)
        return 1
    except (OSError, sqlite3.Error, maxminddb.InvalidDatabaseError) as error:
        print(f"the edge agent cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
