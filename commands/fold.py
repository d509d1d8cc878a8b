"""The state of a partition, from its log.

Invariant: the state is the one that decoding every record and taking it in by `PartitionState.fold` gives
(tests/unit/test_commands_fold.py). Speed comes from what is left out: of Meta a fold needs two ids, the version and, for
outcomes, whose they are and when; an outcome is kept as its bytes, checked to its end, and read when somebody asks for it. What
does not look as expected is decoded in full, and if that fails, the log is broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from asyncpg.pgproto.pgproto import UUID as CUUID

from commands.answers import UNDECIDED
from commands.state import BrokenLog, PartitionState
from streams.codec import MAGIC, PREFIX, body_reader, decode, short_id
from streams.errors import Invalid
from streams.generated import CommandHandled, Decision, Record
from streams.ingress.well_formed import LONG, TIME, UUID, Checker, Malformed, checker, long_at
from streams.meta_bytes import instant, is_known
from streams.registry import registered

MAX_RECORDS: Final = 2000  # per turn of the event loop: heartbeats must get their turn, too

_ID: Final = b"H(" + UUID[1:] + b")"
# tenant, aggregate, version, cause, time
_META: Final = re.compile(
    rb"\x00.{4}" + UUID + _ID + _ID + b"(" + LONG + b")" + _ID + UUID + b"(" + TIME + b")(.)", re.DOTALL
).match
_UNDECIDED: Final = tuple(code.encode() for code in sorted(UNDECIDED))
_HANDLED: Final = CommandHandled.__name__


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the records of a schema id are taken in: outcomes are checked, all else is read."""

    check: Checker | None
    read: Callable[[bytes, int], tuple[Record, int]] | None


@cache
def _kinds() -> Mapping[bytes, _Kind]:
    """By the beginning of a value; of schemas whose Meta is as `_META` says."""
    return {
        PREFIX.pack(MAGIC, r.id): _Kind(checker(r.id), None) if r.name == _HANDLED else _Kind(None, body_reader(r.id))
        for r in registered()
        if is_known(r.schema) and r.schema["topic"] == "fw.decisions"
    }


async def fold(committed: AIOKafkaConsumer, decisions: TopicPartition, beginning: int, end: int) -> PartitionState:
    """Reads [beginning, end) of the decisions partition; `end` is to be taken read_uncommitted. Raises BrokenLog.

    The reader is read_committed, and its position also moves over aborted records and commit markers, so that a tail of
    nothing but these has an end, too.
    """
    if beginning != 0:
        raise BrokenLog(f"{decisions.topic}-{decisions.partition} begins at {beginning}: decisions must be kept for ever")
    state = PartitionState(decisions.partition)
    committed.assign([decisions])
    committed.seek(decisions, beginning)
    while await committed.position(decisions) < end:
        fetched = await committed.getmany(timeout_ms=1000, max_records=MAX_RECORDS)
        for record in fetched.get(decisions, ()):
            try:
                fold_value(state, record.value or b"")
            except Invalid as invalid:
                raise BrokenLog(f"{record.topic}-{record.partition} at {record.offset}: {invalid}") from invalid
    return state


def fold_value(state: PartitionState, value: bytes) -> None:
    """Takes one record of the decisions topic. Raises Invalid: it cannot be read; BrokenLog: no writer may write it."""
    try:
        if _fold_fast(state, value):
            return
    except (Invalid, IndexError, Malformed):
        pass  # the full decode says what is wrong
    state.fold(*decode(value))


def _fold_fast(state: PartitionState, value: bytes) -> bool:
    """Whether the record was of the usual kind, and is taken."""
    kind, meta = _kinds().get(value[: PREFIX.size]), _META(value)
    if kind is not None and meta is not None:
        actor, at = long_at(value, meta.end() - 1)
        if kind.check is not None:
            is_ours = value.startswith(meta[4], at + actor + 1)  # the command that it answers is its cause
            if is_ours and _takes(kind.check, value, meta.end() - 1) and not any(code in value for code in _UNDECIDED):
                state.answers.remember_bytes(CUUID(meta[4].decode()), instant(long_at(meta[5], 0)[0]), value)
                return True
        elif kind.read is not None and actor >= 0 and value[at : at + actor].isascii():
            event, end = kind.read(value, at + actor)
            if isinstance(event, Decision) and end == len(value):
                state.fold_decision(event, short_id(meta[1]), short_id(meta[2]), long_at(meta[3], 0)[0])
                return True
    return False


def _takes(check: Checker, value: bytes, actor_at: int) -> bool:
    try:
        check(value, actor_at)
    except (Malformed, IndexError):
        return False
    return True
