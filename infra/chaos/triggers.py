"""Load: one MistServer as the edge agent sees it: a connection for each trigger, the headers and retries of the contract.

A blocking trigger is sent up to five times with one id, as MistServer does. Of an asynchronous one MistServer would not read the
answer; here it is read, because only what was answered is owed. Where no connection could be made it is lost, as with MistServer;
where one was made and no answer came, nobody knows.

While the disk of the agent is full it answers blocking triggers all the same, and says that it may forget what they said (a
publisher is worth more than a record of it): such an answer promises nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final
from urllib.parse import urlsplit

from infra.chaos.commands import Made
from infra.chaos.ledger import Ledger, Owed, State

BLOCKING: Final = frozenset(
    {"CONN_OPEN", "RTMP_PUSH_REWRITE", "PUSH_REWRITE", "STREAM_LOAD", "STREAM_READY", "STREAM_PUSH", "PLAY_REWRITE", "USER_NEW"}
)
ATTEMPTS: Final = 5
ATTEMPT_SECONDS: Final = 5.0  # as MistServer waits for a blocking trigger
ANSWER_SECONDS: Final = 30.0  # how long the answer to an asynchronous one is waited for; MistServer would not
PAUSE_SECONDS: Final = 0.15
NONE_SENT: Final = 18446744073709551615


@dataclass(slots=True)
class MistServer:
    """Sends triggers. One instance is one life of the server: process numbers and trigger ids never come again."""

    url: str
    ledger: Ledger
    random: random.Random
    instance: str
    is_disk_full: Callable[[], bool] = lambda: False
    pid: int = 1000
    figure: int = 0
    sent: int = 0
    retries: int = 0
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def next_pid(self) -> int:
        self.pid += 1
        return self.pid

    def next_figure(self) -> int:
        """A number that no other trigger carries: by it a fact is recognised."""
        self.figure += 1
        return 100_000 + self.figure

    async def send(
        self, name: str, body: str, pid: int, stream: Made, owed: Sequence[Owed] = (), *, is_sure: bool = True
    ) -> str | None:
        """One trigger; gives the answer, None where there was none. Not `is_sure`: an answer makes nothing owed."""
        self.sent += 1
        uuid = f"{self.random.getrandbits(128):032x}"
        at_ms = time.time_ns() // 1_000_000
        number = await self.ledger.begin("trigger", "", stream.id, {"trigger": name, "uuid": uuid, "body": body}, owed)
        is_connected, was_full = False, self.is_disk_full()
        for attempt in range(1, ATTEMPTS + 1):
            state, answer = await self._attempt(name, body, self._head(name, uuid, pid, at_ms, attempt))
            is_connected |= state is not State.LOST
            if answer is not None:
                if name in BLOCKING and answer != "true":
                    await self.ledger.answered(number, {"answer": answer}, [])
                elif is_sure and not (name in BLOCKING and (was_full or self.is_disk_full())):
                    await self.ledger.answered(number, {"answer": answer})
                return answer
            if name not in BLOCKING and is_connected:
                return None
            self.retries += 1
            await asyncio.sleep(PAUSE_SECONDS)
        if not is_connected:
            await self.ledger.lost(number)
        return None

    def _head(self, name: str, uuid: str, pid: int, at_ms: int, attempt: int) -> dict[str, str]:
        return {
            "Accept": "*/*",
            "Content-Type": "text/plain",
            "Date": formatdate(at_ms / 1000),
            "User-Agent": "MistServer/3.10",
            "X-Attempt": str(attempt),
            "X-Instance": self.instance,
            "X-PID": str(pid),
            "X-Trigger": name,
            "X-Trigger-UUID": uuid,
            "X-Trigger-UnixMillis": str(at_ms),
            "X-Version": "3.10",
        }

    async def _attempt(self, name: str, body: str, head: dict[str, str]) -> tuple[State, str | None]:
        """LOST: no connection. An answer that is no 200 is none: MistServer takes its default then."""
        address = urlsplit(self.url)
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except (OSError, TimeoutError):
            return State.LOST, None
        payload = body.encode()
        fields = {**head, "Host": address.netloc, "Content-Length": str(len(payload))}
        lines = "".join(f"{key}: {value}\r\n" for key, value in sorted(fields.items()))
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS if name in BLOCKING else ANSWER_SECONDS):
                writer.write(f"POST /trigger/{name} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + payload)
                response = await reader.read()
        except (OSError, TimeoutError):
            return State.UNKNOWN, None
        finally:
            writer.close()
        head_bytes, separator, answer = response.partition(b"\r\n\r\n")
        is_good = bool(separator) and head_bytes.split(b" ", 2)[1:2] == [b"200"]
        return State.UNKNOWN, answer.decode() if is_good else None


async def keep_publishing(mist: MistServer, stream: Made, stop: asyncio.Event, pace_seconds: float) -> None:
    """Broadcasts of one stream, one after the other: publisher, buffers, viewers, a recording, the end; until told to stop."""
    while not stop.is_set():
        await broadcast(mist, stream, pace_seconds)
        await asyncio.sleep(mist.random.uniform(0, pace_seconds))


async def broadcast(mist: MistServer, stream: Made, pace_seconds: float) -> None:
    name, publisher, buffer = f"live+{stream.internal_name}", mist.next_pid(), mist.next_pid()
    url, host = f"rtmp://127.0.0.1:1935/live/{stream.key}", "127.0.0.1"

    async def pause() -> None:
        await asyncio.sleep(mist.random.uniform(0, pace_seconds))

    await mist.send("CONN_OPEN", f"\n{host}\nRTMP\n", publisher, stream)
    if not await mist.send("RTMP_PUSH_REWRITE", f"{url}\n{host}", publisher, stream):
        return  # a publisher that got no answer is refused, and comes again
    if not await mist.send("PUSH_REWRITE", f"{url}\n{host}\n{stream.key}", publisher, stream):
        return
    await mist.send("STREAM_LOAD", name, publisher, stream)
    await mist.send("STREAM_READY", f"{name}\nBuffer", buffer, stream)
    started, was_full = [Owed("IngestStarted")], mist.is_disk_full()
    if await mist.send("STREAM_PUSH", f"{name}\n{host}\nRTMP\n{url}", publisher, stream, started) != "true":
        return
    is_sure = not was_full and not mist.is_disk_full()  # else an agent that is killed now does not know of the publisher
    await pause()
    for state in ("FULL", "DRY", "RECOVER"):
        figure = mist.next_figure()
        body = f'{name}\n{state}\n{{"buffer":{figure},"jitter":120,"maxkeepaway":45000,"meta":{{"kbits":62}}}}'
        await mist.send("STREAM_BUFFER", body, buffer, stream, [Owed("BufferChanged", {"buffer_ms": figure})])
    await asyncio.gather(*(viewer(mist, stream, pace_seconds) for _ in range(mist.random.randint(1, 4))))
    figure = mist.next_figure()
    body = f"{name}\n/rec/{figure}.ts\nHTTPTS\n{figure}\n9\n1795176069\n1795176078\n9275\n6021\n15296\nCLEAN_SIGNAL\nended\n"
    await mist.send("RECORDING_END", body, mist.next_pid(), stream, [Owed("RecordingEnded", {"size_bytes": figure})])
    await pause()
    figure = mist.next_figure()
    times = f"{figure}\n1795174890\n1795174920\n0\n{NONE_SENT}\n0"
    body = f"{name}\n\nRTMP\n3740\n{times}\nCLEAN_INTENDED_STOP\nreceived deleteStream\n"
    ended = [Owed("IngestEnded", {"seconds": figure, "synthesized": False})]
    await mist.send("OUTPUT_END", body, publisher, stream, ended, is_sure=is_sure)
    await mist.send("STREAM_BUFFER", f"{name}\nEMPTY", buffer, stream, [Owed("BufferChanged", {"state": "EMPTY"})])
    figure = mist.next_figure()
    body = f"{name}\n{figure}\n3535154\n3\n1\n0\n99"
    totals = [Owed("StreamTotals", {"down_bytes": figure})]
    await mist.send("STREAM_END", body, mist.next_pid(), stream, totals)


async def viewer(mist: MistServer, stream: Made, pace_seconds: float) -> None:
    name, pid, session = f"live+{stream.internal_name}", mist.next_pid(), f"{mist.random.getrandbits(256):064x}"
    token, address = str(mist.next_figure()), f"127.0.{pid % 250}.{pid // 250 % 250}"
    url = f"http://127.0.0.1:8080/hls/{name.replace('+', '%2b')}/index.m3u8"
    joined = [Owed("ViewerJoined", {"session_id": session})]
    body = f"{name}\n{address}\n{token}\nHLS\n{url}\n{session}\nfalse"
    if await mist.send("USER_NEW", body, pid, stream, joined) == "false":
        return
    await asyncio.sleep(mist.random.uniform(0, pace_seconds))
    seconds, up_bytes, down_bytes = mist.random.randint(1, 9999), mist.next_figure(), mist.random.randint(1, 99999)
    figures = {"session_id": session, "seconds": seconds, "up_bytes": up_bytes, "down_bytes": down_bytes, "synthesized": False}
    shares = f"{seconds}\n{seconds}\n{seconds}"
    body = f"{token}\n{name}\nHLS\n{address}\n{seconds}\n{up_bytes}\n{down_bytes}\n\n{shares}\n{session}"
    await mist.send("USER_END", body, pid, stream, [Owed("ViewerLeft", figures)])
