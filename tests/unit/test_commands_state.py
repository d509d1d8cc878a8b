"""The state of a partition: resends, windows, poison, and what holds for any sequence of commands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from commands import AGGREGATES
from commands.answers import WINDOW, Answers
from commands.state import BrokenLog, Handled, PartitionState
from streams.codec import decode, encode
from streams.errors import Invalid
from streams.generated import (
    ApiTokenIssued,
    ApiTokenRevoked,
    BufferChanged,
    BufferState,
    Command,
    CommandHandled,
    CommandStatus,
    CreateStream,
    Decision,
    DeleteStream,
    Event,
    IssueApiToken,
    Meta,
    RegisterTenant,
    RenameStream,
    RevokeApiToken,
    RotateStreamKey,
    StreamCreated,
    StreamDeleted,
    StreamRenamed,
)
from streams.ids import derive, event_id, outcome_id, wish_id
from streams.topics import partition_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANT = UUID("018f3b6e-0000-7000-8000-000000000001")
LOBBY = UUID("018f3b6e-0000-7000-8000-00000000000a")
STAGE = UUID("018f3b6e-0000-7000-8000-00000000000b")
PARTITION = partition_of(TENANT)
REGISTER = RegisterTenant("Radio", "fwt_abc", b"t" * 32)


def create(title: str = "Lobby", slug: str = "lobby") -> CreateStream:
    return CreateStream(title, slug, "play", "internal", "sk_abc", b"k" * 32)


def meta(n: int, aggregate: UUID = TENANT, at: datetime = NOON, tenant: UUID = TENANT) -> Meta:
    """Meta of the n-th command."""
    return Meta(
        derive(TENANT, "test", n), tenant, aggregate, 0, derive(TENANT, "test", n), derive(TENANT, "chain", n), at, "token:abc"
    )


def handle(state: PartitionState, command: Event, of: Meta, now: datetime = NOON) -> Handled:
    handled = state.decide(command, of, now)
    state.take(handled)
    return handled


def registered() -> PartitionState:
    state = PartitionState(PARTITION)
    handle(state, REGISTER, meta(0))
    return state


def code(handled: Handled) -> str | None:
    return handled.outcome.code


def test_a_command_becomes_events_and_an_outcome() -> None:
    handled = handle(PartitionState(PARTITION), REGISTER, meta(0))
    command = meta(0)
    assert [type(e).__name__ for e, _ in handled.events] == ["TenantRegistered", "ApiTokenIssued"]
    assert [m.version for _, m in handled.events] == [1, 2]
    wished = wish_id(command.event_id, NOON)
    assert [m.event_id for _, m in handled.events] == [event_id(wished, 0), event_id(wished, 1)]
    for m in (*(m for _, m in handled.events), handled.meta):
        assert m.causation_id == command.event_id
        assert (m.tenant_id, m.aggregate_id, m.correlation_id) == (TENANT, TENANT, command.correlation_id)
        assert (m.occurred_at, m.actor) == (NOON, "token:abc")
    assert (handled.meta.version, handled.meta.event_id) == (0, outcome_id(wished))
    assert handled.outcome.command_id == command.event_id
    assert (handled.outcome.status, handled.outcome.events, handled.outcome.command_type) == (
        CommandStatus.ACCEPTED,
        2,
        "RegisterTenant",
    )


def test_deciding_changes_nothing_until_the_result_is_taken() -> None:
    state = registered()
    first = state.decide(create(), meta(1, LOBBY), NOON)
    assert state.decide(create(), meta(1, LOBBY), NOON) == first


def test_a_refusal_is_an_outcome() -> None:
    handled = handle(registered(), RenameStream("Stage"), meta(1, LOBBY))
    assert handled.events == ()
    assert (handled.outcome.status, code(handled), handled.outcome.field) == (
        CommandStatus.REJECTED,
        "STREAM_NOT_FOUND",
        "streamId",
    )


def test_a_resent_command_is_answered_again_and_not_executed() -> None:
    state = registered()
    first = handle(state, create(), meta(1, LOBBY))
    boundary = state.boundaries[TENANT]
    again = handle(state, create(), meta(1, LOBBY))
    assert again.is_repeated
    assert (again.events, again.outcome, again.meta) == ((), first.outcome, first.meta)
    assert state.boundaries[TENANT] is boundary


def test_an_answer_is_kept_for_a_day_after_its_latest_repetition() -> None:
    state = registered()
    first = handle(state, create(), meta(1, LOBBY))
    later = NOON + timedelta(hours=20)
    again = handle(state, create(), meta(1, LOBBY, at=later), now=later)
    assert (again.outcome, again.meta.occurred_at) == (first.outcome, later)
    assert again.meta.event_id != first.meta.event_id, "another record, at another time"
    end = NOON + timedelta(hours=40)
    handle(state, RenameStream("Stage"), meta(2, LOBBY, at=end), now=end)
    assert handle(state, create(), meta(1, LOBBY, at=later), now=end).is_repeated


def test_a_resend_may_differ_in_what_the_gateway_adds() -> None:
    state = registered()
    handle(state, create(), meta(1, LOBBY))
    other = replace(create(), key_prefix="sk_xyz", key_hash=b"x" * 32, playback_id="p2", internal_name="i2")
    assert handle(state, other, meta(1, STAGE)).is_repeated


def test_a_refusal_is_repeated_even_if_it_would_be_accepted_now() -> None:
    state = registered()
    handle(state, create(), meta(1, LOBBY))
    assert code(handle(state, create(), meta(2, STAGE))) == "SLUG_TAKEN"
    handle(state, DeleteStream(), meta(3, LOBBY))
    assert code(handle(state, create(), meta(2, STAGE))) == "SLUG_TAKEN"
    assert code(handle(state, create(), meta(4, STAGE))) is None


def test_the_same_id_with_another_wish_is_refused_and_leaves_the_first_answer() -> None:
    state = registered()
    first = handle(state, create(), meta(1, LOBBY))
    other = handle(state, create(title="Stage"), meta(1, LOBBY))
    assert (code(other), other.events) == ("IDEMPOTENCY_KEY_REUSED", ())
    assert other.meta.event_id != first.meta.event_id, "two outcomes are two records"
    assert handle(state, create(), meta(1, LOBBY)).outcome == first.outcome
    rename = handle(state, RenameStream("Lobby"), meta(1, LOBBY))
    assert code(rename) == "IDEMPOTENCY_KEY_REUSED"


def test_a_command_from_before_the_window_is_refused_unseen() -> None:
    state = registered()
    handle(state, create(), meta(1, LOBBY))
    late = NOON + WINDOW + timedelta(seconds=1)
    handle(state, RenameStream("Stage"), meta(2, LOBBY, at=late), now=late)
    assert state.answers.get(meta(1).event_id) is None, "forgotten"
    handled = handle(state, create(), meta(1, LOBBY), now=late)
    assert (code(handled), handled.events) == ("COMMAND_EXPIRED", ())
    assert state.answers.get(meta(1).event_id) is None


def test_a_key_that_is_used_anew_after_the_window_leads_to_new_events() -> None:
    """A client that counts its keys from 1 every week: what it wishes is decided, and no two events bear one id."""
    state = registered()
    first = handle(state, create(), meta(1, LOBBY))
    assert state.decide(create(), meta(1, LOBBY), NOON).meta.event_id == first.meta.event_id, "a resend is the same outcome"
    late = NOON + WINDOW + timedelta(seconds=1)
    handle(state, RenameStream("Stage"), meta(2, LOBBY, at=late), now=late)
    again = handle(state, RenameStream("Studio"), meta(1, LOBBY, at=late), now=late)
    assert [event for event, _ in again.events] == [StreamRenamed("Studio")]
    ids = [m.event_id for handled in (first, again) for m in (*(m for _, m in handled.events), handled.meta)]
    assert len(set(ids)) == len(ids)


def test_a_command_from_the_future_is_refused_and_moves_no_window() -> None:
    state = registered()
    far = NOON + timedelta(days=400)
    assert code(handle(state, create(), meta(1, LOBBY, at=far))) == "CLOCK_AHEAD"
    assert code(handle(state, create(), meta(2, LOBBY))) is None
    assert code(handle(state, create(slug="other"), meta(1, STAGE, at=NOON))) is None, "sent again with a clock that is right"


def test_what_is_no_command_is_poison() -> None:
    fact = BufferChanged("node", BufferState.FULL)
    with pytest.raises(Invalid, match="BufferChanged is no command"):
        PartitionState(PARTITION).decide(fact, meta(0), NOON)


def test_a_command_in_the_wrong_partition_is_poison() -> None:
    with pytest.raises(Invalid, match=rf"belongs to partition {PARTITION}"):
        PartitionState((PARTITION + 1) % 12).decide(REGISTER, meta(0), NOON)


@pytest.mark.parametrize(("command", "aggregate"), [(REGISTER, LOBBY), (create(), TENANT), (DeleteStream(), TENANT)])
def test_a_command_about_the_wrong_kind_of_aggregate_is_poison(command: Command, aggregate: UUID) -> None:
    with pytest.raises(Invalid, match="cannot be about aggregate"):
        registered().decide(command, meta(1, aggregate), NOON)


def test_a_gap_in_the_log_stops_the_fold() -> None:
    state = PartitionState(PARTITION)
    with pytest.raises(BrokenLog, match="has version 2, not 1"):
        state.fold(StreamRenamed("x"), replace(meta(1, LOBBY), version=2))
    with pytest.raises(BrokenLog, match=r"CreateStream .* is no decision"):
        state.fold(create(), meta(1, LOBBY))


def test_every_command_and_decision_belongs_to_one_aggregate() -> None:
    for kind, of in (("commands", Command), ("events", Decision)):
        lists = [getattr(a, kind) for a in AGGREGATES]
        assert sum(map(len, lists)) == len(set().union(*lists)), f"two aggregates share {kind}"
        assert set().union(*lists) == set(get_args(of))


def test_answers_are_forgotten_in_time_whatever_the_order_of_arrival() -> None:
    answers = Answers(window=timedelta(seconds=10))
    for n, second in enumerate([0, 5, 3, 14, 14, 30]):
        outcome = CommandHandled(derive(TENANT, n), "DeleteStream", b"", CommandStatus.ACCEPTED, 0)
        answers.remember(outcome, meta(n, at=NOON + timedelta(seconds=second)))
    assert len(answers) == 1
    assert answers.horizon == NOON + timedelta(seconds=20)


# Any sequence of commands: a few tenants, streams, slugs and ids, so that they meet.
SAME_PARTITION = [t for t in (derive(TENANT, "tenant", n) for n in range(200)) if partition_of(t) == PARTITION][:2]
STREAMS = {t: [derive(t, "stream", n) for n in range(3)] for t in SAME_PARTITION}
HASHES = st.sampled_from([b"a" * 32, b"b" * 32, b"c" * 32])
WISHES: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        CreateStream,
        st.sampled_from(["A", "B", ""]),
        st.sampled_from(["a", "b", "-"]),
        st.just("p"),
        st.just("i"),
        st.just("k"),
        HASHES,
    ),
    st.builds(RenameStream, st.sampled_from(["A", "B", ""])),
    st.builds(RotateStreamKey, st.just("k"), HASHES, st.sampled_from([0, 60, -1]), st.just(NOON)),
    st.just(DeleteStream()),
)


PREFIXES = st.sampled_from(["fwt_abc", "fwt_b", "fwt_c"])
OF_TENANT: st.SearchStrategy[Command] = st.one_of(
    st.just(REGISTER), st.builds(IssueApiToken, st.sampled_from(["A", ""]), PREFIXES, HASHES), st.builds(RevokeApiToken, PREFIXES)
)


@st.composite
def sent(draw: st.DrawFn) -> tuple[Command, Meta]:
    tenant = draw(st.sampled_from(SAME_PARTITION))
    is_about_tenant = draw(st.integers(0, 3)) == 0
    command = draw(OF_TENANT if is_about_tenant else WISHES)
    aggregate = tenant if is_about_tenant else draw(st.sampled_from(STREAMS[tenant]))
    at = NOON + timedelta(hours=draw(st.sampled_from([0, 1, 12, 23, 30, 60])))
    return command, meta(draw(st.integers(0, 30)), aggregate, at, tenant)


def written(handled: Sequence[Handled]) -> list[tuple[Event, Meta]]:
    return [pair for h in handled for pair in (*h.events, (h.outcome, h.meta))]


def play(commands: Sequence[tuple[Command, Meta]]) -> tuple[PartitionState, list[Handled]]:
    state = PartitionState(PARTITION)
    out = [handle(state, REGISTER, meta(1000 + n, t, NOON, t)) for n, t in enumerate(SAME_PARTITION[:1])]
    late = NOON + timedelta(days=3)
    return state, out + [handle(state, command, m, late) for command, m in commands]


@settings(max_examples=300, deadline=None)
@for_all(st.lists(sent(), max_size=60))
def test_versions_are_contiguous_slugs_unique_and_a_token_works(commands: list[tuple[Command, Meta]]) -> None:
    versions: dict[UUID, int] = defaultdict(int)
    slugs: dict[UUID, dict[str, UUID]] = defaultdict(dict)
    tokens: dict[UUID, dict[str, bool]] = defaultdict(dict)
    _, handled = play(commands)
    for event, m in written(handled):
        if isinstance(event, CommandHandled):
            assert m.version == 0
            continue
        versions[m.aggregate_id] += 1
        assert m.version == versions[m.aggregate_id]
        match event:
            case StreamCreated(slug=slug):
                assert slug not in slugs[m.tenant_id]
                slugs[m.tenant_id][slug] = m.aggregate_id
            case StreamDeleted(slug=slug):
                assert slugs[m.tenant_id].pop(slug) == m.aggregate_id
            case ApiTokenIssued(token_prefix=prefix):
                assert prefix not in tokens[m.tenant_id], "a token is issued once"
                tokens[m.tenant_id][prefix] = True
            case ApiTokenRevoked(token_prefix=prefix):
                assert tokens[m.tenant_id][prefix], "a token is revoked once"
                tokens[m.tenant_id][prefix] = False
                assert any(tokens[m.tenant_id].values()), "one works always"


@settings(max_examples=300, deadline=None)
@for_all(st.lists(sent(), max_size=60))
def test_each_record_takes_effect_at_most_once(commands: list[tuple[Command, Meta]]) -> None:
    """Also when it comes late or again. An id that is sent anew after its answer was forgotten is a new command."""
    _, handled = play(commands)
    accepted = [h for h in handled if h.outcome.status is CommandStatus.ACCEPTED and not h.is_repeated]
    causes = [(h.meta.causation_id, h.meta.occurred_at) for h in accepted]
    assert len(causes) == len(set(causes))
    ids = [(m.event_id, m.occurred_at) for h in handled if not h.is_repeated for _, m in h.events]
    assert len(ids) == len(set(ids))


@settings(max_examples=200, deadline=None)
@for_all(st.lists(sent(), max_size=40))
def test_sending_everything_again_changes_nothing(commands: list[tuple[Command, Meta]]) -> None:
    state, _ = play(commands)
    boundaries = dict(state.boundaries)
    for command, m in commands:
        assert handle(state, command, m, NOON + timedelta(days=3)).events == ()
    assert state.boundaries == boundaries


@settings(max_examples=200, deadline=None)
@for_all(st.lists(sent(), max_size=60))
def test_folding_what_was_written_gives_the_state_that_wrote_it(commands: list[tuple[Command, Meta]]) -> None:
    state, handled = play(commands)
    folded = PartitionState(PARTITION)
    for event, m in written(handled):
        folded.fold(*decode(encode(event, m)))
    assert folded.boundaries == state.boundaries
    assert folded.answers.horizon == state.answers.horizon
    ids = {m.event_id for _, m in commands}
    assert [folded.answers.get(i) for i in ids] == [state.answers.get(i) for i in ids]
