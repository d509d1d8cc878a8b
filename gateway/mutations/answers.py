"""What every mutation answers with besides success, and the steps that all of them share.

Invariant: a payload class is named like the GraphQL type it is. What clients cause is a value (an Error in the union), never an
exception; whether something is allowed by the business is decided in the log, not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from graphql import GraphQLResolveInfo

from gateway import inputs
from gateway.auth import Anonymous, Operator, Tenant
from gateway.inputs import BadInput
from gateway.runtime import Context
from gateway.send import Accepted, Answer, Declined, Pending
from streams import ids
from streams.recorded import Position

Info = GraphQLResolveInfo[Context]
Success = TypeVar("Success")


@dataclass(frozen=True, slots=True)
class ValidationError:
    code: str
    message: str
    field: str | None


@dataclass(frozen=True, slots=True)
class NotFoundError:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ConflictError:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AuthError:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class PendingResult:
    command_id: UUID
    message: str = "The outcome is not known yet: send the mutation again with the same clientMutationId to learn it."


Refusal = ValidationError | NotFoundError | ConflictError | AuthError | PendingResult


def tenant_of(context: Context) -> Tenant | AuthError:
    match context.caller:
        case Tenant() as tenant:
            return tenant
        case Operator():
            return AuthError("FORBIDDEN", "The operator's token has no streams of its own: use a tenant's API token.")
        case Anonymous(problem=problem):
            return AuthError("UNAUTHENTICATED", problem)


def command_id_of(scope: UUID, client_key: str | None) -> UUID:
    """Raises BadInput."""
    key = inputs.client_key(client_key)
    return ids.new_id() if key is None else ids.command_id(scope, key)


def payload_of(answer: Answer, success: Callable[[Position], Success]) -> Success | Refusal:
    match answer:
        case Accepted(position=position):
            return success(position)
        case Pending(command_id=command_id):
            return PendingResult(command_id)
        case Declined(code=code, message=message, field=field):
            return refusal(code, message, field)


def refusal(code: str, message: str, field: str | None) -> Refusal:
    """A rejection as the GraphQL type of its family; deciders name codes so that the family shows."""
    if code.endswith("_NOT_FOUND"):
        return NotFoundError(code, message)
    if code.endswith(("_INVALID", "_REQUIRED", "_TOO_LONG")):
        return ValidationError(code, message, field)
    return ConflictError(code, message)


def invalid(bad: BadInput) -> ValidationError:
    return ValidationError(bad.code, bad.message, bad.field)
