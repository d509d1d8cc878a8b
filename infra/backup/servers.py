"""The servers that a restore writes to: those that the environment names, else the embedded ones of the new directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from infra.backup.restore import Servers
from infra.embedded.aot import cache_file
from infra.embedded.kafka import Kafka
from infra.embedded.postgres import Postgres
from infra.embedded.server import Server, spawn, stop, wait_ready
from infra.supervisor import checks
from infra.supervisor.layout import Directory, Ports
from infra.supervisor.state import Secrets


@contextmanager
def servers(
    directory: Directory, ports: Ports, secrets: Secrets, env: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[Servers]:
    """Kafka and PostgreSQL for as long as the block runs. Raises CannotStart."""
    kafka = Kafka(directory.root / "kafka", ports.kafka, ports.kafka_controller, aot_cache=cache_file(), say=say)
    postgres = Postgres(directory.root / "postgres", ports.postgres, secrets.postgres_password)
    elsewhere = env.get("FW_KAFKA_BOOTSTRAP"), env.get("FW_POSTGRES_URL")
    ours: list[Server] = [*([] if elsewhere[0] else [kafka]), *([] if elsewhere[1] else [postgres])]
    wanted = {} if elsewhere[0] else {kafka.port: "Kafka", kafka.controller_port: "Kafka's controller"}
    checks.before_start(directory.root, wanted | ({} if elsewhere[1] else {postgres.port: "PostgreSQL"}))
    directory.logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for server in ours:
            log = directory.log(server.name)
            process = spawn(server.prepare(log), log)
            stack.callback(stop, process, server.stop_signals)
            wait_ready(server, process, log)
        factor = int(env.get("FW_KAFKA_REPLICATION_FACTOR", "1"))
        yield Servers(elsewhere[0] or kafka.address, elsewhere[1] or postgres.url(), factor)
