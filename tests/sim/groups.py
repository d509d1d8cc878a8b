"""The group coordinator: who is a member, in which generation, and the positions that a group committed.

Invariant: a generation begins when every member has joined it, or those who did not in time are out. Whoever speaks of another
generation is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aiokafka.errors import (
    IllegalGenerationError,
    InvalidSessionTimeoutError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.sim.loop import SimLoop
from tests.sim.network import Network

State = Literal["empty", "joining", "syncing", "stable"]


@dataclass(frozen=True, slots=True)
class Joined:
    """`members` and their topics are told to the leader, who assigns."""

    member_id: str
    generation: int
    leader: str
    members: Mapping[str, Sequence[str]]


@dataclass(slots=True)
class Member:
    member_id: str
    topics: Sequence[str]
    session_seconds: float
    rebalance_seconds: float
    heard_at: float = 0.0
    joining: asyncio.Future[Joined] | None = None
    syncing: asyncio.Future[Sequence[TopicPartition]] | None = None
    assigned: Sequence[TopicPartition] = ()


@dataclass(slots=True)
class Group:
    state: State = "empty"
    generation: int = 0
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    offsets: dict[TopicPartition, OffsetAndMetadata] = field(default_factory=dict)
    pending: dict[int, dict[TopicPartition, OffsetAndMetadata]] = field(default_factory=dict)
    """By producer: positions of transactions that are not ended."""


class Groups:
    def __init__(self, loop: SimLoop, network: Network, session_floor_ms: int = 1000) -> None:
        self._loop, self._network, self._session_floor_ms = loop, network, session_floor_ms
        self._groups: dict[str, Group] = {}
        self._last_number = 0

    def of(self, group_id: str) -> Group:
        return self._groups.setdefault(group_id, Group())

    def join(
        self, group_id: str, member_id: str, client_id: str, topics: Sequence[str], session_ms: int, rebalance_ms: int
    ) -> asyncio.Future[Joined]:
        if session_ms < self._session_floor_ms:
            raise InvalidSessionTimeoutError()
        group = self.of(group_id)
        if member_id and member_id not in group.members:
            raise UnknownMemberIdError()
        is_new = not member_id
        if is_new:
            self._last_number += 1
            member_id = f"{client_id}-{self._last_number:06}"
            group.members[member_id] = Member(member_id, topics, session_ms / 1000, rebalance_ms / 1000)
            self._network.at(session_ms / 1000, lambda: self._expire(group, member_id))
        member = group.members[member_id]
        member.heard_at = self._loop.time()
        changed = is_new or member.topics != topics or member_id == group.leader
        member.topics = topics
        member.joining = answer = self._loop.create_future()
        if group.state in ("syncing", "stable") and not changed:
            self._tell(group, member)
        else:
            self._rebalance(group)
            self._complete_if_all_joined(group)
        return answer

    def sync(
        self,
        group_id: str,
        member_id: str,
        generation: int,
        assignment: Mapping[str, Sequence[TopicPartition]] | None,
    ) -> asyncio.Future[Sequence[TopicPartition]]:
        group = self.of(group_id)
        member = self._member(group, member_id, generation)
        if group.state == "joining":
            raise RebalanceInProgressError()
        member.syncing = answer = self._loop.create_future()
        if group.state == "syncing" and assignment is not None and member_id == group.leader:
            for name, of in group.members.items():
                of.assigned = assignment.get(name, ())
            group.state = "stable"
        if group.state == "stable":
            for of in group.members.values():
                if of.syncing is not None and not of.syncing.done():
                    of.syncing.set_result(of.assigned)
                    of.heard_at = self._loop.time()
        return answer

    def heartbeat(self, group_id: str, member_id: str, generation: int) -> None:
        group = self.of(group_id)
        self._member(group, member_id, generation).heard_at = self._loop.time()
        if group.state == "joining":
            raise RebalanceInProgressError()

    def leave(self, group_id: str, member_id: str) -> None:
        group = self.of(group_id)
        if member_id not in group.members:
            raise UnknownMemberIdError()
        self._remove(group, member_id)

    def commit(self, group_id: str, member_id: str, generation: int, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        group = self.of(group_id)
        if generation >= 0 or group.members:
            self._member(group, member_id, generation)
            if group.state == "syncing":
                raise RebalanceInProgressError()
        group.offsets.update(offsets)

    @staticmethod
    def _member(group: Group, member_id: str, generation: int) -> Member:
        if member_id not in group.members:
            raise UnknownMemberIdError()
        if generation != group.generation:
            raise IllegalGenerationError()
        return group.members[member_id]

    def _rebalance(self, group: Group) -> None:
        """Asks everybody to join the next generation."""
        if group.state == "joining":
            return
        group.state = "joining"
        for member in group.members.values():
            if member.syncing is not None and not member.syncing.done():
                member.syncing.set_exception(RebalanceInProgressError())
        generation = group.generation
        limit = max(member.rebalance_seconds for member in group.members.values())
        self._network.at(limit, lambda: self._drop_late(group, generation))

    def _drop_late(self, group: Group, generation: int) -> None:
        if group.state == "joining" and group.generation == generation:
            for member in [m for m in group.members.values() if m.joining is None or m.joining.done()]:
                self._remove(group, member.member_id)

    def _complete_if_all_joined(self, group: Group) -> None:
        if group.state != "joining" or not all(m.joining is not None and not m.joining.done() for m in group.members.values()):
            return
        group.generation += 1
        group.state = "syncing"
        if group.leader not in group.members:
            group.leader = next(iter(group.members))
        for member in group.members.values():
            member.heard_at = self._loop.time()
            self._tell(group, member)

    def _tell(self, group: Group, member: Member) -> None:
        if member.joining is not None and not member.joining.done():
            everyone = {m.member_id: m.topics for m in group.members.values()} if member.member_id == group.leader else {}
            member.joining.set_result(Joined(member.member_id, group.generation, group.leader, everyone))

    def _expire(self, group: Group, member_id: str) -> None:
        """Puts out who was not heard of for its session, except while it waits for us; looks again later."""
        member = group.members.get(member_id)
        if member is None:
            return
        if member.joining is not None and not member.joining.done():
            member.heard_at = self._loop.time()
        left = member.heard_at + member.session_seconds - self._loop.time()
        if left <= 1e-9:
            self._remove(group, member_id)
        else:
            self._network.at(left, lambda: self._expire(group, member_id))

    def _remove(self, group: Group, member_id: str) -> None:
        member = group.members.pop(member_id)
        gone: KafkaError = UnknownMemberIdError()
        for future in (member.joining, member.syncing):
            if future is not None and not future.done():
                future.set_exception(gone)
        if group.leader == member_id:
            group.leader = ""
        if not group.members:
            group.state = "empty"
            group.generation += 1
        elif group.state == "joining":
            self._complete_if_all_joined(group)
        else:
            self._rebalance(group)
            self._complete_if_all_joined(group)
