"""The balancer's weights: input to command, outcome to payload. The operator's alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypedDict

from ariadne import MutationType

from gateway.auth import OPERATOR, Anonymous, Operator
from gateway.inputs import BadInput
from gateway.mutations.answers import AuthError, Info, Refusal, command_id_of, invalid, payload_of
from gateway.runtime import Context
from gateway.send import Answer
from streams.balancing.score import Weights
from streams.generated import SetBalancerWeights
from streams.ids import OPERATOR_TENANT, derive
from streams.recorded import Position

BALANCER_ID: Final = derive(OPERATOR_TENANT, "balancer")
mutation = MutationType()


@dataclass(frozen=True, slots=True)
class SetBalancerWeightsSuccess:
    weights: Weights
    position: Position
    client_mutation_id: str | None


class SetBalancerWeightsInput(TypedDict, total=False):
    cpu: int | None
    ram: int | None
    bandwidth: int | None
    geo: int | None
    bonus: int | None
    client_mutation_id: str | None


async def set_weights(context: Context, wanted: Mapping[str, int], client_key: str | None) -> Answer:
    """Sends the wish; what is not named stays as it is. When it is accepted this gateway has the weights already: its tail read
    them before the outcome. Raises BadInput."""
    command = SetBalancerWeights(**{name: wanted.get(name) for name in Weights.__dataclass_fields__})
    command_id = command_id_of(OPERATOR_TENANT, client_key)
    return await context.send(command, command_id, OPERATOR_TENANT, BALANCER_ID, OPERATOR.actor)


@mutation.field("setBalancerWeights")
async def set_balancer_weights(_: None, info: Info, input: SetBalancerWeightsInput) -> SetBalancerWeightsSuccess | Refusal:
    context: Context = info.context
    match context.caller:
        case Anonymous(problem=problem):
            return AuthError("UNAUTHENTICATED", problem)
        case Operator():
            pass
        case _:
            return AuthError("FORBIDDEN", "Only the operator's token may change the balancer's weights.")
    key = input.get("client_mutation_id")
    wanted = {name: value for name in Weights.__dataclass_fields__ if isinstance(value := input.get(name), int)}
    try:
        answer = await set_weights(context, wanted, key)
    except BadInput as bad:
        return invalid(bad)
    return payload_of(answer, lambda at: SetBalancerWeightsSuccess(context.runtime.balancer.picture.weights, at, key))


TYPES: Final = (mutation,)
