"""`fw up` with proxies between its parts: `python -m infra.chaos.up --via '{"postgres": 15432}' --data-dir …`.

Invariant: everything that runs is what `fw up` runs, by its own supervisor; only where a part looks for another one differs.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from infra.cli.up import _up
from infra.embedded.kafka import Kafka
from infra.embedded.server import Server
from infra.supervisor.layout import Directory, Ports
from infra.supervisor.parts import Plan, Process

PROXIED: Final = ("kafka", "postgres", "clickhouse", "ingress", "gateway", "edge")


def targets(ports: Ports) -> dict[str, int]:
    """Where what a proxy stands before listens itself."""
    return {
        "kafka": ports.kafka,
        "postgres": ports.postgres,
        "clickhouse": ports.clickhouse,
        "ingress": ports.ingress,
        "gateway": ports.gateway,
        "edge": ports.edge,
    }


def rewired(via: Mapping[str, int], ports: Ports) -> Callable[[Plan], Plan]:
    """The plan with our processes sent through proxies: for each part, the port of the one before it."""
    moved = {f"127.0.0.1:{port}": f"127.0.0.1:{via[name]}" for name, port in targets(ports).items() if name in via}
    looked_for = ("FW_KAFKA_BOOTSTRAP", "FW_POSTGRES_URL", "FW_CLICKHOUSE_URL", "FW_EDGE_INGRESS")

    def through(process: Process) -> Process:
        env = dict(process.env)
        for variable in looked_for:
            for there, proxy in moved.items():
                if variable in env:
                    env[variable] = env[variable].replace(there, proxy)
        return replace(process, env=env)

    def server(found: Server) -> Server:
        return replace(found, advertised_port=via.get("kafka")) if isinstance(found, Kafka) else found

    def change(plan: Plan) -> Plan:
        return replace(plan, servers=tuple(map(server, plan.servers)), processes=tuple(map(through, plan.processes)))

    return change


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.chaos.up")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port-base", type=int, default=0)
    parser.add_argument("--via", type=json.loads, required=True, help="JSON: the port of the proxy before each part")
    arguments = parser.parse_args()
    ports = Ports(arguments.port_base)
    code = _up(Directory(arguments.data_dir.resolve()), ports, frozenset(), True, rewired(arguments.via, ports))
    os._exit(code)  # as `fw up` does


if __name__ == "__main__":
    main()
