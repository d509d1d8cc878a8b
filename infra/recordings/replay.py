"""Plays a recording to an edge agent as a MistServer would send it: each trigger over a TCP connection of its own.

Invariants:
* Triggers go out in their recorded order, each after the answer to the one before, not before its time.
* The run id alone decides X-Instance, X-Trigger-UUID and (a UUIDv7 holds its time) X-Trigger-UnixMillis: the same run id is a
  resend of the same events, another one is another life of the same server.
* The recorded stream key becomes the given one, and a recorded stream name what the agent called that stream, from the first
  time that it did.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from infra.recordings import NoRecording, RecordedTrigger
from streams.ids import derive

ATTEMPT_SECONDS: Final = 5.0  # as MistServer waits
RETRY_SECONDS: Final = 0.15
PATIENCE_SECONDS: Final = 30.0  # MistServer gives up after 25 s at most; an agent that restarts is waited for
INSTANCE_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class AgentUnreachable(Exception):
    """Nobody answered a trigger for as long as we were patient."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One trigger as it was sent, and what the agent said."""

    trigger: RecordedTrigger
    body: str
    status: int
    answer: str
    attempts: int
    seconds: float


@dataclass(slots=True)
class Summary:
    run_id: UUID
    triggers: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    streams: dict[str, str] = field(default_factory=dict)  # recorded name: what the agent calls it
    refused_publishers: set[str] = field(default_factory=set)  # pids
    refused_viewers: int = 0
    retries: int = 0
    seconds: float = 0.0
    slowest_answer_ms: float = 0.0

    def as_dict(self) -> dict[str, object]:
        return {
            "run_id": str(self.run_id),
            "triggers": sum(self.triggers.values()),
            "by_trigger": dict(sorted(self.triggers.items())),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "streams": self.streams,
            "refused_publishers": len(self.refused_publishers),
            "refused_viewers": self.refused_viewers,
            "retries": self.retries,
            "seconds": round(self.seconds, 3),
            "slowest_answer_ms": round(self.slowest_answer_ms, 1),
        }


@dataclass(slots=True)
class Translation:
    """Recorded names into those of this run."""

    recorded_key: str | None
    key: str
    streams: dict[str, str] = field(default_factory=dict)

    def body(self, text: str) -> str:
        if self.recorded_key:
            text = text.replace(self.recorded_key, self.key)
        for recorded, ours in self.streams.items():
            text = text.replace(recorded, ours).replace(recorded.replace("+", "%2b"), ours.replace("+", "%2b"))
        return text

    def learn(self, trigger: RecordedTrigger, answer: str) -> None:
        if trigger.name == "PUSH_REWRITE" and answer and trigger.answer:
            self.streams[trigger.answer] = answer


def recorded_key(recorded: Sequence[RecordedTrigger]) -> str | None:
    """The key of the first publisher that was let on the air; where no push was recorded, of the first that was let through."""
    on_air = {trigger.pid for trigger in recorded if trigger.name == "STREAM_PUSH" and trigger.answer == "true"}
    rewrites = [trigger for trigger in recorded if trigger.name == "PUSH_REWRITE"]
    good = [t for t in rewrites if t.pid in on_air] or [t for t in rewrites if t.answer]
    return good[0].body.rpartition("\n")[2] if good else None


async def replay(
    recorded: Sequence[RecordedTrigger],
    *,
    edge_url: str,
    stream_key: str,
    run_id: UUID,
    speed: float = 1.0,
    heard: Callable[[Answered], Awaitable[None]] | None = None,
) -> Summary:
    """Plays all of it; `speed` 0: as fast as the agent answers. Raises AgentUnreachable, NoRecording (a URL that is none)."""
    address = urlsplit(edge_url if "://" in edge_url else f"http://{edge_url}")
    if address.scheme != "http" or not address.hostname:
        raise NoRecording(f"{edge_url} is no address of an edge agent: it looks like http://127.0.0.1:18007")
    host, port = address.hostname, address.port or 80
    names = Translation(recorded_key(recorded), stream_key)
    summary, began = Summary(run_id), time.monotonic()
    began_ms = started_ms(run_id)
    for trigger in recorded:
        due = trigger.at_seconds / speed if speed else 0.0
        await asyncio.sleep(max(0.0, began + due - time.monotonic()))
        unix_ms = began_ms + round(1000 * due) if speed else began_ms + round(1000 * (time.monotonic() - began))
        body = names.body(trigger.body)
        answered = await _post(host, port, trigger, body, _headers(trigger, run_id, unix_ms))
        names.learn(trigger, answered.answer)
        _count(summary, answered)
        if heard:
            await heard(answered)
    summary.streams, summary.seconds = names.streams, time.monotonic() - began
    return summary


def started_ms(run_id: UUID) -> int:
    """When a run began: a UUIDv7 says it itself."""
    return run_id.int >> 80 if run_id.version == 7 else time.time_ns() // 1_000_000


def _headers(trigger: RecordedTrigger, run_id: UUID, unix_ms: int) -> dict[str, str]:
    headers = dict(trigger.headers)
    if instance := headers.get("X-Instance"):
        digest = derive(run_id, "instance", instance).bytes
        headers["X-Instance"] = "".join(INSTANCE_ALPHABET[byte % len(INSTANCE_ALPHABET)] for byte in digest)
    headers["X-Trigger-UUID"] = str(derive(run_id, "trigger", headers.get("X-Trigger-UUID", "")))
    headers["X-Trigger-UnixMillis"] = str(unix_ms)
    headers["Date"] = format_datetime(datetime.fromtimestamp(unix_ms // 1000, UTC))
    return headers


async def _post(host: str, port: int, trigger: RecordedTrigger, body: str, headers: Mapping[str, str]) -> Answered:
    """One trigger until it is answered. Retries are the same event with a rising X-Attempt, as MistServer's are."""
    began, attempt, problem = time.monotonic(), 0, ""
    while time.monotonic() - began < PATIENCE_SECONDS:
        attempt += 1
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                sent = {**headers, "X-Attempt": str(attempt)}
                status, answer = await _request(host, port, f"/trigger/{trigger.name}", body.encode(), sent)
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            problem = repr(error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return Answered(trigger, body, status, answer, attempt, time.monotonic() - began)
    raise AgentUnreachable(f"no edge agent answers on {host}:{port} (tried for {PATIENCE_SECONDS:.0f} s): {problem}")


async def _request(host: str, port: int, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        fields = {**headers, "Host": f"{host}:{port}", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in sorted(fields.items()))
        writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        response = await reader.read()
    finally:
        writer.close()
    head_bytes, separator, answer = response.partition(b"\r\n\r\n")
    words = head_bytes.split(b" ", 2)
    if not separator or len(words) < 2:
        raise EOFError("the connection was closed without an answer")
    return int(words[1]), answer.decode()


def _count(summary: Summary, answered: Answered) -> None:
    name = answered.trigger.name
    summary.triggers[name] += 1
    summary.statuses[answered.status] += 1
    summary.retries += answered.attempts - 1
    summary.slowest_answer_ms = max(summary.slowest_answer_ms, 1000 * answered.seconds)
    if name in ("RTMP_PUSH_REWRITE", "PUSH_REWRITE") and not answered.answer:
        summary.refused_publishers.add(answered.trigger.pid)
    if name == "USER_NEW" and answered.answer == "false":
        summary.refused_viewers += 1
