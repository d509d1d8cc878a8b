"""`config` and what stands beside it: how MistServer is set up (CONTRACT sections 2 and 6.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from edge_agent.mist.reading import part

COMMAND: Final[Mapping[str, object]] = {"config": True}


class Handler(msgspec.Struct, frozen=True, omit_defaults=True):
    """One handler of a trigger. `raw`: as the server has it, so that what is not ours is written back unchanged."""

    handler: str = ""
    sync: bool = False
    streams: tuple[str, ...] = ()
    params: str = ""
    default: str = ""
    onfail: str = ""  # the fork's
    raw: object = None


class Config(msgspec.Struct, frozen=True):
    version: str = ""  # `3.10 Generic_x86_64`
    iid: str = ""  # the same as X-Instance
    serverid: str | None = ""
    time: int = 0
    prometheus: str | None = ""
    triggers: Mapping[str, list[object]] | None = None
    sessionViewerMode: int | None = None  # noqa: N815  # MistServer's names
    sessionInputMode: int | None = None  # noqa: N815
    sessionOutputMode: int | None = None  # noqa: N815
    sessionUnspecifiedMode: int | None = None  # noqa: N815
    sessionStreamInfoMode: int | None = None  # noqa: N815
    tknMode: int | None = None  # noqa: N815
    trustedproxy: list[str] | None = None

    def handlers(self) -> Mapping[str, Sequence[Handler]]:
        return {name: tuple(map(_handler, found or ())) for name, found in (self.triggers or {}).items()}


def read(answer: Mapping[str, object]) -> Config:
    """Raises Transient."""
    return part(answer, "config", Config)


def _handler(raw: object) -> Handler:
    """Of an object, or of an array `[url, sync, [streams]]`. What cannot be read is kept as it is: it is not ours."""
    if isinstance(raw, list):
        raw_fields = dict(zip(("handler", "sync", "streams"), raw, strict=False))
    else:
        raw_fields = raw if isinstance(raw, dict) else {}
    known = {name: value for name, value in raw_fields.items() if name in Handler.__struct_fields__ and value is not None}
    try:
        return msgspec.structs.replace(msgspec.convert(known, Handler, strict=False), raw=raw)
    except msgspec.ValidationError:
        return Handler(raw=raw)
