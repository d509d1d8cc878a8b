"""What this node knows of the streams that it serves: who may publish, what may be watched, what shall be done with them.

Invariant: the table outlives the platform's absence; it is on disk and answers every question alone. A key that once worked
stays known as expired, so that a publisher who was forgotten by a rotation is told so, and not that the key never existed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from streams.generated import IngestRejection, NodePolicy, Policy, StreamKey, StreamPolicy, StreamTasks, TenantPolicy
from streams.ids import node_uuid
from streams.playback.publishing import key_refusal
from streams.policies import policy_key

LIVE: Final = "live+"
FORMER_KEYS: Final = 16  # expired keys remembered per stream
VALIDITY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of an offered key: a stream, and why not if it does not open it."""

    stream: StreamPolicy | None
    key_prefix: str | None
    refusal: IngestRejection | None


class PolicyTable:
    """Streams by internal name, by playback id and by the hash of their keys; their tenants; this node."""

    def __init__(
        self, policies: Iterable[Policy] = (), *, is_known: bool = False, validity_seconds: int = VALIDITY_SECONDS
    ) -> None:
        self.is_known = is_known  # whether a whole snapshot was ever received, and is on the disk if that takes anything
        self.heard_ms: int | None = None  # up to when it is known to be current; None: nobody ever said so
        self.secrets: dict[UUID, bytes] = {}  # of what is no matter for a topic, by the id of what it is for
        self.follow: Callable[[Policy | None, Policy | None], None] | None = None  # told of each change: old, new
        self._validity_ms = 1000 * validity_seconds
        self._all: dict[UUID, Policy] = {}  # by key; the other tables are ways into it
        self._streams: dict[UUID, StreamPolicy] = {}
        self._by_name: dict[str, UUID] = {}
        self._by_playback_id: dict[str, UUID] = {}
        self._by_key: dict[bytes, tuple[UUID, StreamKey]] = {}
        for policy in policies:
            self._index(policy)

    def __len__(self) -> int:
        return len(self._streams)

    def is_stale(self, now_ms: int) -> bool:
        """Whether so much time went by without a confirmation of the platform that what is known may not be true any more."""
        return self.heard_ms is not None and now_ms - self.heard_ms > self._validity_ms

    def secret(self, id: UUID) -> bytes | None:
        return self.secrets.get(id)

    def get(self, key: UUID) -> Policy | None:
        """Whatever is known under a key (`streams.policies.policy_key`)."""
        return self._all.get(key)

    def tenant(self, tenant_id: UUID) -> TenantPolicy | None:
        found = self._all.get(tenant_id)
        return found if isinstance(found, TenantPolicy) else None

    def node(self, node_id: str) -> NodePolicy | None:
        found = self._all.get(node_uuid(node_id))
        return found if isinstance(found, NodePolicy) else None

    def tasks(self) -> Sequence[StreamTasks]:
        """What shall be done, of all streams."""
        return [p for p in self._all.values() if isinstance(p, StreamTasks)]

    def streams_of(self, tenant_id: UUID) -> Sequence[StreamPolicy]:
        return [stream for stream in self._streams.values() if stream.tenant_id == tenant_id]

    def stream(self, stream_id: UUID) -> StreamPolicy | None:
        return self._streams.get(stream_id)

    def by_media_name(self, name: str) -> StreamPolicy | None:
        """The stream that the media server calls by this name (`live+…`), deleted or not; None: not one of ours."""
        stream_id = self._by_name.get(name[len(LIVE) :]) if name.startswith(LIVE) else None
        return None if stream_id is None else self._streams[stream_id]

    def by_playback_id(self, playback_id: str) -> StreamPolicy | None:
        stream_id = self._by_playback_id.get(playback_id)
        return None if stream_id is None else self._streams[stream_id]

    def verdict(self, offered: str, now_ms: int) -> Verdict:
        """Whether an offered key opens a stream at this time."""
        found = self._by_key.get(sha256(offered.encode()).digest())
        if found is None:
            return Verdict(None, None, IngestRejection.UNKNOWN_KEY)
        stream, key = self._streams[found[0]], found[1]
        return Verdict(stream, key.prefix, key_refusal(stream, key, datetime.fromtimestamp(now_ms / 1000, UTC)))

    def update(self, policies: Iterable[Policy], now_ms: int) -> Mapping[UUID, Policy]:
        """Takes newer policies in. Gives what has to be stored, by key: they, and the keys of before that they no longer name."""
        changed: dict[UUID, Policy] = {}
        for newer in policies:
            key = policy_key(newer)
            policy = _with_former_keys(newer, self._streams.get(key), now_ms) if isinstance(newer, StreamPolicy) else newer
            known = self._all.get(key)
            if policy != known:
                self._index(policy)
                changed[key] = policy
                self._tell(known, policy)
        return changed

    def keys(self) -> set[UUID]:
        """Of everything that is known."""
        return set(self._all)

    def drop(self, gone: frozenset[UUID]) -> frozenset[UUID]:
        """A whole snapshot was received, without these. Gives what was dropped."""
        for key in gone:
            known = self._all.get(key)
            self._forget(key)
            self._tell(known, None)
        return gone

    def _tell(self, old: Policy | None, new: Policy | None) -> None:
        if self.follow is not None:
            self.follow(old, new)

    def _index(self, policy: Policy) -> None:
        self._forget(policy_key(policy))
        self._all[policy_key(policy)] = policy
        if isinstance(policy, StreamPolicy):
            self._index_stream(policy)

    def _index_stream(self, policy: StreamPolicy) -> None:
        self._streams[policy.stream_id] = policy
        self._by_name[policy.internal_name] = policy.stream_id
        if policy.playback_id:
            self._by_playback_id[policy.playback_id] = policy.stream_id
        for key in policy.keys:
            self._by_key[key.hash] = (policy.stream_id, key)

    def _forget(self, key: UUID) -> None:
        self._all.pop(key, None)
        known = self._streams.pop(key, None)
        if known is None:
            return
        self._by_name.pop(known.internal_name, None)
        self._by_playback_id.pop(known.playback_id, None)
        for former in known.keys:
            self._by_key.pop(former.hash, None)


def _with_former_keys(policy: StreamPolicy, known: StreamPolicy | None, now_ms: int) -> StreamPolicy:
    if known is None:
        return policy
    named = {key.hash for key in policy.keys}
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    former = [
        replace(key, valid_until=now if key.valid_until is None else min(key.valid_until, now))
        for key in known.keys
        if key.hash not in named
    ]
    return replace(policy, keys=(*policy.keys, *former)[: len(policy.keys) + FORMER_KEYS]) if former else policy
