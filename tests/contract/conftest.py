"""Fixtures of the contract suites."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.contract.broker_worlds import KafkaWorld, SimWorld, World


@pytest.fixture(params=["sim-1", "sim-2", "kafka"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    kind = str(request.param)
    if kind == "kafka":
        yield KafkaWorld(request.getfixturevalue("stack").kafka)
        gc.collect()  # aiokafka leaves futures with errors behind that nobody wanted: let them complain here, to nobody
    else:
        yield SimWorld(int(kind[-1]))
