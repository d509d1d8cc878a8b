"""The three servers together, without the platform: for tests, benchmarks and development.

Invariant: whoever leaves `running` has stopped what it started. (`fw up` supervises the same servers itself.)
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.embedded.aot import cache_file
from infra.embedded.clickhouse import ClickHouse
from infra.embedded.kafka import Kafka
from infra.embedded.ports import free_ports
from infra.embedded.postgres import Postgres
from infra.embedded.server import Server, spawn, stop, wait_ready


@dataclass(frozen=True, slots=True)
class Stack:
    kafka: str
    postgres: str
    clickhouse: str
    data_dir: str

    @staticmethod
    def load(file: Path) -> Stack:
        raw = json.loads(file.read_text())
        return Stack(raw["kafka"], raw["postgres"], raw["clickhouse"], raw.get("data_dir", str(file.parent)))

    def save(self, file: Path) -> None:
        file.touch(0o600)
        file.write_text(json.dumps(asdict(self)) + "\n")


@contextmanager
def running(data_dir: Path, ports: tuple[int, int, int, int] | None = None) -> Iterator[Stack]:
    """The stack of this directory; ports are Kafka, its controller, PostgreSQL, ClickHouse (default: free ones)."""
    data_dir.mkdir(parents=True, exist_ok=True)
    kafka_port, controller_port, postgres_port, clickhouse_port = ports or free_ports(4)
    password = _password(data_dir / "password")
    kafka = Kafka(data_dir / "kafka", kafka_port, controller_port, aot_cache=cache_file())
    postgres = Postgres(data_dir / "postgres", postgres_port, password)
    clickhouse = ClickHouse(data_dir / "clickhouse", clickhouse_port, password)
    started: list[tuple[Server, subprocess.Popen[bytes]]] = []

    def start(server: Server) -> None:
        log = data_dir / f"{server.name}.log"
        process = spawn(server.prepare(log), log)
        started.append((server, process))
        wait_ready(server, process, log)

    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(start, (kafka, postgres, clickhouse)))
        yield Stack(kafka.address, postgres.url(), clickhouse.url(), str(data_dir))
    finally:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda pair: stop(pair[1], pair[0].stop_signals), started))


def _password(file: Path) -> str:
    if not file.exists():
        file.touch(0o600)
        file.write_text(secrets.token_hex(16))
    return file.read_text()
