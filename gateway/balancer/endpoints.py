"""URLs of a node by protocol, in the shapes that MistServer serves them at (CONTRACT 6.7, `outputs`)."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit

PLAYBACK: Final = {
    "HLS": "{base}/hls/{name}/index.m3u8",
    "CMAF": "{base}/cmaf/{name}/",
    "WEBRTC": "{base}/webrtc/{name}",
    "HTTP": "{base}/{name}.html",
    "HTTPTS": "{base}/{name}.ts",
    "MP4": "{base}/{name}.mp4",
    "EBML": "{base}/{name}.webm",
    "FLV": "{base}/{name}.flv",
    "RTMP": "rtmp://{host}:1935/play/{name}",
    "SRT": "srt://{host}:8889?streamid={name}",
    "DTSC": "dtsc://{host}:4200/{name}",
}
"""`{base}` is what viewers' URLs on the node begin with; what is not HTTP is on the protocol's own port of its host."""
INGEST: Final = {
    "RTMP": "rtmp://{host}:1935/live/{name}",
    "SRT": "srt://{host}:8889?streamid={name}",
    "WHIP": "{base}/webrtc/{name}",
}
SAFE: Final = "+-._~"


def playback_url(base_url: str, protocol: str, name: str) -> str | None:
    """Where a stream is watched; None for a protocol that we do not know."""
    return _url(PLAYBACK, base_url, protocol, name)


def ingest_url(base_url: str, protocol: str, name: str) -> str | None:
    """Where a stream is pushed to under this key; None for a protocol that we do not know."""
    return _url(INGEST, base_url, protocol, name)


def _url(shapes: dict[str, str], base_url: str, protocol: str, name: str) -> str | None:
    shape = shapes.get(protocol.upper())
    if shape is None:
        return None
    host = urlsplit(base_url).hostname or ""
    return shape.format(base=base_url.rstrip("/"), host=f"[{host}]" if ":" in host else host, name=quote(name, safe=SAFE))
