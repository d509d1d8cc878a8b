"""What the records of the policy have in common: under which key each is known, on the compacted topic and on a node's disk.

Invariant: of one key the newest record counts. Records of different kinds never share a key.
"""

from __future__ import annotations

from typing import Final, assert_never
from uuid import UUID

from streams.generated import NodePolicy, Policy, PolicyConfirmed, StreamPolicy, StreamTasks, TenantPolicy
from streams.ids import OPERATOR_TENANT, derive, node_uuid

CONFIRMED: Final = derive(OPERATOR_TENANT, "policy confirmed")
"""The key of the one record that says that the others are current."""


def policy_key(policy: Policy) -> UUID:
    """The key of a policy: the same for all records that replace one another."""
    match policy:
        case StreamPolicy(stream_id=stream_id):
            return stream_id
        case StreamTasks(stream_id=stream_id):
            return derive(stream_id, "tasks")
        case TenantPolicy(tenant_id=tenant_id):
            return tenant_id
        case NodePolicy(node_id=node_id):
            return node_uuid(node_id)
        case PolicyConfirmed():
            return CONFIRMED
        case _:
            assert_never(policy)
