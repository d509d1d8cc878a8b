"""A Faust app whose agents get whole batches.

    app = BatchApp("projection-streams", kafka="localhost:9092", load_offsets=store.load_offsets)
    app.batches(["fw.decisions"], store.apply)     # raise, and the process exits
    run(app)

Invariant: a handler gets the records of a partition in order, one batch at a time, from the position that `load_offsets` gave.
A handler that raises ends the process: the next one starts at the stored position. Kafka's committed offset is a display.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import faust
from faust.tables.manager import TableManager
from mode import CrashingSupervisor, Service

from streams.batch_process import tune
from streams.errors import Superseded
from streams.faust_batches.fetched import TP, ConsumerRecord, Halted
from streams.faust_batches.transport import EXIT_SUPERSEDED, Batch, BatchConsumer, BatchTransport, left_group
from streams.faust_batches.watchdog import Progress, watch
from streams.telemetry import log

EXIT_CRASHED: Final = 70
EXIT_STALLED: Final = 75

LoadOffsets = Callable[[Collection[TP]], Awaitable[Mapping[TP, int | None]]]
Handle = Callable[[TP, Sequence[ConsumerRecord]], Awaitable[None]]


class NoTables(TableManager):
    """Faust resumes its streams through the manager of tables, which sleeps a second first, for tables that we do not have."""

    async def on_start(self) -> None:
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class BatchApp(faust.App):
    """One app per projection: a slow handler holds back its own app and nobody else."""

    mundane_level = "debug"  # its own "Starting…" and "Stopping…"

    def __init__(
        self,
        id: str,
        *,
        kafka: str,
        load_offsets: LoadOffsets,
        max_records: int = 10_000,
        max_bytes: int = 4 << 20,
        linger_seconds: float = 0.0,
        stall_seconds: float = 60.0,
        drain_seconds: float = 10.0,
        exit_seconds: float = 2.0,
        session_seconds: float = 6.0,
        instance: str | None = None,
        started: Callable[[], Awaitable[None]] | None = None,
        stopped: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.load_offsets, self.when_started, self.when_stopped = load_offsets, started, stopped
        self.max_records, self.max_bytes, self.linger_seconds = max_records, max_bytes, linger_seconds
        self.stall_seconds, self.drain_seconds, self.exit_seconds = stall_seconds, drain_seconds, exit_seconds
        self.handled: dict[TP, int] = {}  # next offset that the store waits for
        self.delivered: dict[TP, int] = {}  # next offset that Faust waits for
        self.seen: Progress | None = None  # looked at once a second
        self.seeks = 0
        self.positioned = False  # assigned, and standing where the store said
        self._has_left = False  # the group, without a way back
        self.exit_code = EXIT_CRASHED
        self.fetching = asyncio.Lock()
        self._busy = asyncio.Lock()
        super().__init__(
            id,
            broker=";".join(f"kafka://{server}" for server in kafka.split(",")),
            broker_session_timeout=session_seconds,
            # With a name that outlives the process, who was killed gets its partitions back at once, instead of when the
            # broker has missed its heartbeats; whoever bore the name before is fenced by the broker.
            consumer_group_instance_id=instance and f"{id}-{instance}",
            TableManager=NoTables,
            broker_heartbeat_interval=min(session_seconds / 5, 3.0),
            broker_max_poll_interval=600.0,
            broker_request_timeout=max(20.0, session_seconds + 5),
            stream_buffer_maxsize=2,  # BATCHES that wait for the agent; the default is 4096
            topic_disable_leader=True,
            topic_allow_declare=False,
            web_enabled=False,
            datadir=os.path.join(tempfile.gettempdir(), f"faust-{id}"),
            value_serializer="raw",
            key_serializer="raw",
        )
        self.on_partitions_revoked.connect(self._drain)

    def _new_transport(self) -> Any:
        return BatchTransport(self.conf.broker, self, loop=self.loop)

    @property
    def batch_consumer(self) -> BatchConsumer | None:
        """None until Faust has made it."""
        return cast("BatchConsumer | None", self._consumer)

    def batches(self, topics: Sequence[str], handle: Handle) -> None:
        """`handle` gets every non-empty batch of the topics."""
        topic = self.topic(*topics, value_serializer="raw", key_serializer="raw", acks=False)

        async def deliver(stream: Any) -> None:  # Faust's own type of it lacks noack()
            async for event in stream.noack().events():
                batch = cast(Batch, event.value)
                if batch.epoch == self.seeks:  # else it is from before a seek, and comes again
                    await self._handle(handle, TP(*event.message.tp), batch.records)

        self.agent(topic, supervisor_strategy=CrashingSupervisor, name=f"{self.conf.id}.deliver")(deliver)

    async def _handle(self, handle: Handle, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        try:
            async with self._busy:
                await handle(tp, records)
        except Exception as error:
            offsets = f"{records[0].offset}..{records[-1].offset}"
            self.failed(f"batch {offsets} of {tp.topic}/{tp.partition} failed: the process exits", error)
            raise
        self.handled[tp] = records[-1].offset + 1

    def failed(self, what: str, error: BaseException) -> None:
        """Says it, and sees to it that the process ends with the right code."""
        self.exit_code = EXIT_SUPERSEDED if isinstance(error, Superseded) else EXIT_CRASHED
        foreseen = isinstance(error, Superseded | Halted)
        log(__name__).error(what, reason=str(error), exit_code=self.exit_code, exc_info=None if foreseen else error)
        for echo in ("faust", "mode", "aiokafka"):  # what they say from here on is only the noise of the end
            logging.getLogger(echo).setLevel(logging.CRITICAL + 1)
        # CrashingSupervisor ends the worker; this is the belt to its braces.
        exit_after(self.exit_seconds, self.exit_code)

    def resumed(self, where: Mapping[TP, int]) -> None:
        """The consumer stands at these positions."""
        self.handled = dict(where)
        self.delivered = dict(where)
        self.positioned = True
        log(__name__).info("positioned", at={f"{tp.topic}/{tp.partition}": offset for tp, offset in sorted(where.items())})

    def lag(self) -> Mapping[TP, int]:
        """How many offsets each partition is behind, as of the last second; 0 where only control records follow."""
        seen, handled = self.seen, self.handled.copy()
        if seen is None:
            return dict.fromkeys(handled, 0)
        now = replace(seen, handled=handled, delivered=self.delivered)
        return {tp: max(1, seen.ends.get(tp, at) - at) if now.is_behind(tp) else 0 for tp, at in handled.items()}

    async def _drain(self, *_: Any, **_named: Any) -> None:
        """Revocation: lets the batch in hand reach the store before the next owner reads its position."""
        self.positioned = False
        try:
            await asyncio.wait_for(self._busy.acquire(), self.drain_seconds)
            self._busy.release()
        except TimeoutError:
            log(__name__).warning("a batch still runs at revocation: the store's compare-and-set decides")

    @Service.task
    async def _display_lag(self) -> None:
        shown: dict[TP, int] = {}
        while not self.should_stop:
            await self.sleep(1.0)
            news = {tp: offset for tp, offset in self.handled.items() if shown.get(tp) != offset}
            consumer = self.batch_consumer
            if news and consumer is not None and not self.rebalancing:
                await consumer.thread.call_thread(consumer.thread.commit_display, news)
                shown.update(news)

    async def on_first_start(self) -> None:
        threading.Thread(
            target=watch, args=(self._progress, self.stall_seconds, EXIT_STALLED), daemon=True, name="watchdog"
        ).start()
        if self.when_started:
            await self.when_started()
        await super().on_first_start()

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        if self.when_stopped:
            await self.when_stopped()

    def _progress(self) -> Progress | None:
        """Called by the watchdog's thread once a second. None: nothing is assigned yet."""
        consumer = self.batch_consumer
        kafka = getattr(consumer and consumer.thread, "_consumer", None)
        if kafka and not self.should_stop and (error := left_group(kafka)) and not self._has_left:
            self._has_left = True
            self.failed("no member of the group any more: the process exits", error)
        tps = [TP(*tp) for tp in kafka.assignment()] if kafka else []
        if consumer is None or not tps:
            return None

        async def ask() -> tuple[Mapping[TP, int], Mapping[TP, int]]:
            return await asyncio.wait_for(consumer.thread.ends_and_fetched(tps), 5)

        question = ask()
        try:
            asked = asyncio.run_coroutine_threadsafe(question, consumer.thread.thread_loop)
        except RuntimeError:  # the loop is closed: the worker stops
            question.close()
            return None
        try:
            ends, fetched = asked.result(6)
        except Exception:  # noqa: BLE001 - whatever the reason: the silence of the broker counts as no progress
            return Progress(tps, {}, {}, self.handled, self.delivered)
        self.seen = Progress(tps, ends, fetched, self.handled, self.delivered)
        return self.seen


BatchApp.logger = logging.getLogger("faust.app")  # Mode would name it after this module


def exit_after(seconds: float, code: int) -> None:
    """Ends the process, whatever its threads do by then."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


def run(app: BatchApp) -> None:
    """Runs a worker until SIGTERM (exit 0), a failure (70), a stall (75) or until it is superseded (3)."""
    tune()
    worker = faust.Worker(app, loglevel=None, redirect_stdouts=False, override_logging=False, quiet=True)
    worker.spinner = None  # it writes escape codes between our lines of JSON
    try:
        worker.execute_from_commandline()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else EXIT_CRASHED
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if code == 0 else app.exit_code)  # an interpreter that shuts down may hang on threads
