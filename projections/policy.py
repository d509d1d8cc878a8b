"""What edges must know, as a fold of decisions: who may publish and watch a stream; what a tenant may, and its keys.

Invariant: a policy is the fold of the decisions about it, for any split of the log into batches, and its version counts the
decisions that changed it. A key that is not accepted any more stays listed, so that the edge can say so instead of calling it
unknown.

To add a kind of record: an `evolve` function, a line in `FOLDS`, its key in `streams/policies.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from projections import node_policy, stream_tasks
from streams.generated import (
    Event,
    KickedSession,
    Meta,
    NodePolicy,
    PlaybackPolicySet,
    Policy,
    SigningKey,
    SigningKeyCreated,
    SigningKeyRevoked,
    StreamCreated,
    StreamDeleted,
    StreamDisabled,
    StreamEnabled,
    StreamKey,
    StreamKeyRotated,
    StreamPolicy,
    StreamTasks,
    SuspensionReason,
    TenantLimitsSet,
    TenantPolicy,
    TenantRegistered,
    TenantReinstated,
    TenantStanding,
    TenantSuspended,
    ViewerKicked,
)
from streams.ids import derive

KEYS_KEPT: Final = 8
KICKS_KEPT: Final = 500
AT_ONCE: Final = datetime.fromtimestamp(0, UTC)
"""`valid_until` of a key that was revoked without grace: long ago, so that no node's clock can accept it."""


def evolve(policy: StreamPolicy | None, event: Event, meta: Meta) -> StreamPolicy | None:
    """A stream's policy after one more decision about it."""
    if isinstance(event, StreamCreated):
        return StreamPolicy(
            tenant_id=meta.tenant_id,
            stream_id=meta.aggregate_id,
            internal_name=event.internal_name,
            playback_id=event.playback_id,
            keys=(StreamKey(event.key_prefix, event.key_hash),),
            deleted=False,
        )
    if policy is None:
        return None
    match event:
        case StreamKeyRotated():
            until = event.old_key_until or AT_ONCE
            older = (replace(k, valid_until=until) if k.valid_until is None else k for k in policy.keys)
            return replace(policy, keys=(StreamKey(event.key_prefix, event.key_hash), *older)[:KEYS_KEPT])
        case StreamDeleted():
            return replace(policy, deleted=True)
        case StreamDisabled():
            return replace(policy, disabled=True)
        case StreamEnabled():
            return replace(policy, disabled=False)
        case PlaybackPolicySet():
            return replace(policy, playback=event.playback)
        case ViewerKicked():
            kicked = KickedSession(event.session_id, event.until, meta.event_id)
            standing = [k for k in policy.kicked if k.until > meta.occurred_at and k.session_id != event.session_id]
            return replace(policy, kicked=(kicked, *standing)[:KICKS_KEPT])
        case _:
            return policy


def evolve_tenant(policy: TenantPolicy | None, event: Event, meta: Meta) -> TenantPolicy | None:
    """A tenant's policy after one more decision about it."""
    if isinstance(event, TenantRegistered):
        return TenantPolicy(meta.tenant_id, version=0, standing=TenantStanding.ACTIVE)
    if policy is None:
        return None
    match event:
        case TenantSuspended(reason=SuspensionReason.PAYMENT_REQUIRED):
            return replace(policy, standing=TenantStanding.PAYMENT_REQUIRED)
        case TenantSuspended():
            return replace(policy, standing=TenantStanding.SUSPENDED)
        case TenantReinstated():
            return replace(policy, standing=TenantStanding.ACTIVE)
        case TenantLimitsSet(max_live_streams=limit):
            return replace(policy, max_live_streams=limit)
        case SigningKeyCreated():
            key = SigningKey(event.key_id, event.algorithm, event.public_key)
            return replace(policy, signing_keys=(*policy.signing_keys, key))
        case SigningKeyRevoked(key_id=key_id):
            return replace(policy, signing_keys=tuple(k for k in policy.signing_keys if k.key_id != key_id))
        case _:
            return policy


@dataclass(frozen=True, slots=True)
class Fold:
    """How the records of one kind follow from decisions."""

    handles: frozenset[type]
    key: Callable[[Meta], UUID]  # of the record that a decision is about; see `policy_key`
    evolve: Callable[[Policy | None, Event, Meta], Policy | None]


def _stream(policy: Policy | None, event: Event, meta: Meta) -> Policy | None:
    return evolve(policy if isinstance(policy, StreamPolicy) else None, event, meta)


def _tenant(policy: Policy | None, event: Event, meta: Meta) -> Policy | None:
    return evolve_tenant(policy if isinstance(policy, TenantPolicy) else None, event, meta)


def _tasks(policy: Policy | None, event: Event, meta: Meta) -> Policy | None:
    return stream_tasks.evolve(policy if isinstance(policy, StreamTasks) else None, event, meta)


def _node(policy: Policy | None, event: Event, meta: Meta) -> Policy | None:
    return node_policy.evolve(policy if isinstance(policy, NodePolicy) else None, event, meta)


OF_STREAMS: Final = Fold(
    frozenset({StreamCreated, StreamKeyRotated, StreamDeleted, StreamDisabled, StreamEnabled, PlaybackPolicySet, ViewerKicked}),
    lambda meta: meta.aggregate_id,
    _stream,
)
OF_TENANTS: Final = Fold(
    frozenset({TenantRegistered, TenantSuspended, TenantReinstated, TenantLimitsSet, SigningKeyCreated, SigningKeyRevoked}),
    lambda meta: meta.tenant_id,
    _tenant,
)
OF_TASKS: Final = Fold(stream_tasks.HANDLES, lambda meta: derive(meta.aggregate_id, "tasks"), _tasks)
OF_NODES: Final = Fold(node_policy.HANDLES, lambda meta: meta.aggregate_id, _node)
FOLDS: Final = (OF_STREAMS, OF_TENANTS, OF_TASKS, OF_NODES)
HANDLES: Final = frozenset[type]().union(*(fold.handles for fold in FOLDS))


class Policies:
    """Every policy, folded; by key."""

    handles: Final = frozenset(kind.__name__ for kind in HANDLES)

    def __init__(self) -> None:
        self._by_key: dict[UUID, Policy] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[UUID]:
        return iter(self._by_key)

    def __getitem__(self, key: UUID) -> Policy:
        return self._by_key[key]

    def get(self, key: UUID) -> Policy | None:
        return self._by_key.get(key)

    def apply(self, event: Event, meta: Meta) -> Iterable[UUID]:
        """Takes one more decision; gives the keys of the records that are different now."""
        changed = []
        for fold in FOLDS:
            if type(event) not in fold.handles:
                continue
            known = self._by_key.get(key := fold.key(meta))
            policy = fold.evolve(known, event, meta)
            if policy is not None and policy != known:
                self._by_key[key] = replace(policy, version=known.version + 1 if known else 1)
                changed.append(key)
        return changed

    def number(self, key: UUID, version: int) -> Policy:
        """Goes on counting from a version that was published."""
        policy = self._by_key[key] = replace(self._by_key[key], version=version)
        return policy
