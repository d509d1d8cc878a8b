"""The transaction coordinator: who may write under a transactional id, and what becomes of what was written.

Invariant: of all producers of an id only the one that was initialised last goes on. A transaction is decided once, by the
record of its end; its markers reach the partitions later, one by one, and until the last has, nothing new begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from aiokafka.errors import ConcurrentTransactions, InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.sim.groups import Groups
from tests.sim.network import Network
from tests.sim.partition_log import PartitionLog

State = Literal["empty", "ongoing", "ending", "committed", "aborted"]


@dataclass(slots=True)
class Transaction:
    """Of one transactional id: the one that is under way, or the last."""

    producer_id: int
    epoch: int
    timeout_seconds: float
    state: State = "empty"
    number: int = 0
    partitions: dict[TopicPartition, None] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)


class Transactions:
    def __init__(
        self, network: Network, groups: Groups, log: Callable[[TopicPartition], PartitionLog], now_ms: Callable[[], int]
    ) -> None:
        self._network, self._groups, self._log, self._now_ms = network, groups, log, now_ms
        self._transactions: dict[str, Transaction] = {}
        self._last_producer_id = 1000
        self.on_stable: Callable[[TopicPartition], None] = lambda _: None

    def new_producer_id(self) -> int:
        self._last_producer_id += 1
        return self._last_producer_id

    def init(self, transactional_id: str, timeout_ms: int) -> tuple[int, int]:
        """Producer id and epoch of a new owner; ends what the one before left open, and asks to come again meanwhile."""
        known = self._transactions.get(transactional_id)
        if known is None:
            known = self._transactions[transactional_id] = Transaction(self.new_producer_id(), -1, 0)
        if known.state == "ongoing":
            known.epoch += 1  # from now on the one before is fenced
            self._end(known, commits=False)
        if known.state == "ending":
            raise ConcurrentTransactions()
        known.epoch += 1
        known.timeout_seconds = timeout_ms / 1000
        known.state = "empty"
        return known.producer_id, known.epoch

    def add_partitions(self, transactional_id: str, producer_id: int, epoch: int, partitions: Iterable[TopicPartition]) -> None:
        self._begun(transactional_id, producer_id, epoch).partitions.update(dict.fromkeys(partitions))

    def add_group(self, transactional_id: str, producer_id: int, epoch: int, group_id: str) -> None:
        self._begun(transactional_id, producer_id, epoch).groups[group_id] = None

    def require_member(self, transactional_id: str, producer_id: int, epoch: int, tp: TopicPartition) -> None:
        """A record of a transaction may only lie where the transaction says that it does."""
        known = self._transactions.get(transactional_id)
        if known is None or known.producer_id != producer_id:
            raise InvalidProducerIdMapping()
        if tp not in known.partitions or known.state != "ongoing":
            if epoch < known.epoch:
                raise InvalidProducerEpoch()
            raise InvalidTxnState()

    def commit_offsets(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        group_id: str,
        offsets: dict[TopicPartition, OffsetAndMetadata],
    ) -> None:
        """Positions that count when the transaction is committed."""
        known = self._known(transactional_id, producer_id, epoch)
        if known.state != "ongoing" or group_id not in known.groups:
            raise InvalidTxnState()
        self._groups.of(group_id).pending.setdefault(producer_id, {}).update(offsets)

    def end(self, transactional_id: str, producer_id: int, epoch: int, commits: bool) -> None:
        known = self._known(transactional_id, producer_id, epoch)
        if known.state == ("committed" if commits else "aborted"):
            return  # said again
        if known.state == "ending":
            raise ConcurrentTransactions()
        if known.state != "ongoing":
            raise InvalidTxnState()
        self._end(known, commits)

    def _known(self, transactional_id: str, producer_id: int, epoch: int) -> Transaction:
        known = self._transactions.get(transactional_id)
        if known is None or known.producer_id != producer_id:
            raise InvalidProducerIdMapping()
        if epoch != known.epoch:
            raise InvalidProducerEpoch()
        return known

    def _begun(self, transactional_id: str, producer_id: int, epoch: int) -> Transaction:
        known = self._known(transactional_id, producer_id, epoch)
        if known.state == "ending":
            raise ConcurrentTransactions()
        if known.state != "ongoing":
            known.state = "ongoing"
            known.number += 1
            known.partitions, known.groups = {}, {}
            number = known.number
            self._network.at(known.timeout_seconds, lambda: self._time_out(known, number))
        return known

    def _time_out(self, known: Transaction, number: int) -> None:
        if known.state == "ongoing" and known.number == number:
            known.epoch += 1
            self._end(known, commits=False)

    def _end(self, known: Transaction, commits: bool) -> None:
        known.state = "ending"
        left = len(known.partitions) + len(known.groups)

        def written() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                known.state = "committed" if commits else "aborted"

        def mark(tp: TopicPartition) -> None:
            self._log(tp).mark(known.producer_id, known.epoch, commits, self._now_ms())
            self.on_stable(tp)
            written()

        def settle(group_id: str) -> None:
            group = self._groups.of(group_id)
            offsets = group.pending.pop(known.producer_id, {})
            if commits:
                group.offsets.update(offsets)
            written()

        for tp in known.partitions:
            self._network.at(self._network.latency(), lambda tp=tp: mark(tp))  # type: ignore[misc]
        for group_id in known.groups:
            self._network.at(self._network.latency(), lambda group_id=group_id: settle(group_id))  # type: ignore[misc]
