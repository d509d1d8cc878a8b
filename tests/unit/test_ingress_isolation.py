"""The item at which the ingress fails is found, and only it is given up; an ingress that fails at everything loses nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.ingress.isolation import GIVEN_UP_AFTER, UNEXPLAINED_GIVEN_UP_AFTER, Isolation


def search(
    aggregates: list[int], poison: set[int], *, is_explained: bool = True, steps: int = 20_000
) -> tuple[Isolation, list[int]]:
    """Runs a search against an ingress that fails at some items; gives what it took, in order."""
    isolation = Isolation(len(aggregates), lambda one, other: aggregates[one] == aggregates[other])
    taken: list[int] = []
    for _ in range(steps):
        part = isolation.part
        if part is None:
            break
        if poison & set(part):
            isolation.failed("UNKNOWN: a bug", is_explained=is_explained)
        else:
            taken += part
            isolation.passed()
    return isolation, taken


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.data(), st.booleans())
def test_only_the_poison_is_given_up_and_order_is_kept(aggregates: list[int], data: st.DataObject, is_explained: bool) -> None:
    poison = data.draw(st.sets(st.integers(0, len(aggregates) - 1), max_size=3))
    good = [n for n in range(len(aggregates)) if n not in poison]
    isolation, taken = search(aggregates, poison, is_explained=is_explained)
    if isolation.part is None:
        assert set(isolation.given_up) == poison
        assert sorted(taken) == good
    else:  # nothing of another aggregate is good, so nothing tells the poison from an ingress that is broken
        assert not isolation.given_up
        assert not taken
    for aggregate in set(aggregates):
        of_it = [n for n in taken if aggregates[n] == aggregate]
        assert of_it == sorted(of_it)


def test_an_ingress_that_fails_at_everything_makes_nobody_give_up() -> None:
    isolation, taken = search([n % 5 for n in range(50)], set(range(50)))
    assert isolation.part
    assert not taken
    assert not isolation.given_up


def test_how_often_it_has_to_fail_alone() -> None:
    for is_explained, times in ((True, GIVEN_UP_AFTER), (False, UNEXPLAINED_GIVEN_UP_AFTER)):
        isolation = Isolation(2, lambda one, other: one == other)
        for _ in range(2):
            isolation.failed("x", is_explained=is_explained)
        isolation.passed()  # the first half
        for n in range(times):
            assert not isolation.given_up, n
            isolation.failed("x", is_explained=is_explained)
        assert list(isolation.given_up) == [1]
        assert isolation.part is None
