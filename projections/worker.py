"""The process of one projection: a Faust app that hands batches to a store, with metrics, readiness, logs and traces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Final, assert_never

from opentelemetry import propagate
from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from projections import halts
from projections.dead_letters import DeadLetters
from projections.model import TP, ConsumerRecord, FactProjection, Store, TableProjection
from projections.platform import connect
from projections.postgres_store import PostgresStore
from projections.rebuild.first import ensure
from streams.faust_batches.app import BatchApp, run
from streams.faust_batches.fetched import Halted
from streams.settings import Settings
from streams.telemetry import bind, log, serve_metrics, tracer

LINGER_SECONDS: Final = 0.1
"""How long facts for ClickHouse collect when the worker is not behind: a block of one costs the engine as much as of hundreds."""
EVENTS = Counter("fw_projection_events_total", "Records that the store has taken", ["projection", "topic"])
BATCH_SECONDS = Histogram(
    "fw_projection_batch_seconds",
    "From a batch to its commit",
    ["projection"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


def projection_of(name: str) -> TableProjection | FactProjection:
    """What the module of this name says its projection is."""
    found: TableProjection | FactProjection = import_module(f"projections.{name}").PROJECTION
    return found


async def open_store(projection: TableProjection | FactProjection, settings: Settings) -> Store:
    """A store whose tables exist. Raises Halted when a person has to do something first."""
    pool = await connect(settings.postgres_url)
    await ensure(pool, projection, settings)
    letters = DeadLetters(projection.name, settings.topics, settings.kafka, pool)
    match projection:
        case TableProjection():
            store = PostgresStore(projection, settings.topics, pool, letters)
            await store.prepare()
            return store
        case FactProjection():
            from projections.clickhouse_store import open_store as open_clickhouse  # a client that half of us does not need

            return await open_clickhouse(projection, settings, pool, letters)
        case _:
            assert_never(projection)


class Worker:
    """One projection's app and its store, which is opened inside of the app's event loop."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.projection, self.settings = projection_of(name), settings
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._metrics: asyncio.Server | None = None
        self._halted: set[TP] = set()  # where a worker before us stood still, until we have passed it
        group = f"{settings.topics.prefix}projection-{name}-v{self.projection.version}"
        match self.projection:
            case FactProjection(batch_bytes=size):
                records, linger_seconds = 50_000, LINGER_SECONDS
            case TableProjection(linger_seconds=linger_seconds):
                records, size = 10_000, 4 << 20
        self.app = BatchApp(
            group,
            kafka=settings.kafka,
            load_offsets=self.load_offsets,
            session_seconds=settings.kafka_session_seconds,
            instance=settings.group_instance,
            started=self._serve,
            stopped=self._close,
            max_records=records,
            max_bytes=size,
            linger_seconds=linger_seconds,
        )
        self.app.batches([getattr(settings.topics, topic).name for topic in self.projection.topics], self.handle)
        REGISTRY.register(_Positions(name, self.app, self._halted))

    def run(self) -> None:
        """Until SIGTERM or a failure; never returns."""
        with bind(projection=self.projection.name):
            run(self.app)

    async def _serve(self) -> None:
        self._metrics = await serve_metrics(self.settings.metrics_port, lambda: self.app.positioned, self.settings.metrics_host)
        try:
            await self.store()  # before partitions are assigned: filling a first build may take long
        except Exception as error:
            self.app.failed("the projection cannot start", error)
            raise

    async def _close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def store(self) -> Store:
        async with self._opening:
            if self._store is None:
                name = self.projection.name
                try:
                    self._store = await open_store(self.projection, self.settings)
                except Halted as halted:
                    await halts.remember_start(self.settings.postgres_url, name, str(halted))
                    raise
                self._halted.update(await halts.left_behind(self._store.pool, name))
            return self._store

    async def load_offsets(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        return await (await self.store()).load_offsets(tps)

    async def handle(self, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        store = await self.store()
        began_ns = time.time_ns()
        with BATCH_SECONDS.labels(self.projection.name).time():
            try:
                await store.apply(tp, records)
            except Halted as halted:
                await halts.remember(store.pool, self.projection.name, tp, str(halted))
                raise
        if tp in self._halted:
            await halts.forget(store.pool, self.projection.name, tp)
            self._halted.discard(tp)
        EVENTS.labels(self.projection.name, tp.topic).inc(len(records))
        if self.settings.otel_endpoint:
            _trace(self.projection.name, records, began_ns)
        log(__name__).debug(
            "batch stored", topic=tp.topic, partition=tp.partition, records=len(records), offset=records[-1].offset
        )


def _trace(projection: str, records: Sequence[ConsumerRecord], began_ns: int) -> None:
    """One span in each trace that a record of the batch belongs to."""
    parents = {value for record in records for name, value in record.headers if name == "traceparent"}
    for parent in parents:
        context = propagate.extract({"traceparent": parent.decode("ascii", "replace")})
        tracer.start_span(f"projection {projection}", context, start_time=began_ns).end()


class _Positions(Collector):
    """Where the projection stands, read when somebody asks."""

    def __init__(self, projection: str, app: BatchApp, halted: Collection[TP]) -> None:
        self.projection, self.app, self.halted = projection, app, halted

    def collect(self) -> Iterable[Metric]:
        labels = ["projection", "topic", "partition"]
        lag = GaugeMetricFamily("fw_projection_lag_records", "Offsets between the store and the end of the topic", labels=labels)
        offset = GaugeMetricFamily("fw_projection_next_offset", "The offset that the store waits for", labels=labels)
        for tp, behind in self.app.lag().items():
            of = [self.projection, tp.topic, str(tp.partition)]
            lag.add_metric(of, behind)
            offset.add_metric(of, self.app.handled.get(tp, 0))
        stands = GaugeMetricFamily("fw_projection_halted", "1: stands still until a person acts (fw doctor)", labels=labels)
        for tp in list(self.halted):
            stands.add_metric([self.projection, tp.topic, str(tp.partition)], 1)
        return [lag, offset, stands]
