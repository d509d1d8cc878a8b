"""Facts that mean nothing: their original bytes go to the dead-letter topic, and the line goes on.

Invariants
* A letter is on the topic before the position passes it. A crash in between buries it again: readers tell by the headers.
* Decisions and facts that bills are computed from are never buried: a hole in them would be a wrong state, or a wrong bill, for
  ever. They stop the line. For a billing fact that is lost for good a person may open it (`fw dlq drop`), which leaves a trace.
* At most `cap` letters of a partition wait for somebody within a day; the next one stops the line instead of draining the topic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import asyncpg
from aiokafka import AIOKafkaProducer
from prometheus_client import Counter

from projections.model import Database
from streams.codec import MAGIC, PREFIX, NewerSchema, schema_id
from streams.errors import Invalid
from streams.faust_batches.fetched import TP, ConsumerRecord, Halted
from streams.kafka import idempotent_producer
from streams.registry import by_id, by_name
from streams.telemetry import log
from streams.topics import Topics

BURIED = Counter("fw_dead_letters_total", "Facts that a projection could not read", ["projection", "topic"])
CAP: Final = 1000
PREFIX_OF_HEADERS: Final = "dead_letter."

_BURY = """
INSERT INTO platform.dead_letter (projection, topic, partition, "offset", reason)
SELECT $1, $2, $3, * FROM unnest($4::bigint[], $5::text[]) ON CONFLICT DO NOTHING"""
_WAITING = """
SELECT count(*) FROM platform.dead_letter
WHERE projection = $1 AND topic = $2 AND partition = $3 AND state = 'buried' AND buried_at > now() - interval '1 day'"""
_KNOWN = """
SELECT "offset" FROM platform.dead_letter
WHERE projection = $1 AND topic = $2 AND partition = $3 AND "offset" = ANY($4::bigint[])"""
_DROPPED = """
SELECT "offset" FROM platform.dead_letter
WHERE projection = $1 AND topic = $2 AND partition = $3 AND "offset" = ANY($4::bigint[]) AND state = 'dropped'"""


@cache
def homes() -> Mapping[bytes, str]:
    """The topic (without an installation's prefix) that each schema's records lie on, by the first bytes of a value."""
    return {PREFIX.pack(MAGIC, r.id): str(r.schema["topic"]) for r in by_id().values() if "topic" in r.schema}


@cache
def billing() -> frozenset[str]:
    """Names of the facts that bills are computed from: their schema says so."""
    return frozenset(name for name, r in by_name().items() if r.schema.get("billing") is True)


def why_unreadable(value: bytes) -> Invalid:
    """What is wrong with a value whose framing is not one of this topic's."""
    try:
        number = schema_id(value)
    except Invalid as error:
        return error
    return Invalid(f"{by_id()[number].name} does not belong here: it lies on {homes().get(value[: PREFIX.size], 'no topic')}")


def halt_if_newer(tp: TP, unreadable: Sequence[tuple[ConsumerRecord, Invalid]]) -> None:
    """Raises Halted where a record is a newer platform's: it is good, and would be lost."""
    for record, reason in unreadable:
        if isinstance(reason, NewerSchema):
            raise Halted(
                f"{tp.topic}/{tp.partition} at {record.offset}: {reason} here. It is never skipped: run a version of the "
                "platform that knows it."
            )


async def halt_if_never_buried(
    db: Database, projection: str, topics: Topics, tp: TP, letters: Sequence[tuple[ConsumerRecord, str]]
) -> None:
    """Raises Halted where one of the unreadable records is a decision, or a billing fact that no person has given up."""
    if not letters:
        return
    home = tp.topic.removeprefix(topics.prefix)
    if tp.topic == topics.decisions.name:
        record, reason = letters[0]
        raise Halted(
            f"{tp.topic}/{tp.partition} at {record.offset}: a decision cannot be read: {reason}. Decisions are never "
            "skipped: run a version of the platform that knows its schema, or restore the record."
        )
    bills = [(record, reason) for record, reason in letters if _is_billing(record.value or b"", home)]
    if not bills:
        return
    rows = await db.fetch(_DROPPED, projection, tp.topic, tp.partition, [record.offset for record, _ in bills])
    dropped = {row["offset"] for row in rows}
    for record, reason in bills:
        if record.offset not in dropped:
            name = by_id()[schema_id(record.value or b"")].name
            raise Halted(
                f"{tp.topic}/{tp.partition} at {record.offset}: a {name} cannot be read, and bills are computed from it: "
                f"{reason}. It is never skipped: run a version of the platform that reads it. Where it is lost for good: "
                f"`fw dlq drop --projection {projection} --topic {home} --partition {tp.partition} "
                f"--offset {record.offset} --reason …`"
            )


class DeadLetters:
    """Where one projection buries what it cannot read; the connection to Kafka is made when first needed."""

    def __init__(self, projection: str, topics: Topics, kafka: str, pool: asyncpg.Pool[asyncpg.Record], cap: int = CAP) -> None:
        self.projection, self.topics, self.cap = projection, topics, cap
        self._kafka, self._pool = kafka, pool
        self._producer: AIOKafkaProducer | None = None

    async def bury(self, tp: TP, letters: Sequence[tuple[ConsumerRecord, str]]) -> None:
        """Sends records and why they are here. Call it before the position passes them.

        Raises Halted for what is never buried, and when more than `cap` letters of the partition came within a day and nobody
        looked at them: then it is us, not them.
        """
        if not letters:
            return
        await halt_if_never_buried(self._pool, self.projection, self.topics, tp, letters)
        async with self._pool.acquire() as db, db.transaction():
            offsets = [record.offset for record, _ in letters]
            known = {row["offset"] for row in await db.fetch(_KNOWN, self.projection, tp.topic, tp.partition, offsets)}
            fresh = [(record, reason) for record, reason in letters if record.offset not in known]
            waiting = await db.fetchval(_WAITING, self.projection, tp.topic, tp.partition)
            # Up to the cap they are buried even if the line stops then: what cannot be listed, nobody could settle.
            taken = fresh[: max(0, self.cap - waiting)]
            if taken:
                offsets = [record.offset for record, _ in taken]
                reasons = [reason.replace("\0", "\\0") for _, reason in taken]
                await db.execute(_BURY, self.projection, tp.topic, tp.partition, offsets, reasons)
                await self._send(tp, taken)  # before the commit: a row says that the letter is there
        if taken:
            BURIED.labels(self.projection, tp.topic).inc(len(taken))
            log(__name__).warning(
                "facts buried",
                topic=tp.topic,
                partition=tp.partition,
                count=len(taken),
                offset=taken[0][0].offset,
                reason=taken[0][1],
            )
        if len(taken) < len(fresh):
            record, reason = fresh[len(taken)]
            raise Halted(
                f"{tp.topic}/{tp.partition} at {record.offset}: {waiting + len(fresh)} unreadable facts within a day, the cap is "
                f"{self.cap}. The last reason: {reason}. Find what writes them (`fw dlq list --projection {self.projection}`), "
                "then `fw dlq retry` or `fw dlq drop` them: what is settled does not count."
            )

    async def _send(self, tp: TP, letters: Sequence[tuple[ConsumerRecord, str]]) -> None:
        if self._producer is None:
            self._producer = idempotent_producer(self._kafka, f"dead-letters-{self.projection}")
            await self._producer.start()
        topic = self.topics.dead_letters
        for record, reason in letters:
            about = {
                "projection": self.projection,
                "topic": tp.topic,
                "partition": str(tp.partition),
                "offset": str(record.offset),
                "reason": reason,
            }
            await self._producer.send_and_wait(
                topic.name,
                value=record.value,
                key=record.key or b"",  # the client refuses a record without key and value
                partition=tp.partition % topic.partitions,
                headers=[*record.headers, *((PREFIX_OF_HEADERS + name, text.encode()) for name, text in about.items())],
            )

    async def close(self) -> None:
        if self._producer is not None:
            await self._producer.stop()


def _is_billing(value: bytes, topic: str) -> bool:
    """Whether a value says that it is a billing fact, and lies where such facts are read from."""
    framing = value[: PREFIX.size]
    if homes().get(framing) != topic:
        return False
    return by_id()[schema_id(value)].name in billing()
