"""The policy is a fold of decisions; a key that is over stays listed as over, and every change has a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import get_args
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from projections.policy import AT_ONCE, HANDLES, KEYS_KEPT, KICKS_KEPT, Policies, evolve
from streams.generated import (
    Decision,
    KickedSession,
    PlaybackKind,
    PlaybackPolicy,
    PlaybackPolicySet,
    Policy,
    SigningAlgorithm,
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
    StreamRenamed,
    SuspensionReason,
    TenantLimitsSet,
    TenantPolicy,
    TenantRegistered,
    TenantReinstated,
    TenantStanding,
    TenantSuspended,
    ViewerKicked,
)
from streams.policies import policy_key
from tests.ingress import NOON, meta

TENANT, STREAM = uuid4(), uuid4()
CREATED = StreamCreated("Lobby", "lobby", "play", "internal", "sk_1", b"1")


def after(*decisions: Decision) -> StreamPolicy:
    policy = None
    for decision in decisions:
        policy = evolve(policy, decision, meta(TENANT, STREAM, version=1))
    assert policy is not None
    return policy


def keys(*decisions: Decision) -> Sequence[StreamKey]:
    return after(CREATED, *decisions).keys


def test_a_created_stream_accepts_its_key() -> None:
    assert after(CREATED) == StreamPolicy(TENANT, STREAM, "internal", "play", (StreamKey("sk_1", b"1"),), False)


def test_the_old_key_is_accepted_until_the_grace_ends() -> None:
    until = NOON + timedelta(minutes=5)
    assert keys(StreamKeyRotated("sk_2", b"2", until)) == (StreamKey("sk_2", b"2"), StreamKey("sk_1", b"1", until))


def test_without_grace_the_old_key_is_over_on_any_clock() -> None:
    assert keys(StreamKeyRotated("sk_2", b"2", None)) == (StreamKey("sk_2", b"2"), StreamKey("sk_1", b"1", AT_ONCE))


def test_a_second_rotation_leaves_the_grace_of_the_first() -> None:
    soon, late = NOON + timedelta(minutes=1), NOON + timedelta(hours=1)
    assert keys(StreamKeyRotated("sk_2", b"2", late), StreamKeyRotated("sk_3", b"3", soon)) == (
        StreamKey("sk_3", b"3"),
        StreamKey("sk_2", b"2", soon),
        StreamKey("sk_1", b"1", late),
    )


def test_the_list_of_keys_does_not_grow_for_ever() -> None:
    rotations = [StreamKeyRotated(f"sk_{n}", b"", None) for n in range(100)]
    assert [k.prefix for k in keys(*rotations)] == [f"sk_{n}" for n in range(99, 99 - KEYS_KEPT, -1)]


def test_a_deleted_stream_keeps_its_keys_so_that_a_refusal_can_name_it() -> None:
    deleted = after(CREATED, StreamDeleted("lobby"))
    assert deleted.deleted
    assert deleted.keys == (StreamKey("sk_1", b"1"),)


def test_a_name_is_no_policy() -> None:
    assert after(CREATED, StreamRenamed("Stage")) == after(CREATED)
    assert evolve(None, StreamRenamed("Stage"), meta(TENANT, STREAM)) is None


def test_a_stream_is_disabled_until_it_is_enabled() -> None:
    assert after(CREATED, StreamDisabled()).disabled
    assert not after(CREATED, StreamDisabled(), StreamEnabled()).disabled


def test_the_newest_playback_policy_counts() -> None:
    first, second = PlaybackPolicy(PlaybackKind.JWT), PlaybackPolicy(PlaybackKind.PUBLIC, max_viewers=3)
    assert after(CREATED).playback is None
    assert after(CREATED, PlaybackPolicySet(first), PlaybackPolicySet(second)).playback == second


def test_a_kicked_session_is_named_while_it_is_refused_and_not_twice() -> None:
    policy, at = after(CREATED), NOON
    kicks = [("s1", 60), ("s2", 10), ("s1", 90)]
    for session_id, seconds in kicks:
        made = meta(TENANT, STREAM, version=1)
        policy = evolve(policy, ViewerKicked(session_id, at + timedelta(seconds=seconds)), made) or policy
    assert [(k.session_id, k.until - at) for k in policy.kicked] == [("s1", timedelta(seconds=90)), ("s2", timedelta(seconds=10))]
    later = replace(meta(TENANT, STREAM, version=1), occurred_at=at + timedelta(seconds=30))
    policy = evolve(policy, ViewerKicked("s3", at + timedelta(seconds=60)), later) or policy
    assert [k.session_id for k in policy.kicked] == ["s3", "s1"]
    assert policy.kicked[0] == KickedSession("s3", at + timedelta(seconds=60), later.event_id)


def test_the_list_of_kicked_sessions_does_not_grow_for_ever() -> None:
    kicks = [ViewerKicked(f"s{n}", NOON + timedelta(hours=1)) for n in range(KICKS_KEPT + 20)]
    assert len(after(CREATED, *kicks).kicked) == KICKS_KEPT


def tenant_after(*decisions: Decision) -> TenantPolicy:
    policies = Policies()
    for decision in (TenantRegistered("Acme"), *decisions):
        policies.apply(decision, meta(TENANT, TENANT, version=1))
    policy = policies[TENANT]
    assert isinstance(policy, TenantPolicy)
    return policy


def test_a_tenant_is_suspended_for_a_reason_and_reinstated() -> None:
    assert tenant_after().standing is TenantStanding.ACTIVE
    owes = TenantSuspended(SuspensionReason.PAYMENT_REQUIRED)
    assert tenant_after(owes).standing is TenantStanding.PAYMENT_REQUIRED
    assert tenant_after(owes, TenantSuspended(SuspensionReason.SUSPENDED)).standing is TenantStanding.SUSPENDED
    assert tenant_after(TenantSuspended(SuspensionReason.OTHER)).standing is TenantStanding.SUSPENDED
    assert tenant_after(owes, TenantReinstated()).standing is TenantStanding.ACTIVE


def test_limits_and_keys_of_a_tenant() -> None:
    one = SigningKeyCreated("k1", "web", SigningAlgorithm.ES256, b"1")
    two = SigningKeyCreated("k2", "app", SigningAlgorithm.EDDSA, b"2")
    assert tenant_after(TenantLimitsSet(3)).max_live_streams == 3
    assert tenant_after(TenantLimitsSet(3), TenantLimitsSet(None)).max_live_streams is None
    assert tenant_after(one, two, SigningKeyRevoked("k1")).signing_keys == (SigningKey("k2", SigningAlgorithm.EDDSA, b"2"),)


def test_what_changes_nothing_has_no_version() -> None:
    policies = Policies()
    stories: list[tuple[UUID, Decision, list[UUID]]] = [
        (TENANT, TenantRegistered("Acme"), [TENANT]),
        (STREAM, CREATED, [STREAM]),
        (STREAM, StreamRenamed("Stage"), []),
        (STREAM, StreamEnabled(), []),
        (STREAM, StreamDisabled(), [STREAM]),
        (TENANT, TenantReinstated(), []),
        (TENANT, TenantLimitsSet(1), [TENANT]),
    ]
    for about, decision, changed in stories:
        assert list(policies.apply(decision, meta(TENANT, about, version=1))) == changed
    assert [p.version for p in (policies[STREAM], policies[TENANT])] == [2, 2]
    assert policies.get(uuid4()) is None


DECISIONS: st.SearchStrategy[Decision] = st.sampled_from(
    [
        TenantRegistered("Acme"),
        TenantSuspended(SuspensionReason.SUSPENDED),
        TenantReinstated(),
        CREATED,
        StreamDisabled(),
        StreamEnabled(),
        StreamDeleted("lobby"),
        StreamKeyRotated("sk_2", b"2", NOON),
    ]
)


@given(st.lists(st.tuples(DECISIONS, st.sampled_from([TENANT, STREAM])), max_size=30))
def test_whatever_stands_on_the_log_is_folded_and_its_version_says_what_changed(told: list[tuple[Decision, UUID]]) -> None:
    policies, before = Policies(), dict[UUID, Policy]()
    for decision, about in told:
        changed = set(policies.apply(decision, meta(TENANT, about, version=1)))
        now = {key: policies[key] for key in policies}
        assert {key for key in now if now[key] != before.get(key)} == changed
        for key in changed:
            assert now[key].version == (before[key].version + 1 if key in before else 1)
            assert policy_key(now[key]) == key
        before = now


def test_only_decisions_are_folded() -> None:
    assert set(get_args(Decision)) >= HANDLES
