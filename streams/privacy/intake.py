"""The platform's side of sealing at the edge: what edges need for each day, and the data keys that come back.

Invariant: a key is kept only for a tenant that the sending node serves. Days are published ahead, so that an edge which is cut
off goes on sealing to keys that the platform can open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from streams.errors import Invalid, Transient
from streams.generated import PersonalKind
from streams.privacy.envelope import DayKeys, Envelope, Grant, Opener, public_key
from streams.privacy.key_store import INTAKE, PSEUDONYMS, KeyStore, NewKey
from streams.privacy.people import expires_at, whose
from streams.telemetry import log

DAYS_AHEAD: Final = 7
RETRY_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 60.0
_FROM_EDGES: Final = frozenset({PersonalKind.VIEWER, PersonalKind.VIEWER_DAY, PersonalKind.PUBLISHER_DAY, PersonalKind.NODE_DAY})

logger = log(__name__)


def now() -> datetime:
    return datetime.now(UTC)


class Intake:
    """Run `run` as a task; `published` changes once a day."""

    def __init__(self, store: KeyStore, secret_key: bytes, kept_days: int, clock: Callable[[], datetime] = now) -> None:
        self._store, self._secret_key, self._kept_days, self._clock = store, secret_key, kept_days, clock
        self.published: tuple[DayKeys, ...] = ()
        self._private: dict[date, bytes] = {}
        self._opener = Opener()

    async def run(self) -> None:
        """Keeps the coming days published, until cancelled. Without its database it tries again."""
        was_away = False
        while True:
            try:
                await self.refresh()
            except Transient as error:
                if not was_away:
                    logger.warning("no keys for edges yet, trying again", reason=str(error))
                was_away = True
                await asyncio.sleep(RETRY_SECONDS)
            else:
                was_away = False
                await asyncio.sleep(LOOK_SECONDS)

    async def refresh(self) -> None:
        """Makes the keys of today and of the days ahead where they are missing. Raises Transient."""
        today = self._clock().date()
        days = [today + timedelta(days=n) for n in range(DAYS_AHEAD)]
        if [d.day for d in self.published] == days:
            return
        published = []
        for day in days:
            intake, pseudonyms = await self._day_key(INTAKE, day), await self._day_key(PSEUDONYMS, day)
            if intake is not None and pseudonyms is not None:
                self._private[day] = intake
                published.append(DayKeys(day, public_key(intake), pseudonyms))
        self.published = tuple(published)
        self._private = {day: key for day, key in self._private.items() if day >= today - timedelta(days=1)}

    async def take(self, envelopes: Sequence[Envelope], serves: Callable[[UUID], bool]) -> dict[UUID, str]:
        """Keeps what is in them, durably. Gives the refused ones, with a sentence. Raises Transient: nothing is promised."""
        keys: list[NewKey] = []
        refused: dict[UUID, str] = {}
        for envelope in envelopes:
            try:
                keys.append(self._checked(await self._opened(envelope), serves))
            except Invalid as reason:
                refused[envelope.key_id] = str(reason)
        if keys:
            await self._store.register(keys)
        return refused

    async def _opened(self, envelope: Envelope) -> Grant:
        intake = self._private.get(envelope.day) or await self._intake_of(envelope.day)
        if intake is None:
            raise Invalid(f"the intake key of {envelope.day} is destroyed: what was sealed then stays unreadable")
        return self._opener.open(envelope, intake)

    async def _intake_of(self, day: date) -> bytes | None:
        """Of a past day, or of one that another process published."""
        today = self._clock().date()
        if not timedelta(days=-self._kept_days - 1) <= day - today <= timedelta(days=DAYS_AHEAD):
            return None
        return await self._day_key(INTAKE, day)

    async def _day_key(self, kind: str, day: date) -> bytes | None:
        over = expires_at(day, self._kept_days)
        assert over is not None
        return await self._store.day_key(kind, day, self._clock(), over)

    def _checked(self, grant: Grant, serves: Callable[[UUID], bool]) -> NewKey:
        person, now = grant.person, self._clock()
        if person.kind not in _FROM_EDGES:
            raise Invalid(f"a node has no keys of the kind {person.kind}")
        if (person.subject is None) == (person.kind is PersonalKind.VIEWER):
            raise Invalid(f"a key of kind {person.kind} {'needs a' if person.subject is None else 'has no'} subject")
        if (person.day is None) != (person.kind is PersonalKind.VIEWER):
            raise Invalid(f"a key of kind {person.kind} {'needs a' if person.day is None else 'has no'} day")
        if not serves(person.tenant_id):
            raise Invalid(f"the node's credential is not bound to tenant {person.tenant_id}")
        # A clock that is ahead must not make a key younger than an erasure, nor a day longer than it is.
        made_at = min(datetime.fromtimestamp(max(0, grant.made_ms) / 1000, UTC), now)
        day = None if person.day is None else min(person.day, now.date() + timedelta(days=1))
        over = expires_at(day, self._kept_days)
        return NewKey(grant.key_id, grant.key, whose(self._secret_key, person), made_at, over)
