"""Which triggers a MistServer shall send us, and how each is set up: the reasons are here, one a line.

A blocking trigger costs its sender a round trip and protects us from losing it; an asynchronous one is written and forgotten.
So those whose answer counts block, and so do the last words of processes that end anyway, for their figures are billed. Those of
the controller do not: while one waits, its whole API stands still (CONTRACT 2.2).

`default` is what MistServer does while nobody answers. An empty one means the text `true`, also where a name is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.catalogue import UNUSABLE_STREAM

OPEN: Final = "true"
CLOSED: Final = "false"
UNUSABLE: Final = UNUSABLE_STREAM
PUSHED: Final = "push://"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How one trigger is set up. `is_ours_only`: heard only for streams under our wildcard, so that a default that closes does
    not close the operator's own streams. `onfail`: the fork's word, which replaces the default there (CONTRACT section 8)."""

    is_sync: bool
    default: str = OPEN
    is_ours_only: bool = False
    onfail: str = ""


_TOLD: Final = Wanted(is_sync=False)
_LAST_WORDS: Final = Wanted(is_sync=True)

STOCK: Final[Mapping[str, Wanted]] = {
    # Nobody who was not admitted publishes: without us no name comes of a key.
    "PUSH_REWRITE": Wanted(is_sync=True, default=UNUSABLE, onfail="deny"),
    "RTMP_PUSH_REWRITE": Wanted(is_sync=True, default=UNUSABLE),  # the fork takes no `onfail` here, and with it no trigger at all
    "STREAM_PUSH": Wanted(is_sync=True),  # who came here was admitted a moment ago
    "STREAM_SOURCE": Wanted(is_sync=True, default=PUSHED, is_ours_only=True, onfail="use-configured"),
    "PLAY_REWRITE": Wanted(is_sync=True, default=UNUSABLE, onfail="keep"),  # a playback id is no stream; the fork can keep names
    "USER_NEW": Wanted(is_sync=True),
    "CONN_PLAY": Wanted(is_sync=True),
    "CONN_OPEN": Wanted(is_sync=True),  # must be heard before what the same process sends next
    "DEFAULT_STREAM": Wanted(is_sync=True, default=UNUSABLE),
    "PUSH_OUT_START": Wanted(is_sync=True, default=UNUSABLE, is_ours_only=True, onfail="keep"),
    "USER_END": _LAST_WORDS,
    "OUTPUT_END": _LAST_WORDS,
    "RECORDING_END": _LAST_WORDS,
    "CONN_CLOSE": _TOLD,
    "CONN_STOP": _TOLD,
    "STREAM_LOAD": _TOLD,
    "STREAM_READY": _TOLD,
    "STREAM_UNLOAD": _TOLD,
    "STREAM_BUFFER": _TOLD,  # the buffer carries the stream: nothing of ours may stop it
    "LIVE_TRACK_LIST": _TOLD,
    "STREAM_END": _TOLD,
    "PUSH_END": _TOLD,
    "INPUT_ABORT": _TOLD,
    "OUTPUT_START": _TOLD,
    "OUTPUT_STOP": _TOLD,
    "STREAM_ADD": _TOLD,
    "STREAM_CONFIG": _TOLD,
    "STREAM_REMOVE": _TOLD,
    "SYSTEM_START": _TOLD,
    "SYSTEM_STOP": _TOLD,
    "LIVEPEER_SEGMENT_REJECTED": _TOLD,
    # LIVE_BANDWIDTH is left out: two a second for each stream, and what it says is sampled anyway.
}
FORK: Final[Mapping[str, Wanted]] = {
    "PUSH_INPUT_CLOSE": _TOLD,  # OUTPUT_END, which blocks, says the same
    "RECORDING_SEGMENT": _TOLD,
    "PROCESS_EXIT": _TOLD,
    "LIVEPEER_SEGMENT_COMPLETE": _TOLD,
    "PROCESS_AV_VIRTUAL_SEGMENT_COMPLETE": _TOLD,
    "THUMBNAIL_UPDATED": _TOLD,
    "STREAM_PROCESS": _TOLD,  # not blocking: an answer would replace the processes that the operator configured
}
LONGEST_NAME: Final = max(map(len, (*STOCK, *FORK)))


def wanted(*, is_fork: bool, viewers_when_down: str = "open") -> Mapping[str, Wanted]:
    """What is set up on a server of this kind. `viewers_when_down`: `open`, or `closed` for what must never be seen unasked."""
    chosen = {**STOCK, **(FORK if is_fork else {})}
    if viewers_when_down == "closed":
        chosen["USER_NEW"] = replace(chosen["USER_NEW"], default=CLOSED, is_ours_only=True)
    return chosen
