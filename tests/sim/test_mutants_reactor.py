"""A test of the tests: the erasure reactor with one mistake. The machine must find each."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from commands.reactors.follow import Follower
from streams.privacy import key_store
from streams.privacy.key_store import KeyStore, NewKey
from streams.privacy.people import Whose
from tests.sim.command_model import Wrong
from tests.sim.stores.reactor import Mutation
from tests.sim.stores.reactor_machine import explore

BOUND = 60
"""Examples of 20 steps within which a mistake has to be found."""


class PositionFirst(Follower):
    """Moves the position, then reacts."""

    async def _handle(self, tp: TopicPartition, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        await self._store.advance(self._reactor.name, tp.topic, tp.partition, records[-1].offset + 1)
        await super()._handle(tp, records)


class CountsAnew(KeyStore):
    """Says how many keys it destroyed this time, not how many the erasure did."""

    async def destroy(self, erasure_id: UUID, whose: Whose) -> int:
        of = (whose.tenant_id, whose.kind.value, whose.subject_tag, whose.day)
        async with self._transaction() as db:
            await db.execute(key_store._LOCK)
            done = await db.execute(key_store._DESTROY, *of, erasure_id)
            count = int(done.rpartition(" ")[2])
            await db.execute(key_store._RECORD, erasure_id, *of, count)
        return count


class KeepsLate(KeyStore):
    """Keeps a key that comes after the erasure of whom it is of."""

    async def register(self, keys: Sequence[NewKey]) -> None:
        await super().register([])
        master = await self._master()
        async with self._transaction() as db:
            for k in keys:
                of = (k.whose.tenant_id, k.whose.kind.value, k.whose.subject_tag, k.whose.day)
                wrapped = master.wrap(k.key, key_store._bound_to(k.key_id, k.whose.tenant_id, k.whose.kind.value))
                await db.execute(key_store._INSERT, k.key_id, *of, k.made_at, k.expires_at, master.id, wrapped)


POSITION_FIRST = Mutation(follower=PositionFirst)


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(POSITION_FIRST, id="position before the effect"),
        pytest.param(Mutation(store=CountsAnew), id="a repeated effect is counted anew"),
        pytest.param(Mutation(store=KeepsLate), id="a key that comes late is kept"),
    ],
)
def test_the_machine_finds_the_mistake(mutation: Mutation) -> None:
    with pytest.raises(Wrong):
        explore(mutation, BOUND)
