"""Whether a stream may be published here, by what the node knows; apart from its key and from who publishes already."""

from __future__ import annotations

from edge_agent.turn import Turn, moment
from streams.generated import IngestRejection, NodeMode, NodePolicy, StreamPolicy, ViewerRejection
from streams.playback.publishing import refusal


def refusal_now(turn: Turn, stream: StreamPolicy) -> IngestRejection | None:
    """Why nobody may publish it at this moment; None: who has its key may."""
    tenant, node = turn.policy.tenant(stream.tenant_id), turn.policy.node(turn.node.node_id)
    return refusal(stream, tenant, node, is_stale=turn.is_policy_stale)


def is_revoked(stream: StreamPolicy, key_prefix: str | None, began_ms: int) -> bool:
    """Whether a publisher's key ended before the publisher began: it was rotated without grace, or the node learns it late."""
    began = moment(began_ms)
    ends = [key.valid_until for key in stream.keys if key.prefix == key_prefix]
    return bool(ends) and all(end is not None and end <= began for end in ends)


def viewer_refusal(node: NodePolicy | None, *, is_recheck: bool) -> ViewerRejection | None:
    """Why the node takes no viewer. Draining: who is there may stay."""
    if node is not None and node.mode is NodeMode.MAINTENANCE:
        return ViewerRejection.NODE_MAINTENANCE
    if node is not None and node.mode is NodeMode.DRAINING and not is_recheck:
        return ViewerRejection.NODE_DRAINING
    return None
