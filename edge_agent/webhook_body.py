"""What a tenant's server is asked about a viewer: JSON, the same bytes for the same request."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from streams.generated import StreamPolicy
from streams.playback.origins import told_origin
from streams.playback.rules import PlaybackRequest

MAX_PARAMETERS: Final = 64
MAX_CHARACTERS: Final = 4096  # of each text that the viewer typed


def webhook_body(node_id: str, stream: StreamPolicy, request: PlaybackRequest, connector: str) -> bytes:
    """`parameters` are those of the request's URL: whatever the tenant's own page put there."""
    asked = {
        "type": "playback.requested",
        "streamId": str(stream.stream_id),
        "playbackId": stream.playback_id,
        "nodeId": node_id,
        "sessionId": request.session_id,
        "connector": connector,
        "address": request.address,
        "country": request.country,
        "origin": told_origin(request.url),
        "token": request.token[:MAX_CHARACTERS],
        "parameters": _parameters(request.url),
    }
    return orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)


def _parameters(url: str) -> dict[str, str]:
    try:
        found = parse_qsl(urlsplit(url).query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:  # too many, or no URL
        return {}
    return {name[:MAX_CHARACTERS]: value[:MAX_CHARACTERS] for name, value in found}
