"""What a recording says happened, read from its trigger bodies alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

GOOD_KEY: Final = "sk-7f3a9c"
"""The stream key that the recorded publishers used; the replayer puts the real one in its place."""
OUR_STREAM: Final = "live+cam1"
SCENARIOS: Final[dict[int, tuple[str, str]]] = {
    1: ("1-publisher-3-hls-viewers.jsonl", "a publisher and three viewers"),
    2: ("2-publisher-kill9-reconnect.jsonl", "a killed publisher, a reconnect, a stall, a second publisher with the same key"),
    3: ("3-recording-and-push-out.jsonl", "recordings and pushes to other servers"),
    4: ("4-rejected-stream-key.jsonl", "four publishers with wrong keys, and one with the right one"),
}


class Trigger(msgspec.Struct, frozen=True):
    """One recorded request; what else stands in the line does not matter here."""

    trigger: str
    headers: dict[str, str]
    body: str
    t: float

    @property
    def pid(self) -> str:
        """The media server's process: one connection, session or buffer."""
        return self.headers["X-PID"]

    @property
    def lines(self) -> list[str]:
        return self.body.removesuffix("\n").split("\n")


@dataclass(frozen=True, slots=True, order=True)
class Viewing:
    """One viewer who came and went."""

    seconds: int
    up_bytes: int
    down_bytes: int


@dataclass(frozen=True, slots=True, order=True)
class File:
    """One recording that was written."""

    size_bytes: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened to the stream. Everything is sorted: order in time is not what is compared."""

    ingests: int
    duplicates_refused: int
    unknown_keys_refused: int
    viewings: tuple[Viewing, ...]
    push_bytes: tuple[int, ...]
    files: tuple[File, ...]


def path_of(scenario: int) -> Path:
    return Path(str(files("infra.recordings").joinpath(SCENARIOS[scenario][0])))


def read(path: Path) -> Sequence[Trigger]:
    decoder = msgspec.json.Decoder(Trigger)
    return [decoder.decode(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def figures(triggers: Sequence[Trigger]) -> Figures:
    ingests, duplicates = publishers(triggers)
    return Figures(
        ingests,
        duplicates,
        len(unknown_keys(triggers)),
        tuple(sorted(viewings(triggers))),
        tuple(sorted(pushes(triggers))),
        tuple(sorted(recordings(triggers))),
    )


def viewings(triggers: Sequence[Trigger]) -> Iterator[Viewing]:
    """USER_END, 12 lines: line 2 the stream (empty: the viewer was refused), 5 seconds, 6 bytes up, 7 bytes down."""
    for trigger in triggers:
        if trigger.trigger == "USER_END" and trigger.lines[1] == OUR_STREAM:
            yield Viewing(int(trigger.lines[4]), int(trigger.lines[5]), int(trigger.lines[6]))


def publishers(triggers: Sequence[Trigger]) -> tuple[int, int]:
    """Publishers with the good key: those that came while nobody published, and those that came while somebody did."""
    alone, duplicates, publishing = 0, 0, set[str]()
    for trigger in triggers:
        if trigger.trigger == "PUSH_REWRITE" and trigger.lines[2] == GOOD_KEY:
            if publishing:
                duplicates += 1
            else:
                alone += 1
                publishing = {trigger.pid}
        elif trigger.trigger == "OUTPUT_END":
            publishing.discard(trigger.pid)
    return alone, duplicates


def unknown_keys(triggers: Sequence[Trigger]) -> set[str]:
    """Connections whose key is not the good one, but for those that the media server opened to itself."""
    own = {trigger.lines[1] for trigger in triggers if trigger.trigger == "PUSH_OUT_START"}
    return {
        trigger.pid
        for trigger in triggers
        if trigger.trigger == "RTMP_PUSH_REWRITE"
        and not trigger.lines[0].endswith(f"/{GOOD_KEY}")
        and trigger.lines[0] not in own
    }


def pushes(triggers: Sequence[Trigger]) -> Iterator[int]:
    """Bytes of every push that ended: the writer's last word (OUTPUT_END, line 4), else the last status (PUSH_END, line 6)."""
    final = {t.pid: int(t.lines[3]) for t in triggers if t.trigger == "OUTPUT_END" and t.lines[1]}
    for trigger in triggers:
        if trigger.trigger == "PUSH_END":
            push_id, status = trigger.lines[0], json.loads(trigger.lines[5])
            yield final.get(push_id, status.get("bytes", 0) if status else 0)


def recordings(triggers: Sequence[Trigger]) -> Iterator[File]:
    """RECORDING_END, 12 lines: line 4 bytes, line 5 seconds."""
    for trigger in triggers:
        if trigger.trigger == "RECORDING_END":
            yield File(int(trigger.lines[3]), int(trigger.lines[4]))
