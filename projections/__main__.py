"""python -m projections NAME | --list | migrate"""

from __future__ import annotations

import argparse
import asyncio
import sys

from projections import PROJECTIONS
from projections.platform import migrate
from streams.settings import SettingsError, read_settings
from streams.telemetry import configure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m projections", description="Runs one projection until SIGTERM.")
    parser.add_argument("name", nargs="?", choices=[*PROJECTIONS, "migrate"], help="a projection, or what to do")
    parser.add_argument("--list", action="store_true", help="the names of all projections, one a line")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(PROJECTIONS))
        return 0
    try:
        settings = read_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    match arguments.name:
        case None:
            parser.error("which projection? --list names them")
        case "migrate":
            asyncio.run(migrate(settings.postgres_url))
        case name:
            configure(f"projection-{name}", settings)
            from projections.worker import Worker  # Faust: nobody else here needs it

            Worker(name, settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
