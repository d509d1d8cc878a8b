"""What the records of the policy have in common: under which key each is known, on the compacted topic and on a node's disk.

Invariant: of one key the newest record counts. Records of different kinds never share a key.
"""

from __future__ import annotations

from typing import assert_never
from uuid import UUID

from streams.generated import NodePolicy, Policy, StreamPolicy, StreamTasks, TenantPolicy
from streams.ids import derive, node_uuid


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
        case _:
            assert_never(policy)
