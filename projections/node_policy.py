"""What a node must know of itself: the fold of its decisions to its NodePolicy (`projections.policy` numbers its versions)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streams.generated import (
    Event,
    Meta,
    NodeChanged,
    NodeEnrolled,
    NodeMode,
    NodeModeSet,
    NodePolicy,
    NodeRegistered,
    NodeRevoked,
)

HANDLES: Final = frozenset({NodeRegistered, NodeChanged, NodeModeSet, NodeEnrolled, NodeRevoked})


def evolve(policy: NodePolicy | None, event: Event, meta: Meta) -> NodePolicy | None:
    """A node's policy after one more decision about it."""
    if isinstance(event, NodeRegistered):
        return NodePolicy(meta.tenant_id, event.node_id, version=0, mode=NodeMode.ACTIVE, tags=event.tags)
    if policy is None:
        return None
    match event:
        case NodeChanged(tags=tags):
            return replace(policy, tags=tags)
        case NodeModeSet(mode=mode):
            return replace(policy, mode=mode, mode_request_id=meta.event_id)
        case NodeEnrolled():
            return replace(policy, revoked=False)
        case NodeRevoked():
            return replace(policy, revoked=True)
        case _:
            return policy
