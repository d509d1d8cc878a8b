"""How news of the policy get into the table and onto the disk.

Invariants
* A record without the platform's signature changes nothing: it is counted and told in the log, and the last good one stays.
* A record, its signature and up to where the policy is known go to the disk in that order, so a node that is killed knows at most
  less than it has, and is told it again. A node says that it knows a whole snapshot once that is on its disk (or the disk refused
  it): whoever saw it ready and kills it finds it ready again.
* Signatures take their time: records are taken in slices of about a millisecond, between which triggers are answered. Not in a
  thread: verifying holds the interpreter, and whoever waits for it waits longer than a slice.
* What is on the disk was verified before it got there. It lies in a directory that is the agent's alone, and is not verified
  again at a start: whoever can write there can also replace the agent's key.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

import msgspec

from edge_agent.journal import Journal
from edge_agent.journal_file import PolicyRow, Upkeep
from edge_agent.policy import PolicyTable
from streams.codec import decode_policy, encode_policy
from streams.errors import Invalid
from streams.generated import Policy, PolicyConfirmed, StreamTasks
from streams.ingress.credentials import read
from streams.ingress.line import Credential
from streams.ingress.policy_news import Known, PolicyNews, Signed
from streams.ingress.transport import NodeCertificate
from streams.policies import policy_key
from streams.policy_signing import Verifier
from streams.telemetry import log

POLICY_KNOWN: Final = "policy_is_known"
POLICY_UPTO: Final = "policy_upto"
POLICY_HEARD: Final = "policy_heard_ms"
PINNED_KEY: Final = "policy_key"
SLICE_SECONDS: Final = 0.001
HEARD_EVERY_MS: Final = 60_000  # how often it is written down up to when the policy was current

logger = log(__name__)


class PolicyIntake:
    """Takes news in, one after the other."""

    def __init__(self, journal: Journal, table: PolicyTable, credential: Credential, known: Mapping[str, str]) -> None:
        self._journal, self._table, self._credential = journal, table, credential
        self._pinned = bytes.fromhex(known.get(PINNED_KEY, ""))
        self._verifier: Verifier | None = None
        self._upto = msgspec.json.decode(known[POLICY_UPTO], type=Known) if POLICY_UPTO in known and table.is_known else None
        self._heard_kept_ms = int(known.get(POLICY_HEARD, 0))
        self._snapshot: _Snapshot | None = None
        self._is_followed = False  # whether this connection has told all that was there before it
        self.refused_total = 0
        if table.is_known and self._heard_kept_ms:
            table.heard_ms = self._heard_kept_ms

    def begins(self) -> Known | None:
        """A connection is made: up to where the policy is known. What came of a snapshot before is forgotten."""
        self._snapshot = None
        self._is_followed = False
        self._verifier = None  # the credential may have been replaced
        return self._upto

    async def take(self, news: PolicyNews, now_ms: int) -> None:
        known = list(self._pin(news))
        if news.of_snapshot and self._snapshot is None:
            self._snapshot = _Snapshot(self._table.keys())
        rows, secrets_gone = list[PolicyRow](), list[UUID]()
        async for key, policy, row in self._verified(news.records):
            secrets_gone += _no_longer_named(self._table.get(key), policy)
            for changed in self._table.update([policy], now_ms).values():
                rows.append(replace(row, kept=encode_policy(changed) if changed != policy else None))
        secrets = [(i, value) for i, value in news.secrets if self._table.secrets.get(i) != value]
        self._table.secrets.update(secrets)
        gone: frozenset[UUID] = frozenset()
        is_whole = self._snapshot is not None and news.is_complete
        if self._snapshot is not None:
            self._snapshot.secrets.update(i for i, _ in news.secrets)
            if is_whole:
                gone = self._end(self._snapshot)
                secrets_gone = [i for i in self._table.secrets if i not in self._snapshot.secrets]
                known.append((POLICY_KNOWN, "yes"))
                self._snapshot = None
        for each in secrets_gone:
            self._table.secrets.pop(each, None)
        self._confirm(news, now_ms)
        known += self._remembered(news)
        if rows or gone or secrets or secrets_gone or known:
            upkeep = Upkeep(
                policies=tuple(rows),
                policies_gone=tuple(gone),
                secrets=tuple(secrets),
                secrets_gone=tuple(secrets_gone),
                known=tuple(known),
            )
            if is_whole:
                await self._journal.kept(upkeep)  # also behind all that was queued before it
            else:
                self._journal.write(upkeep)
        if is_whole:
            self._table.is_known = True

    async def _verified(self, records: Iterable[Signed]) -> AsyncIterator[tuple[UUID, Policy, PolicyRow]]:
        """Those that are the platform's, in slices."""
        until = time.perf_counter() + SLICE_SECONDS
        for signed in records:
            if time.perf_counter() > until:
                await asyncio.sleep(0)
                until = time.perf_counter() + SLICE_SECONDS
            if (policy := self._read(signed)) is None:
                continue
            key = policy_key(policy)
            if self._snapshot is not None:
                self._snapshot.missing.discard(key)  # also of one that is refused: the last good one stays
            if self._is_good(signed):
                yield key, policy, PolicyRow(key, signed.value, signed.signature)

    def _read(self, signed: Signed) -> Policy | None:
        try:
            return decode_policy(signed.value)
        except Invalid as reason:
            self._refuse(str(reason))
            return None

    def _is_good(self, signed: Signed) -> bool:
        if self._verifier is not None and self._verifier.is_good(signed.value, signed.signature):
            return True
        self._refuse("it does not bear the platform's signature")
        return False

    def _refuse(self, reason: str) -> None:
        self.refused_total += 1
        logger.error("a record of the policy is refused, the last good one stays", reason=reason, refused=self.refused_total)

    def _end(self, snapshot: _Snapshot) -> frozenset[UUID]:
        """Whatever was not in a whole snapshot is none of this node's business."""
        gone = self._table.drop(frozenset(snapshot.missing))
        gc.freeze()  # what is known stays for long, and holds no cycles: the collector need not look through it again and again
        logger.info("the policy is known", streams=len(self._table), gone=len(gone))
        return gone

    def _pin(self, news: PolicyNews) -> Iterator[tuple[str, str]]:
        """Finds the platform's key at the first news of a connection: the credential's, else the one of the first contact."""
        if self._verifier is not None:
            return
        key = self._of_credential() or self._pinned
        if not key and news.public_key:
            key = self._pinned = news.public_key
            yield PINNED_KEY, key.hex()
            logger.warning("the credential has no policy key: the one that the platform said first is kept from now on")
        if news.public_key and key != news.public_key:
            advice = "if the platform has a new master secret, give the node a new credential"
            logger.error("the platform signs with another key than the one known here", advice=advice)
        if key:
            self._verifier = Verifier(key)

    def _of_credential(self) -> bytes | None:
        try:
            shown = self._credential()
            return (shown.policy_key if isinstance(shown, NodeCertificate) else read(shown).policy_key) or None
        except (OSError, ValueError):  # the line says it
            return None

    def _confirm(self, news: PolicyNews, now_ms: int) -> None:
        """Notes up to when the policy is current: by our own clock, where the confirmation was told as it was made."""
        if news.confirmed is not None and self._is_good(news.confirmed):
            policy = self._read(news.confirmed)
            if isinstance(policy, PolicyConfirmed):
                confirmed_ms = round(1000 * policy.confirmed_at.timestamp())
                self._table.heard_ms = now_ms if self._is_followed else min(now_ms, confirmed_ms)
        self._is_followed = self._is_followed or news.known is not None

    def _remembered(self, news: PolicyNews) -> Iterator[tuple[str, str]]:
        if news.known is not None:
            if self._upto != news.known:
                yield POLICY_UPTO, msgspec.json.encode(news.known).decode()
            self._upto = news.known
        heard_ms = self._table.heard_ms
        if heard_ms is not None and not 0 <= heard_ms - self._heard_kept_ms < HEARD_EVERY_MS:
            self._heard_kept_ms = heard_ms
            yield POLICY_HEARD, str(heard_ms)


@dataclass(slots=True)
class _Snapshot:
    """What the parts of a snapshot did not name so far of what is known, and the secrets that they named."""

    missing: set[UUID]
    secrets: set[UUID] = field(default_factory=set)


def _no_longer_named(before: Policy | None, after: Policy) -> Iterable[UUID]:
    """Push targets whose URL is needed no more."""
    if not isinstance(before, StreamTasks) or not isinstance(after, StreamTasks):
        return ()
    return {push.target_id for push in before.pushes} - {push.target_id for push in after.pushes}
