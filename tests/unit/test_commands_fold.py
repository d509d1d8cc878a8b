"""The fast fold takes in what a full decode would, and refuses what it would refuse."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import get_args
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from commands.answers import UNDECIDED, WINDOW
from commands.fold import fold_value
from commands.state import BrokenLog, PartitionState
from streams.codec import decode, encode
from streams.errors import Invalid
from streams.generated import CommandHandled, CommandStatus, Decision, Event, Meta, StreamCreated, StreamRenamed
from streams.ids import derive
from tests.arbitrary import METAS, records
from tests.ingress import NOON

TENANT = derive(UUID(int=1), "tenant")


def outcome(n: int, code: str | None, message: str, seconds: int) -> tuple[CommandHandled, Meta]:
    command = derive(TENANT, "command", n)
    status = CommandStatus.ACCEPTED if code is None else CommandStatus.REJECTED
    about = Meta(derive(command, seconds), TENANT, TENANT, 0, command, command, NOON + timedelta(seconds=seconds), "token:x")
    return CommandHandled(command, "RenameStream", b"f" * 32, status, code=code, message=message, events=0), about


def decision(n: int, version: int, title: str) -> tuple[Decision, Meta]:
    stream = derive(TENANT, "stream", n)
    event = StreamCreated(title, f"s{n}", f"p{n}", f"i{n}", "sk_x", b"h") if version == 1 else StreamRenamed(title)
    command = derive(stream, "command", version)
    return event, Meta(derive(command, 0), TENANT, stream, version, command, command, NOON, "token:x")


TEXTS = ("", "Lobby", "größer", "a\0b", *sorted(UNDECIDED))


def log(seed: int) -> list[bytes]:
    """Decisions with contiguous versions, and outcomes that repeat, expire, and come from more than a day."""
    pick = random.Random(seed)
    versions: dict[int, int] = {}
    said: list[tuple[Event, Meta]] = []
    for _ in range(pick.randrange(40)):
        n, text = pick.randrange(5), pick.choice(TEXTS)
        if pick.random() < 0.5:
            versions[n] = versions.get(n, 0) + 1
            said.append(decision(n, versions[n], text))
        else:
            code = pick.choice([None, None, "SLUG_TAKEN", *sorted(UNDECIDED)])
            said.append(outcome(n, code, text, pick.randrange(int(2 * WINDOW.total_seconds()))))
    return [encode(event, meta) for event, meta in said]


LOGS = st.integers(0, 1 << 32).map(log)


def slowly(values: list[bytes]) -> PartitionState:
    state = PartitionState(0)
    for value in values:
        state.fold(*decode(value))
    return state


def fast(values: list[bytes]) -> PartitionState:
    state = PartitionState(0)
    for value in values:
        fold_value(state, value)
    return state


def seen(state: PartitionState) -> object:
    answers = state.answers
    ids = [derive(TENANT, "command", n) for n in range(5)]
    return state.boundaries, answers.horizon, len(answers), [answers.get(i) for i in ids]


@given(LOGS)
def test_the_fast_fold_is_the_fold(values: list[bytes]) -> None:
    assert seen(fast(values)) == seen(slowly(values))


@given(LOGS, st.integers(0, 29), st.integers(0, 400), st.integers(0, 2), st.binary(max_size=2))
def test_what_is_broken_breaks_both_alike(values: list[bytes], which: int, at: int, lost: int, put: bytes) -> None:
    if values:
        value = values[which % len(values)]
        values[which % len(values)] = value[:at] + put + value[at + lost :]
    results: list[object] = []
    for way in (fast, slowly):
        try:
            results.append(seen(way(values)))
        except (Invalid, BrokenLog) as error:
            results.append(type(error))
    assert results[0] == results[1]


@given(st.sampled_from(get_args(Decision)).flatmap(lambda kind: records(kind.__name__)), METAS)
def test_every_decision_there_is(record: Decision, about: Meta) -> None:
    about = replace(about, version=1)
    assert seen(fast([encode(record, about)])) == seen(slowly([encode(record, about)]))
