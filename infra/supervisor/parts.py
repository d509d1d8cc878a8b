"""The parts of the platform: what runs, what it needs, when it is ready, in which order it stops.

Invariant: a part that needs another names it in `after`; everything else starts at once and waits for itself.
"""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from infra.embedded.aot import cache_file
from infra.embedded.clickhouse import ClickHouse
from infra.embedded.jars import Say
from infra.embedded.kafka import Kafka
from infra.embedded.postgres import Postgres
from infra.embedded.server import Server
from infra.supervisor.layout import HOST, Directory, Ports
from infra.supervisor.leftovers import MARK
from infra.supervisor.state import Secrets
from projections import PROJECTIONS

SERVERS = ("kafka", "postgres", "clickhouse")
# what our processes import only once they run; imported once for all of them (zygote)
PRELOAD = ("projections.worker",)
# what the edge, which may stand anywhere, is never told
WITHHELD = frozenset(
    {
        "FW_SECRET_KEY",
        "FW_OPERATOR_TOKEN",
        "FW_POSTGRES_URL",
        "FW_CLICKHOUSE_URL",
        "FW_ARCHIVE_URL",
        "FW_MASTER_KEY",
        "FW_MASTER_KEY_FILE",
        "FW_MASTER_KEY_COMMAND",
        "FW_CA_KEY",
    }
)
# the doors close first, then the readers and writers of the log, then the stores, what the others are made from last
STOP_ORDER = (
    ("edge", "gateway", "ingress"),
    ("commands", "reactors", "policy", "projections", "archive"),
    ("clickhouse", "kafka"),
    ("postgres",),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A process that ends by itself and must succeed before others start."""

    name: str
    module: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Process:
    """One of our own long-running processes."""

    name: str
    module: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    after: tuple[str, ...]
    ready_url: str
    metrics_url: str | None
    listen: str = ""  # the door whose socket outlives the process
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)

    def ready(self) -> bool:
        return answers(self.ready_url)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything is reached, embedded or not."""

    kafka: str
    postgres: str
    clickhouse: str
    gateway: str  # host:port
    balancer: str  # host:port
    ingress: str  # host:port
    ingress_tls: str  # host:port, for nodes with certificates
    edge: str  # host:port

    def published(self) -> dict[str, str]:
        """As `fw up --json` prints them."""
        return {
            "graphql": f"http://{self.gateway}/graphql",
            "graphql_ws": f"ws://{self.gateway}/graphql",
            "balancer": f"http://{self.balancer}",
            "edge": f"http://{self.edge}",
            "ingress": self.ingress,
            "ingress_tls": self.ingress_tls,
            "kafka": self.kafka,
            "postgres": self.postgres,
            "clickhouse": self.clickhouse,
            "schema_registry": f"http://{self.gateway}/registry",
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to run, and where it will be."""

    directory: Directory
    ports: Ports
    addresses: Addresses
    secrets: Secrets
    servers: tuple[Server, ...]
    jobs: tuple[Job, ...]
    processes: tuple[Process, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def wanted_ports(self) -> dict[int, str]:
        """Every port that we will listen on, and for what."""
        wanted: dict[int, str] = {}
        for server in self.servers:
            match server:
                case Kafka():
                    wanted |= {server.port: "Kafka", server.controller_port: "Kafka's controller"}
                case Postgres():
                    wanted[server.port] = "PostgreSQL"
                case ClickHouse():
                    wanted[server.port] = "ClickHouse"
        for process in self.processes:
            for url in filter(None, (process.ready_url, process.metrics_url)):
                wanted[int(url.split("/")[2].rpartition(":")[2])] = process.name
            if process.name == "gateway":
                wanted[int(self.addresses.balancer.rpartition(":")[2])] = "gateway (balancer)"
            if process.name == "ingress":
                wanted |= {int(a.rpartition(":")[2]): process.name for a in (self.addresses.ingress, self.addresses.ingress_tls)}
        return wanted


def plan(
    *,
    directory: Directory,
    ports: Ports,
    secrets: Secrets,
    without: frozenset[str],
    env: Mapping[str, str],
    say: Callable[[str], Say],
) -> Plan:
    """What to run here. `without` names parts that run elsewhere; a service whose URL is in `env` does, too."""
    kafka = Kafka(directory.root / "kafka", ports.kafka, ports.kafka_controller, aot_cache=cache_file(), say=say("kafka"))
    postgres = Postgres(directory.root / "postgres", ports.postgres, secrets.postgres_password)
    clickhouse = ClickHouse(directory.root / "clickhouse", ports.clickhouse, secrets.clickhouse_password)
    elsewhere = {
        "kafka": env.get("FW_KAFKA_BOOTSTRAP"),
        "postgres": env.get("FW_POSTGRES_URL"),
        "clickhouse": env.get("FW_CLICKHOUSE_URL"),
    }
    every: tuple[Server, ...] = (kafka, postgres, clickhouse)
    servers = tuple(s for s in every if s.name not in without and not elsewhere[s.name])
    addresses = Addresses(
        kafka=elsewhere["kafka"] or kafka.address,
        postgres=elsewhere["postgres"] or postgres.url(),
        clickhouse=elsewhere["clickhouse"] or clickhouse.url(),
        gateway=env.get("FW_GATEWAY_LISTEN") or f"{HOST}:{ports.gateway}",
        balancer=env.get("FW_BALANCER_LISTEN") or f"{HOST}:{ports.balancer}",
        ingress=env.get("FW_INGRESS_LISTEN") or f"{HOST}:{ports.ingress}",
        ingress_tls=env.get("FW_INGRESS_TLS_LISTEN") or f"{HOST}:{ports.ingress_tls}",
        edge=env.get("FW_EDGE_LISTEN") or f"{HOST}:{ports.edge}",
    )
    # The caller's environment first: what it says about topics, logs and tracing holds for every process.
    common = {
        **env,
        MARK: str(directory.root),
        "FW_DATA_DIR": str(directory.root),
        "FW_KAFKA_BOOTSTRAP": addresses.kafka,
        "FW_POSTGRES_URL": addresses.postgres,
        "FW_CLICKHOUSE_URL": addresses.clickhouse,
        "FW_SECRET_KEY": env.get("FW_SECRET_KEY") or secrets.secret_key,
        "FW_OPERATOR_TOKEN": env.get("FW_OPERATOR_TOKEN") or secrets.operator_token,
        "FW_GATEWAY_LISTEN": addresses.gateway,
        "FW_BALANCER_LISTEN": addresses.balancer,
        "FW_INGRESS_LISTEN": addresses.ingress,
        "FW_INGRESS_TLS_LISTEN": addresses.ingress_tls,
        "FW_EDGE_NODE_ID": env.get("FW_EDGE_NODE_ID") or "edge-1",
        "FW_ARCHIVE_URL": env.get("FW_ARCHIVE_URL") or str(directory.root / "archive"),
        "FW_METRICS_PORT": "0",
        # a process that was killed is replaced at once; its successor waits for this
        "FW_KAFKA_SESSION_SECONDS": env.get("FW_KAFKA_SESSION_SECONDS") or ("6" if elsewhere["kafka"] else "3"),
        # In a cluster of our own nobody else can bear it: who is restarted gets its partitions back at once.
        "FW_GROUP_INSTANCE": env.get("FW_GROUP_INSTANCE") or ("" if elsewhere["kafka"] else "only"),
    }
    started = {s.name for s in servers}
    jobs = (
        Job("topics", "infra.supervisor.jobs", ("topics",), common, tuple(started & {"kafka"})),
        Job("migrations", "infra.supervisor.jobs", ("migrations",), common, tuple(started & {"postgres"})),
    )
    ours = [p for p in _processes(directory, ports, addresses, common, started) if p.name.split("-")[0] not in without]
    return Plan(directory, ports, addresses, secrets, servers, jobs, tuple(ours), common)


def _processes(
    directory: Directory, ports: Ports, addresses: Addresses, common: Mapping[str, str], started: set[str]
) -> list[Process]:
    made = ("topics", "migrations", *sorted(started & {"clickhouse"}))

    def worker(name: str, module: str, args: tuple[str, ...], metrics_port: int) -> Process:
        base = f"http://{HOST}:{metrics_port}"
        env = {**common, "FW_METRICS_PORT": str(metrics_port)}
        return Process(name, module, args, env, made, f"{base}/readyz", f"{base}/metrics")

    edge_env = {
        **{key: value for key, value in common.items() if key not in WITHHELD},
        "FW_EDGE_LISTEN": addresses.edge,
        "FW_EDGE_INGRESS": addresses.ingress,
        "FW_EDGE_STATE_DIR": str(directory.edge),
        "FW_EDGE_CREDENTIAL_FILE": str(directory.edge_credential),
    }
    return [
        worker("commands", "commands", (), ports.commands_metrics),
        worker("reactors", "commands.reactors", (), ports.reactors_metrics),
        *(
            worker(f"projections-{name}", "projections", (name,), ports.projection_metrics(n))
            for n, name in enumerate(PROJECTIONS)
        ),
        worker("archive", "infra.processes.archive", (), ports.archive_metrics),
        worker("policy", "infra.processes.policy", (), ports.policy_metrics),
        worker("ingress", "infra.processes.ingress", (), ports.ingress_metrics),
        door("gateway", "gateway", common, made, addresses.gateway),
        door("edge", "edge_agent", edge_env, (), addresses.edge),
    ]


def door(name: str, module: str, env: Mapping[str, str], after: tuple[str, ...], address: str) -> Process:
    """A process that serves HTTP for others, its own readiness and metrics too, on a socket that outlives it."""
    base = f"http://{address}"
    return Process(name, module, (), env, after, f"{base}/readyz", f"{base}/metrics", listen=address)


def answers(url: str, timeout_seconds: float = 2.0) -> bool:
    """Whether a GET is answered with 200."""
    _, _, address, path = url.split("/", 3)
    connection = http.client.HTTPConnection(address, timeout=timeout_seconds)
    try:
        connection.request("GET", f"/{path}")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def environment() -> dict[str, str]:
    """The caller's environment without what a surrounding stack may have put there."""
    return {key: value for key, value in os.environ.items() if key not in (MARK, "FW_STACK_PART", "FW_METRICS_PORT")}
