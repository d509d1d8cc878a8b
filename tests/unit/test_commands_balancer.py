"""Stories of the balancer's weights."""

from __future__ import annotations

import pytest

from commands.balancer import BALANCER
from streams.generated import BalancerWeightsSet, SetBalancerWeights
from tests.given import given

CPU_400 = BalancerWeightsSet(cpu=400, ram=500, bandwidth=1000, geo=1000, bonus=50)


def test_what_is_not_named_stays_as_it_was() -> None:
    given(BALANCER).when(SetBalancerWeights(cpu=400)).then(CPU_400)
    given(BALANCER, CPU_400).when(SetBalancerWeights(geo=0)).then(BalancerWeightsSet(400, 500, 1000, 0, 50))


def test_nothing_is_said_where_nothing_changes() -> None:
    given(BALANCER).when(SetBalancerWeights()).then()
    given(BALANCER, CPU_400).when(SetBalancerWeights(cpu=400, bonus=50)).then()


@pytest.mark.parametrize("weight", [-1, 100_001])
@pytest.mark.parametrize("name", ["cpu", "ram", "bandwidth", "geo", "bonus"])
def test_a_weight_has_bounds(name: str, weight: int) -> None:
    given(BALANCER).when(SetBalancerWeights(**{name: weight})).then_rejected("WEIGHT_INVALID", name)
