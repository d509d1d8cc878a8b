"""What becomes of a trigger: which handlers hear of it, and what their answers mean (CONTRACT section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.mist.wire import ATTEMPTS, HANDLER_BYTES, Failed, Post, Wire

FORK_ONLY = frozenset(
    {
        "STREAM_PROCESS",
        "PUSH_INPUT_CLOSE",
        "RECORDING_SEGMENT",
        "PROCESS_EXIT",
        "LIVEPEER_SEGMENT_COMPLETE",
        "PROCESS_AV_VIRTUAL_SEGMENT_COMPLETE",
        "THUMBNAIL_UPDATED",
    }
)
# The fork: what a handler may have as `onfail`. One that may not have it costs the whole request its triggers.
ONFAIL = {
    "keep": {"PUSH_REWRITE", "PLAY_REWRITE", "STREAM_SOURCE", "STREAM_PROCESS", "PUSH_OUT_START"},
    "offline": {"STREAM_SOURCE"},
    "use-configured": {"STREAM_SOURCE", "STREAM_PROCESS"},
    "deny": {
        "PUSH_REWRITE", "PLAY_REWRITE", "USER_NEW", "PUSH_OUT_START", "CONN_OPEN", "CONN_PLAY", "STREAM_LOAD", "STREAM_READY",
        "STREAM_UNLOAD", "SYSTEM_START", "SYSTEM_STOP",
    },
}  # fmt: skip
WITHOUT_STREAM = ("SYSTEM_", "OUTPUT_ST")


@dataclass(frozen=True)
class Handler:
    url: str
    is_sync: bool
    streams: tuple[str, ...]
    default: str  # empty or missing means the text `true`

    @classmethod
    def read(cls, raw: Any) -> Handler:
        if isinstance(raw, list):
            url, is_sync, *rest = [*raw, False][:3] if len(raw) < 2 else raw
            return cls(str(url)[:HANDLER_BYTES], bool(is_sync), tuple(rest[0]) if rest else (), "true")
        return cls(
            str(raw.get("handler", ""))[:HANDLER_BYTES],
            bool(raw.get("sync")),
            tuple(raw.get("streams") or ()),
            str(raw.get("default") or "true")[:HANDLER_BYTES],
        )

    def hears(self, name: str, stream: str) -> bool:
        """Empty: all streams. A full name or what stands before `+` or a blank; `!name` excludes."""
        if not self.streams or name.startswith(WITHOUT_STREAM) or name.endswith("PUSH_REWRITE"):
            return True
        names = {stream, stream.partition("+")[0].partition(" ")[0]}
        if any(entry[1:] in names for entry in self.streams if entry.startswith("!")):
            return False
        wanted = [entry for entry in self.streams if not entry.startswith("!")]
        return not wanted or any(entry in names for entry in wanted)


@dataclass(frozen=True)
class Outcome:
    """`text` is None where nobody was asked: everything goes on as it would."""

    text: str | None
    is_yes: bool


def is_yes(answer: str) -> bool:
    """White space dropped, letters lowered, and then only the beginning counts."""
    return "".join(answer.split()).lower().startswith(("1", "yes", "true", "cont"))


def send(handlers: Sequence[Handler], wire: Wire, post: Mapping[str, Any], stream: str) -> Outcome:
    """All handlers, one after the other, with the same payload. `post`: the fields of a Post but url, attempt and is_sync."""
    text: str | None = None
    every_yes = True
    for handler in handlers:
        if not handler.hears(post["name"], stream):
            continue
        answer = _ask(handler, wire, post) if handler.url else handler.default
        every_yes &= is_yes(answer)
        if handler.is_sync or text is None:
            text = answer
    return Outcome(text, every_yes)


def _ask(handler: Handler, wire: Wire, post: Mapping[str, Any]) -> str:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = wire.post(Post(url=handler.url, attempt=attempt, is_sync=handler.is_sync, **post))
        except Failed:
            continue  # refused, closed without an answer, or silent for five seconds: again
        if answer is None:
            return handler.default  # written is done
        return answer.text if 200 <= answer.status < 300 else handler.default
    return handler.default
