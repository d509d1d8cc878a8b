"""Which aggregate decides a command, and which one an event is about.

Invariant: a command and a decision belong to exactly one aggregate, which names them (`commands.AGGREGATES`). Nothing here
knows any of them by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from commands import AGGREGATES
from commands.aggregate import Aggregate, Boundary
from streams.generated import Command, Decision

BY_COMMAND: Final[Mapping[type, Aggregate]] = {command: a for a in AGGREGATES for command in a.commands}
BY_EVENT: Final[Mapping[type, Aggregate]] = {event: a for a in AGGREGATES for event in a.events}


def decide(boundary: Boundary, aggregate_id: UUID, command: Command) -> Sequence[Decision]:
    """What follows from a command. Raises Rejected."""
    return BY_COMMAND[type(command)].decide(boundary, aggregate_id, command)


def evolve(boundary: Boundary, aggregate_id: UUID, event: Decision) -> Boundary:
    """The boundary after one event of one of its aggregates."""
    after = BY_EVENT[type(event)].evolve(boundary, aggregate_id, event)
    versions = boundary.versions.set(aggregate_id, boundary.version(aggregate_id) + 1)
    return Boundary(after.tenant, after.owned, versions, after.is_operators)


def is_about_tenant(command: Command) -> bool:
    """Whether a command is about the tenant itself, and not about something that it owns."""
    return BY_COMMAND[type(command)].is_tenant
