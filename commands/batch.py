"""A batch of command records becomes the lines of one transaction. The only place that knows both bytes and rules.

Invariant: every record of the batch leaves a trace: an outcome, or a dead letter. No record stops the line, whatever it holds,
but one whose schema only a newer platform knows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiokafka import ConsumerRecord

from commands import metrics
from commands.answers import FAILED
from commands.dead_letters import dead_letter
from commands.lines import Line
from commands.state import Handled, PartitionState, reject
from streams import telemetry
from streams.codec import NewerSchema, decode, encode, headers
from streams.errors import Invalid, Rejected
from streams.fingerprint import fingerprint
from streams.generated import Command, CommandStatus, Event, Meta

log = telemetry.log(__name__)

COMMANDS_PER_TURN: Final = 50  # about two milliseconds


class NewerCommand(Exception):
    """A command of a newer platform: nothing is wrong with it. The line stops here until that version runs."""


@dataclass(slots=True)
class Written:
    """What a transaction will hold."""

    decisions: list[Line] = field(default_factory=list)
    dead_letters: list[Line] = field(default_factory=list)
    results: Counter[str] = field(default_factory=Counter)
    events: int = 0
    commands: int = 0
    position: int = 0  # on the command partition, after the last of them

    def count(self) -> None:
        """Tells the metrics; once the transaction is committed."""
        for result, n in self.results.items():
            metrics.commands.labels(result).inc(n)
        metrics.batch_size.observe(self.commands)
        metrics.events.inc(self.events)
        metrics.dead_letters.inc(len(self.dead_letters))


async def decide_batch(state: PartitionState, records: Sequence[ConsumerRecord], written: Written, now: datetime) -> None:
    """Decides records in their order, takes the results into the state and adds them to what will be written.

    Others get their turn in between: the transaction before this one, the heartbeat, the other partitions.
    """
    for n, record in enumerate(records, start=1):
        if n % COMMANDS_PER_TURN == 0:
            await asyncio.sleep(0)
        traceparent = _traceparent(record)
        if traceparent is None:
            _decide(state, record, now, None, written)
        else:
            with telemetry.continued("decide", traceparent):
                _decide(state, record, now, telemetry.traceparent() or traceparent, written)
    written.commands += len(records)
    written.position = records[-1].offset + 1


def _decide(state: PartitionState, record: ConsumerRecord, now: datetime, traceparent: str | None, written: Written) -> None:
    try:
        event, meta = decode(record.value or b"")
    except NewerSchema as error:
        raise NewerCommand(
            f"{record.topic}-{record.partition} at {record.offset}: {error} here. It is never skipped: run a version of the "
            "platform that knows it."
        ) from error
    except Exception as error:  # noqa: BLE001  # Invalid, or whatever else a reader stumbles over: poison either way
        _set_aside(record, error, written, "invalid")
        return
    try:
        handled = state.decide(event, meta, now)
        lines = _lines(handled, traceparent)
    except Invalid as error:
        _set_aside(record, error, written, "invalid")
        return
    except Exception as error:  # a bug of ours: the same command would end every successor, too
        log.exception("command cannot be decided", command_id=str(meta.event_id), tenant_id=str(meta.tenant_id))
        _set_aside(record, error, written, "failed")
        if isinstance(event, Command):
            written.decisions += _lines(_failed(event, meta), traceparent)
        return
    state.take(handled)
    written.decisions += lines
    written.events += len(handled.events)
    written.results[_result(handled)] += 1


def _set_aside(record: ConsumerRecord, error: Exception, written: Written, result: str) -> None:
    reason = f"{type(error).__name__}: {error}"
    log.warning("dead letter", reason=reason[:200], topic=record.topic, partition=record.partition, offset=record.offset)
    written.dead_letters.append(dead_letter(record, reason))
    written.results[result] += 1


def _failed(command: Command, meta: Meta) -> Handled:
    message = "This could not be decided, and nothing has changed: try again later, and report it with this command's id."
    return reject(command, meta, Rejected(FAILED, message), fingerprint(command, meta.aggregate_id))


def _result(handled: Handled) -> str:
    if handled.is_repeated:
        return "repeated"
    return "accepted" if handled.outcome.status is CommandStatus.ACCEPTED else "rejected"


def _lines(handled: Handled, traceparent: str | None) -> list[Line]:
    out: list[Line] = []
    key = handled.meta.tenant_id.bytes
    record: Event
    for record, meta in (*handled.events, (handled.outcome, handled.meta)):
        out.append(Line(key, encode(record, meta), headers(record, meta, traceparent)))
    return out


def _traceparent(record: ConsumerRecord) -> str | None:
    for name, value in record.headers:
        if name == "traceparent":
            return str(value, "latin-1")
    return None
