"""Whether a stream may be published: pure rules, the same on every edge and in the gateway's dry run.

Not looked at here: who publishes already, on this node or another (leases), and how many of the tenant's streams are live.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from streams.generated import IngestRejection, NodeMode, NodePolicy, StreamKey, StreamPolicy, TenantPolicy, TenantStanding

SENTENCES: Final[Mapping[IngestRejection, str]] = {
    IngestRejection.UNKNOWN_KEY: "no stream of yours has this key",
    IngestRejection.KEY_EXPIRED: "the key was rotated, and its grace is over: use the stream's newest key",
    IngestRejection.STREAM_DELETED: "the stream was deleted",
    IngestRejection.STREAM_DISABLED: "the stream is disabled: enable it first",
    IngestRejection.TENANT_SUSPENDED: "the tenant is suspended",
    IngestRejection.PAYMENT_REQUIRED: "the tenant has to pay first",
    IngestRejection.NODE_MAINTENANCE: "the media server is in maintenance",
    IngestRejection.NODE_DRAINING: "the media server takes nobody new",
    IngestRejection.POLICY_STALE: "the media server has not heard from the platform for too long",
}


def key_refusal(stream: StreamPolicy, key: StreamKey, now: datetime) -> IngestRejection | None:
    """Why one of the stream's keys, current or former, does not open it; None: it does."""
    if stream.deleted:
        return IngestRejection.STREAM_DELETED
    if key.valid_until is not None and key.valid_until <= now:
        return IngestRejection.KEY_EXPIRED
    return None


def refusal(
    stream: StreamPolicy, tenant: TenantPolicy | None, node: NodePolicy | None, *, is_stale: bool
) -> IngestRejection | None:
    """Why nobody may publish it; None: who has its key may. Publishing is closed while the policy is out of date: a key that was
    revoked would open it, and who has been let in before goes on."""
    if stream.deleted:
        return IngestRejection.STREAM_DELETED
    if stream.disabled:
        return IngestRejection.STREAM_DISABLED
    if tenant is not None and tenant.standing is not TenantStanding.ACTIVE:
        is_unpaid = tenant.standing is TenantStanding.PAYMENT_REQUIRED
        return IngestRejection.PAYMENT_REQUIRED if is_unpaid else IngestRejection.TENANT_SUSPENDED
    if node is not None and node.mode is NodeMode.MAINTENANCE:
        return IngestRejection.NODE_MAINTENANCE
    if node is not None and node.mode is NodeMode.DRAINING:
        return IngestRejection.NODE_DRAINING
    return IngestRejection.POLICY_STALE if is_stale else None
