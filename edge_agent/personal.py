"""What the edge knows of people, made unreadable before it is written anywhere.

Invariants
* An address, a viewer's name or a raw body is on disk, on the wire and in a fact only sealed. Where nothing to seal with was ever
  received it is dropped: a fact without an address is a fact, an address in the clear is for ever.
* A data key is in memory only. Its envelope, which the platform alone can open, is written in the transaction of the first fact
  that it sealed something for, and stays until the platform has it.
* A data key is used for some minutes and then another is made: after an erasure the next one is a person's new key.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edge_agent.node_state import NodeState
from edge_agent.shelf import Change
from streams.generated import PersonalKind
from streams.ids import new_id
from streams.privacy.envelope import SUBJECT_MAX_CHARACTERS, Courier, DayKeys, Envelope, Grant
from streams.privacy.people import Person, viewer_day
from streams.privacy.sealing import KEY_USES, new_key, seal

KEY_SECONDS: Final = 600
DAY_MS: Final = 24 * 3_600_000
KEYS_IN_MEMORY: Final = 20_000
_TOKEN_PARAMETERS: Final = ("jwt", "tkn", "token")


@dataclass(slots=True)
class _Key:
    key_id: UUID
    aead: AESGCM
    made_ms: int
    uses: int = 0


class Sealer:
    """Seals with a key per person. One event loop; nothing here waits."""

    def __init__(self, state: NodeState, days: Iterable[DayKeys] = (), key_seconds: int = KEY_SECONDS) -> None:
        self._envelopes, self._changes, self._key_ms = state.envelopes, state.changes, 1000 * key_seconds
        self._days = {d.day: d for d in days}
        self._keys: OrderedDict[Person, _Key] = OrderedDict()
        self._courier: tuple[DayKeys, int, Courier] | None = None
        self._grown = asyncio.Event()
        self.dropped_total = 0  # values that could not be sealed

    def learn(self, days: Iterable[DayKeys], now_ms: int) -> tuple[DayKeys, ...] | None:
        """Takes in what the platform published; gives all that is worth keeping, None where nothing changed."""
        known = dict(self._days)
        self._days |= {d.day: d for d in days}
        newest, oldest = max(self._days, default=None), _day(now_ms) - timedelta(days=1)
        self._days = {day: d for day, d in self._days.items() if day >= oldest or day == newest}
        return None if self._days == known else tuple(self._days.values())

    def seal(self, person: Person, value: bytes, *, event_id: UUID, field: str, now_ms: int) -> bytes | None:
        """None: nothing to seal with was ever received."""
        key = self._key(person, now_ms)
        if key is None:
            self.dropped_total += 1
            return None
        key.uses += 1
        return seal(key.aead, key.key_id, value, tenant_id=person.tenant_id, event_id=event_id, field=field)

    def viewer_day(self, tenant_id: UUID, who: str, now_ms: int) -> str | None:
        """The viewer's pseudonym of the day; None where the platform has published nothing for it."""
        keys = self._days.get(_day(now_ms))
        return None if keys is None else viewer_day(keys.pseudonyms, tenant_id, who)

    async def waiting(self, at_most: int) -> Sequence[Envelope]:
        """Envelopes that the platform does not have, as soon as there are any."""
        while not len(self._envelopes):
            self._grown.clear()
            await self._grown.wait()
        return list(islice(self._envelopes, at_most))

    def handed_over(self, envelopes: Sequence[Envelope]) -> tuple[Change, ...]:
        """The platform has them, or never will: what has to be written of that. Not within a trigger's turn."""
        for envelope in envelopes:
            self._envelopes.drop(str(envelope.key_id))
        return self._changes.take()

    def _key(self, person: Person, now_ms: int) -> _Key | None:
        key = self._keys.get(person)
        if key is not None and key.made_ms <= now_ms < key.made_ms + self._key_ms and key.uses < KEY_USES:
            return key
        courier = self._current_courier(now_ms)
        if courier is None:
            return None
        secret = new_key()
        made = _Key(new_id(), AESGCM(secret), now_ms)
        self._keys[person] = made
        self._keys.move_to_end(person)
        if len(self._keys) > KEYS_IN_MEMORY:
            self._keys.popitem(last=False)
        self._envelopes.put(str(made.key_id), courier.envelope(Grant(made.key_id, secret, person, now_ms)))
        self._grown.set()
        return made

    def _current_courier(self, now_ms: int) -> Courier | None:
        keys = self._intake(_day(now_ms))
        if keys is None:
            return None
        if self._courier is None or self._courier[0] != keys or not self._courier[1] <= now_ms < self._courier[1] + self._key_ms:
            self._courier = keys, now_ms, Courier(keys.day, keys.intake)
        return self._courier[2]

    def _intake(self, today: date) -> DayKeys | None:
        """Today's; where that is not known, the newest of before; else (a clock far behind) the first."""
        past = [day for day in self._days if day <= today]
        day = max(past) if past else min(self._days, default=None)
        return None if day is None else self._days[day]


def viewer(tenant_id: UUID, subject: str | None, now_ms: int) -> Person:
    """Whose key seals what is known of a viewer: the one whom the tenant named, else all anonymous viewers of the day."""
    if subject is not None:
        return Person(tenant_id, PersonalKind.VIEWER, subject)
    return Person(tenant_id, PersonalKind.VIEWER_DAY, day=_day(now_ms))


def publisher(tenant_id: UUID, now_ms: int) -> Person:
    return Person(tenant_id, PersonalKind.PUBLISHER_DAY, day=_day(now_ms))


def raw_body(tenant_id: UUID, now_ms: int) -> Person:
    """A body that nobody understood may have anything in it, so it has the keys of its day."""
    return Person(tenant_id, PersonalKind.NODE_DAY, day=_day(now_ms))


def subject_of_token(token: str, url: str, not_a_person: frozenset[str]) -> str | None:
    """Who the token of a viewer says that they are: `viewer`, else `sub`, of a JWT in the token line, else in the request's URL.

    Its signature is not verified here. It chooses a key and opens no door: who invents a `sub` seals their own address under that
    person's key, where the tenant sees it as that person's and an erasure takes it along; nobody learns anything by it.
    In the media server's own tokens `sub` is a stream, with `*` for many (`not_a_person`: its names): that is nobody.
    """
    for text in (token, *_token_parameters(url)):
        subject = _subject(text)
        if subject and len(subject) <= SUBJECT_MAX_CHARACTERS and subject not in not_a_person and "*" not in subject:
            return subject
    return None


def _token_parameters(url: str) -> Iterable[str]:
    if "?" not in url:
        return ()
    try:
        found = parse_qs(urlsplit(url).query)
    except ValueError:
        return ()
    return [value for name in _TOKEN_PARAMETERS for value in found.get(name, ())]


def _subject(text: str) -> str | None:
    """The viewer of what looks like a JWT: the claims are read, the rest of it is for whoever opens doors by it."""
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = orjson.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:  # not base64, not ASCII, not JSON
        return None
    found = (claims.get("viewer"), claims.get("sub")) if isinstance(claims, dict) else ()
    return next((text for text in found if isinstance(text, str) and text), None)


def _day(now_ms: int) -> date:
    return _date(now_ms // DAY_MS)


@lru_cache(maxsize=8)
def _date(days: int) -> date:
    return datetime.fromtimestamp(days * DAY_MS // 1000, UTC).date()
