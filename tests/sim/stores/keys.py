"""What the key store's statements do to the rows (`streams/privacy/key_store.py`), known by their text as others are.

Simpler than the real thing: whoever inserts a key waits for everybody else who does, not only for an erasure under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from streams.privacy import key_store
from tests.sim.stores.heap import Heap, Row, Transaction
from tests.sim.stores.records import Record
from tests.sim.stores.statements import Answer, Statement, now

KEYS, ERASURES, POSITIONS = "platform.data_key", "platform.erasure", "platform.reactor_position"
WHOSE: Final = ("tenant_id", "kind", "subject_tag", "day")


async def lock_table(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    await heap.lock(tx, "table locks", (KEYS,))
    return "LOCK TABLE", []


async def insert(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    key_id, tenant_id, kind, subject_tag, day, made_at, expires_at, master_key_id, wrapped = args
    await lock_table(heap, tx, ())
    await heap.lock(tx, KEYS, (key_id,))
    if heap.get(tx, KEYS, (key_id,)) is not None:
        return "INSERT 0 0", []
    row = {"key_id": key_id, "tenant_id": tenant_id, "kind": kind, "subject_tag": subject_tag, "day": day, "made_at": made_at}
    row |= {"expires_at": expires_at, "master_key_id": master_key_id, "wrapped": wrapped, "destroyed_at": None, "by": None}
    return await _written(heap, tx, KEYS, (key_id,), row)


async def refuse_late(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    for key_id in args[0]:
        row = heap.get(tx, KEYS, (key_id,))
        if row is None or row["wrapped"] is None:
            continue
        erased = [e for e in heap.rows(tx, ERASURES) if _of(e) == _of(row) and e["destroyed_at"] >= row["made_at"]]
        if erased or _is_over(row):
            await _destroyed(heap, tx, row, "it came late")
    return "UPDATE", []


async def destroy(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    *whose, erasure_id = args
    before = heap.get(tx, ERASURES, (erasure_id,))
    found = [row for row in heap.rows(tx, KEYS) if row["wrapped"] is not None and _of(row) == tuple(whose)]
    found = [row for row in found if before is None or before["destroyed_at"] >= row["made_at"]]
    for row in found:
        await _destroyed(heap, tx, row, "an erasure")
    return f"UPDATE {len(found)}", []


async def expire_own(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    for row in list(heap.rows(tx, KEYS)):
        if row["wrapped"] is not None and _is_over(row) and row["kind"] in args[0]:
            await _destroyed(heap, tx, row, "its time was over")
    return "UPDATE", []


async def record(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    erasure_id, *whose, count = args
    await heap.lock(tx, ERASURES, (erasure_id,))
    if heap.get(tx, ERASURES, (erasure_id,)) is not None:
        return "INSERT 0 0", []
    row = {"erasure_id": erasure_id, **dict(zip(WHOSE, whose, strict=True)), "keys_destroyed": count, "destroyed_at": now()}
    return await _written(heap, tx, ERASURES, (erasure_id,), row)


async def recorded(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    row = heap.get(tx, ERASURES, (args[0],))
    return "SELECT", [] if row is None else [Record.of(keys_destroyed=row["keys_destroyed"])]


async def due(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    rows = [r for r in heap.rows(tx, KEYS) if r["wrapped"] is not None and _is_over(r) and r["kind"] not in args[0]]
    found = sorted({(r["day"], r["tenant_id"], r["kind"]) for r in rows})
    return "SELECT", [Record.of(tenant_id=tenant_id, kind=kind, day=day) for day, tenant_id, kind in found]


async def of_tenant(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    found = [row for row in heap.rows(tx, KEYS) if row["tenant_id"] == args[0] and row["key_id"] in args[1]]
    return "SELECT", [Record.of(key_id=row["key_id"], kind=row["kind"], wrapped=row["wrapped"]) for row in found]


async def sweep(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    """Old row versions: there are none here."""
    return "VACUUM", []


async def position(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    row = heap.get(tx, POSITIONS, tuple(args))
    return "SELECT", [] if row is None else [Record.of(next_offset=row["next_offset"])]


async def advance(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    *place, new = args
    await heap.lock(tx, POSITIONS, tuple(place))
    old = heap.get(tx, POSITIONS, tuple(place))
    return await _written(heap, tx, POSITIONS, tuple(place), {"next_offset": max(new, old["next_offset"] if old else 0)})


async def _destroyed(heap: Heap, tx: Transaction, row: Row, by: str) -> None:
    """`by` is for the checks alone: no column says it."""
    await heap.lock(tx, KEYS, (row["key_id"],))
    await _written(heap, tx, KEYS, (row["key_id"],), row | {"wrapped": None, "destroyed_at": now(), "by": by})


async def _written(heap: Heap, tx: Transaction, table: str, key: tuple[Any, ...], row: Row) -> Answer:
    heap.put(tx, table, key, row)
    tx.is_durable = True  # synchronous_commit is on, unlike that of projections
    return "INSERT 0 1", []


def _of(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in WHOSE)


def _is_over(row: Row) -> bool:
    return row["expires_at"] is not None and row["expires_at"] <= now()


STATEMENTS: Final[Mapping[str, Statement]] = {
    key_store._INSERT: insert,
    key_store._REFUSE_LATE: refuse_late,
    key_store._LOCK: lock_table,
    key_store._DESTROY: destroy,
    key_store._RECORD: record,
    key_store._RECORDED: recorded,
    key_store._DUE: due,
    key_store._EXPIRE_OWN: expire_own,
    key_store._KEYS: of_tenant,
    key_store._SWEEP: sweep,
    key_store._POSITION: position,
    key_store._ADVANCE: advance,
}


def made(heap: Heap) -> None:
    """The tables, as the migration leaves them."""
    for table in (KEYS, ERASURES, POSITIONS):
        heap.make(table)
