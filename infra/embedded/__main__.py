"""The three servers until SIGINT or SIGTERM.

Writes DIR/stack.json (mode 0600) when they are ready; FW_TEST_STACK points the tests at it.
Kafka's controller takes the port behind KAFKA_PORT.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from infra.embedded.stack import running


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m infra.embedded",
        description=__doc__,
        epilog="example: python -m infra.embedded /tmp/stack 29092 29432 29123",
    )
    parser.add_argument("dir", type=Path, help="where their data and logs lie; made if missing")
    for name in ("kafka", "postgres", "clickhouse"):
        parser.add_argument(f"{name}_port", type=int)
    arguments = parser.parse_args()
    data_dir, kafka_port = arguments.dir.resolve(), arguments.kafka_port
    signal.pthread_sigmask(signal.SIG_BLOCK, stop := {signal.SIGINT, signal.SIGTERM})
    with running(data_dir, (kafka_port, kafka_port + 1, arguments.postgres_port, arguments.clickhouse_port)) as stack:
        stack.save(data_dir / "stack.json")
        print("ready", flush=True)
        signal.sigwait(stop)
    (data_dir / "stack.json").unlink()


if __name__ == "__main__":
    main()
