"""Command workers with one piece of their safety taken out, each in the place where their clients come from.

Invariant: the worker's own code is untouched. A mutant does what a plausible mistake in it would do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aiokafka.structs import OffsetAndMetadata, TopicPartition
from aiokafka.util import commit_structure_validate

from streams.kafka import Cluster
from tests.sim.cluster import SimCluster
from tests.sim.consumer import SimConsumer
from tests.sim.producer import SimProducer


class Mutated:
    """The simulated cluster, to be replaced in parts."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim

    def idempotent_producer(self, client_id: str) -> SimProducer:
        return self.sim.idempotent_producer(client_id)

    def transactional_producer(self, transactional_id: str) -> SimProducer:
        return self.sim.transactional_producer(transactional_id)

    def reader(self, client_id: str, *, committed: bool = True) -> SimConsumer:
        return self.sim.reader(client_id, committed=committed)

    def member(self, group_id: str, session_ms: int) -> SimConsumer:
        return self.sim.member(group_id, session_ms)

    async def leaders(self) -> Mapping[str, Sequence[int]]:
        return await self.sim.leaders()


class NoFencing(Mutated):
    """The transactional id is the instance's, not the partition's: nobody fences anybody."""

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        self._instances = 0

    def transactional_producer(self, transactional_id: str) -> SimProducer:
        self._instances += 1
        return self.sim.transactional_producer(f"{transactional_id}-{self._instances}")


class FoldsUncommitted(Mutated):
    """The fold takes what was aborted for what was decided."""

    def reader(self, client_id: str, *, committed: bool = True) -> SimConsumer:
        return self.sim.reader(client_id, committed=False)


class _PositionFirst(SimProducer):
    async def send_offsets_to_transaction(self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata], group_id: str) -> None:
        at = commit_structure_validate(offsets)
        broker = self._broker
        await self._network.request(self._connection, "OffsetCommit", lambda: broker.groups.of(group_id).offsets.update(at))


class PositionBeforeData(Mutated):
    """The position is committed by itself, before the transaction with the decisions is."""

    def transactional_producer(self, transactional_id: str) -> SimProducer:
        return _PositionFirst(self.sim.network, self.sim.broker, transactional_id)


class _FencesLate(SimProducer):
    _is_late = True

    async def start(self) -> None:
        """Nothing yet."""

    async def begin_transaction(self) -> None:
        if self._is_late:
            self._is_late = False
            await super().start()
        await super().begin_transaction()

    async def stop(self) -> None:
        if not self._is_late:
            await super().stop()


class FencesLate(Mutated):
    """Position and state are read before the writer before is fenced, not after."""

    def transactional_producer(self, transactional_id: str) -> SimProducer:
        return _FencesLate(self.sim.network, self.sim.broker, transactional_id)


class _AsksFirst(SimProducer):
    def __init__(
        self, sim: SimCluster, transactional_id: str, found: dict[int, int | None], commands: str, group_id: str
    ) -> None:
        super().__init__(sim.network, sim.broker, transactional_id)
        self._tp = TopicPartition(commands, int(transactional_id.rsplit("-", 1)[1]))
        self._found, self._of = found, group_id

    async def start(self) -> None:
        answer = await self._network.request(
            self._coordination, "OffsetFetch", lambda: self._broker.committed(self._of, [self._tp])
        )
        position = answer[self._tp]
        self._found[self._tp.partition] = None if position is None else int(position.offset)
        await super().start()


class PositionBeforeFencing(Mutated):
    """The position is read before the writer before is fenced; the fold after it, as it should be."""

    def __init__(self, sim: SimCluster, commands: str = "sim.fw.commands", group_id: str = "sim.commands") -> None:
        super().__init__(sim)
        self._found: dict[int, int | None] = {}
        self._commands, self._group_id = commands, group_id

    def transactional_producer(self, transactional_id: str) -> SimProducer:
        return _AsksFirst(self.sim, transactional_id, self._found, self._commands, self._group_id)

    def member(self, group_id: str, session_ms: int) -> SimConsumer:
        member, found = super().member(group_id, session_ms), self._found

        async def committed(partition: TopicPartition) -> int | None:
            return found[partition.partition]

        member.committed = committed  # type: ignore[method-assign]
        return member


MUTANTS: Final[Mapping[str, Callable[[SimCluster], Cluster]]] = {
    "no fencing": NoFencing,
    "fold without read_committed": FoldsUncommitted,
    "position committed before data": PositionBeforeData,
    "position read before fencing": PositionBeforeFencing,
    "fenced after position and fold were read": FencesLate,
}
"""By the mistake."""
