"""The ingress process: the gRPC server, one producer, and the policy topic's reader behind it.

Facts are taken as soon as Kafka answers; the process calls itself ready when the policy is current too.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer  # what `health.aio` is
from grpc_reflection.v1alpha import reflection

from projections.node_feed import NodeFeed
from streams.ingress.append import Appender
from streams.ingress.ingress_pb2 import DESCRIPTOR
from streams.ingress.ingress_pb2_grpc import add_IngressServicer_to_server
from streams.ingress.leases import IngestLeases
from streams.ingress.limits import SERVER_OPTIONS
from streams.ingress.policy_feed import PolicyFeed
from streams.ingress.server import Ingress
from streams.ingress.transport import server_credentials
from streams.kafka import idempotent_producer, reader
from streams.pki.authority import NoAuthority, load
from streams.policy_signing import public_key
from streams.privacy.intake import Intake
from streams.privacy.key_store import KeyStore
from streams.settings import Settings, SettingsError, read_settings
from streams.telemetry import configure, log, serve_metrics

SERVICE = DESCRIPTOR.services_by_name["Ingress"].full_name
STOP_SECONDS = 10.0

logger = log(__name__)


class CannotListen(Exception):
    """The address is not to be had."""


@dataclass(frozen=True, slots=True)
class Running:
    """An ingress that listens."""

    port: int
    tls_port: int  # where nodes show certificates; 0: nowhere
    appender: Appender
    policy: PolicyFeed
    leases: IngestLeases
    nodes: NodeFeed

    async def ready(self) -> None:
        """Returns when facts are taken and the policy is current."""
        await self.appender.ready.wait()
        await self.policy.caught_up.wait()
        await self.nodes.caught_up.wait()


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """An ingress for as long as the block runs. Ending it in order:

    1. no new calls; open ones stop reading, and answer what they have read
    2. the producer sends what is left
    A part that fails ends the block with its error.
    """
    appender = Appender(lambda: idempotent_producer(settings.kafka, "ingress"))
    policy = PolicyFeed(lambda: reader(settings.kafka, "ingress-policy"), settings.topics, public_key(settings.secret_key))
    store = KeyStore(settings)
    intake = Intake(store, settings.secret_key, settings.privacy_days)
    nodes = NodeFeed(lambda: reader(settings.kafka, "ingress-nodes"), settings.topics)
    leases = IngestLeases(settings.postgres_url, policy)
    ingress = Ingress(appender, policy, settings.topics, settings.secret_key, intake, leases, nodes)
    healthy = HealthServicer()
    server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=10_000)
    add_IngressServicer_to_server(ingress, server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(str(settings.ingress))
    except RuntimeError as error:
        raise CannotListen(f"cannot listen on {settings.ingress}: is the port taken by another process?") from error
    tls_port = 0
    if settings.authority is not None:
        try:
            tls_port = server.add_secure_port(str(settings.ingress_tls), server_credentials(load(*settings.authority)))
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {settings.ingress_tls}: is the port taken by another process?") from error
    async with asyncio.TaskGroup() as parts:
        tasks = [
            parts.create_task(appender.run(), name="appender"),
            parts.create_task(policy.run(), name="policy"),
            parts.create_task(nodes.run(), name="nodes"),
            parts.create_task(intake.run(), name="intake"),
            parts.create_task(leases.run(), name="leases"),
            parts.create_task(_report(healthy, appender, policy), name="health"),
        ]
        await server.start()
        try:
            yield Running(port, tls_port, appender, policy, leases, nodes)
        finally:
            await healthy.enter_graceful_shutdown()
            ingress.stopping.set()
            await server.stop(STOP_SECONDS)
            for task in tasks:
                task.cancel()
            await store.close()
            await leases.close()


async def _report(healthy: HealthServicer, appender: Appender, policy: PolicyFeed) -> None:
    """Keeps the health service true."""
    for service in ("", SERVICE):
        await healthy.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
    await policy.caught_up.wait()
    while True:
        await appender.ready.wait()
        for service in ("", SERVICE):
            await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
        await appender.failed.wait()
        for service in ("", SERVICE):
            await healthy.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings) as ingress:

        def ready() -> bool:
            is_current = ingress.policy.caught_up.is_set() and ingress.nodes.caught_up.is_set() and ingress.nodes.problem is None
            return ingress.appender.ready.is_set() and is_current

        metrics = await serve_metrics(settings.metrics_port, ready, settings.metrics_host)
        logger.info("ingress listens", port=ingress.port, tls_port=ingress.tls_port or None)
        await stop.wait()
        logger.info("ingress stops")
        if metrics is not None:
            metrics.close()


def main() -> int:
    try:
        settings = read_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    configure("ingress", settings)
    try:
        asyncio.run(run(settings))
    except (CannotListen, NoAuthority) as error:
        logger.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
