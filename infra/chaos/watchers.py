"""Load: subscribers, who write down every message and continue behind the last one whenever they are cut off."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec

from infra.chaos.ledger import Heard, Ledger
from infra.demo.api import Away, Refused, subscribe

RETRY_SECONDS: Final = 0.2
WATCH: Final = """
subscription Watch($streamId: ID!, $after: Cursor) {
  streamEvents(streamId: $streamId, after: $after) { __typename cursor eventId ... on EventsSkipped { skipReason resumeFrom } }
}"""


class Message(msgspec.Struct, rename="camel"):
    typename: str = msgspec.field(name="__typename")
    cursor: str
    event_id: str
    skip_reason: str | None = None
    resume_from: str | None = None


class Watched(msgspec.Struct, rename="camel"):
    stream_events: Message


@dataclass(slots=True)
class Watcher:
    """A subscriber of one stream. `begun` is set when its first message (the snapshot) is on the disk."""

    url: str
    token: str
    stream_id: str
    ledger: Ledger
    begun: asyncio.Event
    connections: int = 0
    messages: int = 0

    async def watch(self) -> None:
        """Until cancelled."""
        after: str | None = None
        while True:
            variables = {"streamId": self.stream_id, "after": after}
            self.connections += 1
            try:
                async for watched in subscribe(self.url, self.token, Watched, WATCH, variables):
                    message = watched.stream_events
                    is_gap = message.typename == "EventsSkipped"
                    name = f"EventsSkipped {message.skip_reason}" if is_gap else message.typename
                    await self.ledger.heard(Heard(self.stream_id, name, message.event_id, message.cursor))
                    self.messages += 1
                    after = message.cursor
                    self.begun.set()
                    if is_gap and message.resume_from:  # nothing is lost: it is read again from there
                        after = message.resume_from
                        break
            except (Away, Refused):
                pass
            await asyncio.sleep(RETRY_SECONDS)
