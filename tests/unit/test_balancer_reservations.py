"""Virtual viewers and their races: each counts once, from the redirect until the node's own numbers have it, or 30 s."""

from __future__ import annotations

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from gateway.balancer.reservations import EXPIRE_MS, SAMPLE_MARGIN_MS, Reservations

A, B = (UUID(int=1), UUID(int=10)), (UUID(int=2), UUID(int=10))  # the same stream id under two tenants is two streams
NOW = 1_795_000_000_000


def test_a_viewer_counts_from_the_redirect_until_the_node_counts_it() -> None:
    changes: list[tuple[str, int]] = []
    virtual = Reservations(lambda node_id, change: changes.append((node_id, change)))
    virtual.reserve("n", A, 100, NOW)
    assert (virtual.bytes_per_second("n"), virtual.viewers("n"), len(virtual)) == (100, 1, 1)
    assert virtual.joined("n", A, uuid4(), NOW + 2000)
    assert virtual.viewers("n") == 1, "no sample has it yet: it would count nowhere"
    virtual.sampled("n", NOW + 2000 + SAMPLE_MARGIN_MS - 1)
    assert virtual.viewers("n") == 1
    virtual.sampled("n", NOW + 2000 + SAMPLE_MARGIN_MS)
    assert (virtual.bytes_per_second("n"), virtual.viewers("n")) == (0, 0)
    assert virtual.expire(NOW + 10 * EXPIRE_MS) == 0
    assert changes == [("n", 100), ("n", -100)]


def test_who_does_not_come_expires_and_who_comes_later_ends_nobody_else_s_wait() -> None:
    virtual = Reservations()
    virtual.reserve("n", A, 1, NOW)
    virtual.reserve("n", A, 2, NOW + 10_000)
    assert virtual.expire(NOW + EXPIRE_MS - 1) == 0
    assert virtual.expire(NOW + EXPIRE_MS) == 1
    assert virtual.bytes_per_second("n") == 2
    assert virtual.joined("n", A, uuid4(), NOW + EXPIRE_MS + 1), "it cannot be told apart from the second"
    assert not virtual.joined("n", A, uuid4(), NOW + EXPIRE_MS + 2)
    assert virtual.expire(NOW + 10_000 + EXPIRE_MS) == 0, "somebody came"
    assert len(virtual) == 0


def test_a_join_that_is_heard_of_twice_ends_one_wait() -> None:
    virtual = Reservations()
    for _ in range(2):
        virtual.reserve("n", A, 1, NOW)
    viewing = uuid4()
    assert virtual.joined("n", A, viewing, NOW)
    assert not virtual.joined("n", A, viewing, NOW)
    virtual.sampled("n", NOW + 5000)
    assert virtual.viewers("n") == 1


def test_a_join_elsewhere_before_the_redirect_or_of_another_stream_ends_nothing() -> None:
    virtual = Reservations()
    assert not virtual.joined("n", A, uuid4(), NOW)
    virtual.reserve("n", A, 1, NOW)
    assert not virtual.joined("m", A, uuid4(), NOW)
    assert not virtual.joined("n", B, uuid4(), NOW)
    virtual.sampled("n", NOW + 60_000)
    assert virtual.viewers("n") == 1


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from("nm"), st.sampled_from([A, B]), st.integers(1, 9)),
        st.tuples(st.just("join"), st.sampled_from("nm"), st.sampled_from([A, B]), st.integers(0, 5)),
        st.tuples(st.just("sample"), st.sampled_from("nm"), st.just(A), st.just(0)),
        st.tuples(st.just("wait"), st.just("n"), st.just(A), st.integers(0, 20_000)),
    ),
    max_size=60,
)


@given(EVENTS)
def test_whatever_happens_in_whatever_order_counts_are_never_negative_and_all_end(
    events: list[tuple[str, str, tuple[UUID, UUID], int]],
) -> None:
    told: dict[str, int] = {}

    def changed(node_id: str, change: int) -> None:
        told[node_id] = told.get(node_id, 0) + change

    virtual, now, made = Reservations(changed), NOW, 0
    for what, node_id, stream, number in events:
        match what:
            case "reserve":
                virtual.reserve(node_id, stream, number, now)
                made += 1
            case "join":
                virtual.joined(node_id, stream, UUID(int=number), now)
            case "sample":
                virtual.sampled(node_id, now)
            case _:
                now += number
                virtual.expire(now)
        assert len(virtual) <= made
        for node in "nm":
            assert told.get(node, 0) == virtual.bytes_per_second(node) >= virtual.viewers(node) >= 0
    virtual.expire(now + EXPIRE_MS)
    assert len(virtual) == 0
    assert set(told.values()) <= {0}
