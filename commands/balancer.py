"""The balancer's weights: how much free CPU, memory, bandwidth and nearness count when a node is chosen.

Invariant: one set of weights holds for all gateways. It belongs to the operator, and needs no tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from commands.decider import Decider
from commands.tenant import OfTenant
from commands.tenant import evolve as evolve_tenant
from streams.balancing.score import WEIGHT_MAX, Weights
from streams.errors import Rejected
from streams.generated import BalancerWeightsSet, Decision, SetBalancerWeights

BalancerCommand = SetBalancerWeights
BalancerEvent = BalancerWeightsSet


@dataclass(frozen=True, slots=True)
class Balancer:
    weights: Weights


def decide(command: BalancerCommand, state: OfTenant[Balancer]) -> Sequence[Decision]:
    before = Weights() if state.own is None else state.own.weights
    match command:
        case SetBalancerWeights():
            after = BalancerWeightsSet(
                cpu=_weight("cpu", command.cpu, before.cpu),
                ram=_weight("ram", command.ram, before.ram),
                bandwidth=_weight("bandwidth", command.bandwidth, before.bandwidth),
                geo=_weight("geo", command.geo, before.geo),
                bonus=_weight("bonus", command.bonus, before.bonus),
            )
            return [] if _weights(after) == before else [after]
        case _:
            assert_never(command)


def _weight(name: str, wanted: int | None, before: int) -> int:
    if wanted is None:
        return before
    if not 0 <= wanted <= WEIGHT_MAX:
        raise Rejected("WEIGHT_INVALID", f"A weight is a number from 0 to {WEIGHT_MAX}: choose another.", name)
    return wanted


def _weights(event: BalancerWeightsSet) -> Weights:
    return Weights(event.cpu, event.ram, event.bandwidth, event.geo, event.bonus)


def evolve(state: OfTenant[Balancer], event: Decision) -> OfTenant[Balancer]:
    balancer = Balancer(_weights(event)) if isinstance(event, BalancerEvent) else state.own
    return OfTenant(balancer, evolve_tenant(state.tenant, event))


BALANCER: Decider[BalancerCommand, OfTenant[Balancer], Decision] = Decider(
    name="balancer",
    initial=OfTenant(),
    decide=decide,
    evolve=evolve,
    commands=frozenset({SetBalancerWeights}),
    events=frozenset({BalancerWeightsSet}),
)
