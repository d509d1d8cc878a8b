"""The agent against tens of thousands of mutated bodies and requests: nothing raises, no door opens, no key is told.

`FW_FUZZ_INPUTS=1000000 FW_FUZZ_SEED=7 pytest tests/fuzz` looks further.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from edge_agent.catalogue import CATALOGUE
from edge_agent.door import Connections, Door, Reply, Request
from streams.codec import decode, encode
from streams.generated import IngestStarted, TriggerInvalid
from tests.edge_bodies import GRAMMARS, Sample
from tests.edge_node import KEY, AgentUnderTest
from tests.fuzz.mutation import mutants, recorded

INPUTS = int(os.environ.get("FW_FUZZ_INPUTS", "24000"))
SEED = int(os.environ.get("FW_FUZZ_SEED", "1"))
GENERATED = settings(
    max_examples=8, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
)
FRESH_EVERY = 400  # triggers that one agent gets: state has to build up, too


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, bytes]]:
    """Recorded bodies, and generated ones of every trigger."""
    found = list(recorded())
    for name in sorted(GRAMMARS):
        collect(name, found)
    return found


def collect(name: str, found: list[tuple[str, bytes]]) -> None:
    @GENERATED
    @given(GRAMMARS[name].valid)
    def one(sample: Sample) -> None:
        found.append((name, sample.body))

    one()


def test_mutated_bodies(corpus: list[tuple[str, bytes]]) -> None:
    seen: Counter[str] = Counter()
    agent = AgentUnderTest()
    chance = random.Random(SEED)
    for n, (name, body) in enumerate(mutants(corpus, INPUTS, SEED)):
        if n % FRESH_EVERY == 0:
            agent = AgentUnderTest()
        said = len(agent.facts)
        outcome = agent.outcome(name, body, pid=chance.randrange(1, 6))
        entry = CATALOGUE[name]
        if outcome.is_invalid:
            assert outcome.answer == entry.when_invalid, (name, body)
        for fact, meta in agent.facts[said:]:
            value = encode(fact, meta)
            assert decode(value)[1] == meta
            assert KEY.encode() not in value, (name, body)
            if isinstance(fact, IngestStarted):
                assert (name, outcome.answer) == ("STREAM_PUSH", "true"), (name, body)
            seen[type(fact).__name__] += 1
        seen["invalid" if outcome.is_invalid else "understood"] += 1
    # The fuzzer reaches what it should: most mutants are broken, some are not, and many kinds of facts come of those.
    assert seen["invalid"] > INPUTS / 4
    assert seen["understood"] > INPUTS / 20
    assert seen[TriggerInvalid.__name__] > 0
    assert len(seen) > 20, seen


class Behind:
    """What stands behind the door: counts whole requests and refusals."""

    def __init__(self) -> None:
        self.requests = self.refusals = 0

    def answer(self, request: Request, reply: Reply) -> None:
        assert isinstance(request.body, bytes)
        self.requests += 1
        reply(200, b"true")

    def refused(self, status: int) -> None:
        assert 400 <= status < 500
        self.refusals += 1


class Wire(asyncio.Transport):
    """Takes what the door writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close


async def test_mutated_requests() -> None:
    head = (
        b"POST /trigger/USER_NEW HTTP/1.1\r\nAccept: */*\r\nContent-Length: 5\r\nContent-Type: text/plain\r\nHost: a:1\r\n"
        b"X-Instance: bkTJOI}eegaccMn`\r\nX-PID: 14221\r\nX-Trigger-UUID: 71a12c88\r\nX-Trigger-UnixMillis: 1795173999227\r\n\r\n"
    )
    corpus = [("a", head + b"hello"), ("b", b"GET /readyz HTTP/1.1\r\n\r\n"), ("c", head.replace(b": 5", b": 1048577"))]
    chance, behind, connections = random.Random(SEED), Behind(), Connections()
    for _, raw in mutants(corpus, INPUTS // 4, SEED):
        door, wire, before = Door(behind, connections), Wire(), behind.requests + behind.refusals
        door.connection_made(wire)
        at = 0
        while at < len(raw):
            step = chance.randint(1, 200)
            door.data_received(raw[at : at + step])
            at += step
        assert behind.requests + behind.refusals - before <= 1
        if behind.requests + behind.refusals > before:
            assert wire.written.startswith(b"HTTP/1.1 ")
        door.connection_lost(None)
    assert behind.requests > 0
    assert behind.refusals > 0
    assert connections.none_open.is_set()
