"""What the store reads of a batch, what batches are cut from, and when the watchdog bites."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections import PROJECTIONS, journal, streams
from projections.model import TableProjection
from projections.postgres_store import read_batch
from projections.worker import projection_of
from streams.codec import MAGIC, PREFIX
from streams.faust_batches.app import BatchApp
from streams.faust_batches.fetched import TP, ConsumerRecord
from streams.faust_batches.transport import size_bytes, split
from streams.faust_batches.watchdog import Progress, Since, standing
from streams.generated import StreamRenamed, TenantRegistered
from streams.ids import new_id
from streams.registry import registered
from tests import projection_log as log

TENANT, STREAM = new_id(), new_id()
A = TP("a", 0)


def framings(projection: TableProjection) -> Mapping[bytes, bool]:
    names = {kind.__name__ for kind in projection.handles}
    return {PREFIX.pack(MAGIC, r.id): r.name in names for r in registered()}


def test_only_what_is_handled_is_decoded_and_what_cannot_be_read_is_named() -> None:
    history = log.Log("x")
    history.append(0, TenantRegistered(name="Acme"), log.meta(TENANT, TENANT, version=1))
    wanted = history.append(0, StreamRenamed(title="T"), log.meta(TENANT, STREAM, version=2))
    broken = (wanted.value or b"")[:-1]
    for value in (None, b"", b"\x01nonsense", broken):
        history.append_bytes(0, value)
    batch, unreadable = read_batch(history.records[TP("x", 0)], framings(streams.PROJECTION))
    assert [(d.event, d.partition, d.offset, d.value) for d in batch] == [(StreamRenamed(title="T"), 0, 1, wanted.value)]
    assert [record.offset for record, _ in unreadable] == [2, 3, 4, 5]
    assert all(reason for _, reason in unreadable)


def test_a_broken_body_that_is_not_handled_is_passed_over() -> None:
    history = log.Log("x")
    whole = history.append(0, TenantRegistered(name="Acme"), log.meta(TENANT, TENANT, version=1)).value or b""
    history.append_bytes(0, whole[:-1])
    assert read_batch(history.records[TP("x", 0)], framings(streams.PROJECTION)) == ([], [])


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 10), st.integers(1, 1000))
def test_a_cut_list_is_the_list_within_its_limits(sizes: list[int], max_records: int, max_bytes: int) -> None:
    history = log.Log("x")
    records: list[ConsumerRecord] = [history.append_bytes(0, b"x" * size) for size in sizes]
    batches = list(split(records, max_records, max_bytes))
    assert [record for batch in batches for record in batch] == records
    for batch in batches:
        assert 1 <= len(batch) <= max_records
        assert len(batch) == 1 or sum(map(size_bytes, batch)) <= max_bytes


def progress(end: int | None = 10, fetched: int | None = 10, handled: int = 10, delivered: int = 10) -> Progress:
    known = end is not None and fetched is not None
    return Progress([A], {A: end or 0} if known else {}, {A: fetched or 0} if known else {}, {A: handled}, {A: delivered})


@pytest.mark.parametrize(
    ("seen", "stands"),
    [
        (progress(), False),
        (progress(handled=8), True),  # delivered, not handled
        (progress(end=12), True),  # there is more, and it is not fetched
        (progress(end=12, fetched=12, handled=10, delivered=10), False),  # control records: fetched, nothing to hand out
        (progress(end=None), True),  # the broker is silent
    ],
)
def test_who_stands_still(seen: Progress, stands: bool) -> None:
    since = standing(seen, {}, 1.0)
    again = standing(seen, since, 2.0)
    assert (again[A].at_seconds == 1.0) == stands


def test_any_movement_begins_the_count_anew_and_silence_is_none() -> None:
    since = standing(progress(end=20), {}, 1.0)
    moved = standing(progress(end=20, fetched=11), since, 2.0)
    assert moved[A] == Since((10, 11), 2.0)
    assert standing(progress(end=None), moved, 3.0)[A].at_seconds == 2.0
    assert standing(Progress([], {}, {}, {}, {}), moved, 4.0) == {}


def test_every_projection_is_what_its_name_says() -> None:
    for name in PROJECTIONS:
        projection = projection_of(name)
        assert projection.name == name
        assert projection.topics
        assert projection.handles


@pytest.mark.parametrize("name", ["tenants", "streams", "journal", "routing"])
def test_the_tenant_leads_every_key(name: str) -> None:
    projection = projection_of(name)
    assert isinstance(projection, TableProjection)
    for table in projection.tables:
        assert table.key[0] == "tenant_id"
        assert tuple(c.name for c in table.columns[: len(table.key)]) == table.key


def test_the_journal_handles_every_decision_that_there_is() -> None:
    decisions = {r.name for r in registered() if r.subject.startswith("fw.decisions.")}
    assert decisions <= {kind.__name__ for kind in journal.PROJECTION.handles}


def test_lag_is_what_is_behind_and_control_records_are_none() -> None:
    async def nothing(_: object) -> dict[TP, int | None]:
        return {}

    app = BatchApp("lag", kafka="127.0.0.1:1", load_offsets=nothing)
    assert app.lag() == {}
    app.resumed({A: 10})
    assert app.lag() == {A: 0}
    for end, fetched, handled, lag in ((12, 12, 10, 0), (20, 12, 10, 10), (10, 10, 10, 0)):
        app.handled[A], app.delivered[A] = handled, handled
        app.seen = progress(end=end, fetched=fetched)
        assert app.lag() == {A: lag}
    app.delivered[A] = 11
    assert app.lag() == {A: 1}
