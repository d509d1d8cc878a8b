"""An edge node's real journal and uplink over a disk that loses power, and the real ingress over a Kafka that loses answers.

Invariant: a fact whose trigger was answered as durable is on the log at least once; the first times of a stream's facts are in
the order in which they were written; and whatever stands on the log was said by somebody.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID

from edge_agent.journal import RETRY_SECONDS, Journal
from edge_agent.journal_file import Answer, TriggerRows, Write
from edge_agent.policy import PolicyTable
from edge_agent.uplink import Uplink
from projections import stream_health
from projections.model import TP
from streams.codec import decode, encode
from streams.generated import BufferChanged, BufferState, Meta
from streams.ids import NAMESPACE, derive
from streams.ingress.client import Publisher
from streams.ingress.credentials import issue
from streams.topics import Topics, partition_of
from tests.sim.cluster import SimCluster
from tests.sim.command_model import Wrong
from tests.sim.loop import BEGINNING, Process, SimLoop
from tests.sim.stores.clean import clean
from tests.sim.stores.disk import Disk
from tests.sim.stores.history import History
from tests.sim.stores.ingress import SECRET_KEY, IngressServer

Step = tuple[str | int, ...]
TENANT: Final = derive(NAMESPACE, "simulated tenant", 0)
STREAMS: Final = tuple(derive(TENANT, "stream", n) for n in range(2))


class SteppedJournal(Journal):
    """Its writer's turns are steps of the process instead of a thread's; its file lies on a simulated disk."""

    disk: Disk

    def _connect(self) -> sqlite3.Connection:
        return self.disk.connect(self.file)

    def _begin_writing(self) -> None:
        """There is no thread."""

    def write(self, write: Write) -> None:
        self._waiting.append(write)
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        group, self._waiting = self._waiting, []
        if group or self._carried:
            self._commit(group)
        if self._carried:
            self._loop.call_later(RETRY_SECONDS, self._turn)


class SimUplink(Uplink):
    """Its channel is the simulator's."""

    open_channel: Callable[[str, object], object]

    def _publisher(self) -> Publisher:
        return Publisher(self._address, self._credential, channel=self.open_channel)  # type: ignore[arg-type]


class EdgeRun:
    def __init__(self, seed: int, journal: type[SteppedJournal] = SteppedJournal) -> None:
        self.seed, self._journal_type = seed, journal
        self.steps: list[Step] = []
        self.story: list[str] = []
        self.topics = Topics("sim.")
        self.loop = SimLoop(seed)
        random.seed(seed)  # of the pauses between attempts to connect
        self.kafka = SimCluster(self.loop)
        self.kafka.create_topics(self.topics)
        self.ingress = IngressServer(self.loop, self.kafka, self.topics)
        self.home = Path(tempfile.mkdtemp(prefix="edge-"))
        self._lives: list[tuple[Process, SteppedJournal]] = []
        self._credential = issue(SECRET_KEY, "edge-1", [TENANT], BEGINNING)
        self.said: list[tuple[UUID, UUID]] = []  # event and stream, in the order in which they were said
        self.durable: dict[UUID, bool] = {}
        self.ingress.start()
        self._begin(Disk(), self.home / "0")

    def do(self, *step: str | int) -> None:
        self.steps.append(step)
        name, *arguments = step
        getattr(self, f"step_{name}")(*arguments)
        self.loop.run_for(0.01)
        self._require()

    @property
    def _life(self) -> tuple[Process, SteppedJournal]:
        return self._lives[-1]

    def _begin(self, disk: Disk, home: Path) -> None:
        process = self.loop.process(f"edge {len(self._lives) + 1}")
        journal = self._journal_type(home / "journal.db")
        journal.disk = disk
        self._lives.append((process, journal))

        async def run() -> None:
            journal.open()
            uplink = SimUplink(journal, PolicyTable(), "ingress", lambda: self._credential)
            uplink.open_channel = self.ingress.open_channel
            await uplink.publish()

        self._publishing = process.start(run())
        self.loop.run_for(0.001)

    # steps

    def step_say(self, stream: int, count: int) -> None:
        """Triggers come in, each with a fact."""
        process, journal = self._life
        if process.is_frozen or not hasattr(journal, "_loop"):
            return
        for _ in range(count):
            n = len(self.said)
            event_id, about = derive(NAMESPACE, "edge event", n), STREAMS[stream]
            meta = Meta(event_id, TENANT, about, 0, event_id, event_id, BEGINNING, "node:edge-1")
            value = encode(BufferChanged(node_id="edge-1", state=BufferState.FULL, buffer_ms=n), meta)
            self.said.append((event_id, about))
            told = self._told(event_id)
            rows = TriggerRows(((value, None),), (), Answer(event_id.bytes, "true", 0), told)

            async def write(rows: TriggerRows = rows) -> None:
                journal.write(rows)

            process.start(write())
        self._tell(f"{count} triggers come, about stream {stream + 1}")

    def _told(self, event_id: UUID) -> Callable[[bool], None]:
        def told(is_durable: bool) -> None:
            self.durable[event_id] = is_durable

        return told

    def step_kill(self) -> None:
        self._tell("the edge agent is killed and starts again")
        self._restart(lambda disk, old, new: disk.after_kill(old, new), Disk())

    def step_power_loss(self, torn_bytes: int) -> None:
        self._tell("the machine loses power and starts again")
        self._restart(lambda disk, old, new: disk.after_power_loss(old, new, torn_bytes), Disk())

    def _restart(self, leave: Callable[[Disk, Path, Path], None], disk: Disk) -> None:
        process, journal = self._life
        process.kill()
        self.ingress.cut()
        home = self.home / str(len(self._lives))
        leave(journal.disk, journal.file.parent, home)
        _close(journal)  # whatever that still writes is written to what nobody reads any more
        disk.durable = {p.name: p.read_bytes() for p in home.iterdir()}
        self._begin(disk, home)

    def step_full(self, is_full: int) -> None:
        self._life[1].disk.is_full = bool(is_full)
        self._tell("the disk is full" if is_full else "the disk has room again")

    def step_freeze(self) -> None:
        self._life[0].freeze()
        self._tell("the edge agent is frozen")

    def step_wake(self) -> None:
        self._life[0].wake()
        self._tell("the edge agent wakes up")

    def step_cut(self) -> None:
        self.ingress.cut()
        self._tell("the connection to the ingress breaks")

    def step_mute(self) -> None:
        self.ingress.mute()
        self._tell("acknowledgements of the ingress are lost until it breaks")

    def step_ingress_dies(self) -> None:
        self.ingress.kill()
        self.ingress.start()
        self._tell("the ingress is killed and starts again")

    def step_kafka(self, lose_request: int, lose_answer: int) -> None:
        faults = self.kafka.network.faults
        faults.lose_request, faults.lose_answer = lose_request / 100, lose_answer / 100
        self._tell(f"Kafka loses {lose_request}% of requests and {lose_answer}% of answers")

    def step_time(self, seconds: int) -> None:
        self.loop.run_for(seconds)
        self._tell(f"{seconds} s pass")

    # what must hold

    def _require(self) -> None:
        if self._publishing.done() and not self._life[0].is_killed and not self._publishing.cancelled():
            raise Wrong(f"the uplink ended itself: {self._publishing.exception()!r}")

    def settle(self) -> None:
        self.kafka.network.faults.heal()
        self._life[0].wake()
        self._life[1].disk.is_full = False
        self.ingress.cut()
        self._tell("everything heals")
        self.loop.run_for(3)
        _, journal = self._life
        self.loop.run_until(lambda: not journal.after(0, 1, 1 << 20, 0), 300)
        self._require()
        self.check()

    def check(self) -> None:
        on_log = {tp: self._log(tp) for tp in sorted({TP(self.topics.facts.name, partition_of(s)) for s in STREAMS})}
        first: dict[UUID, list[UUID]] = {stream: [] for stream in STREAMS}
        for records in on_log.values():
            for _, _, value in records:
                meta = decode(value)[1]
                if meta.event_id not in first[meta.aggregate_id]:
                    first[meta.aggregate_id].append(meta.event_id)
        for stream, events in first.items():
            said = [event for event, about in self.said if about == stream]
            if [event for event in said if event in set(events)] != events:
                raise Wrong(f"facts of stream {STREAMS.index(stream) + 1} are out of order, or nobody said them")
            if lost := [event for event in said if self.durable.get(event) and event not in set(events)]:
                raise Wrong(f"{len(lost)} facts whose triggers were answered as durable are not on the log")
        history = History(self.kafka.broker, self.topics, on_log)
        shown = [row["event_id"] for row in clean(stream_health.PROJECTION, history, None)]
        if sorted(map(str, shown)) != sorted(str(event) for events in first.values() for event in events):
            raise Wrong("a projection does not show each fact exactly once")

    def _log(self, tp: TP) -> list[tuple[int, int, bytes]]:
        return [(e.offset, e.timestamp_ms, e.value or b"") for e in self.kafka.broker.log(*tp).read(committed=True)]

    def _tell(self, sentence: str) -> None:
        self.story.append(f"{self.loop.time():8.3f} s  {sentence}")

    def program(self) -> str:
        return json.dumps(["edge", self.seed, *self.steps], separators=(",", ":"))

    def digest(self) -> str:
        return repr((self.story, self.durable, [self._log(TP(self.topics.facts.name, p)) for p in range(12)]))

    def end(self) -> None:
        self.kafka.network.faults.heal()
        self.loop.end()
        for _, journal in self._lives:
            _close(journal)
        shutil.rmtree(self.home)


def _close(journal: SteppedJournal) -> None:
    if hasattr(journal, "_reader"):
        journal._reader.close()
        journal._connection.close()


def told(run: EdgeRun) -> str:
    lines = "\n".join(run.story)
    return f"What happened:\n{lines}\nTo see it again:\n  python -m tests.sim.stores '{run.program()}'"


def replay(program: str, journal: type[SteppedJournal] = SteppedJournal) -> EdgeRun:
    """The run that `program` wrote down, to its end. Raises Wrong, with the story as a note."""
    _, seed, *steps = json.loads(program)
    run = EdgeRun(seed, journal)
    try:
        for step in steps:
            run.do(*step)
        run.settle()
    except AssertionError as error:
        error.add_note(told(run))
        raise
    finally:
        run.end()
    return run
