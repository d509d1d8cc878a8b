"""Secrets out of texts: stream keys of ours, and what pushes to third parties carry in their URLs.

Invariant: no stream key leaves the agent, neither in a fact nor in a log line; of ours `sk_` and the lookup prefix remain.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final
from urllib.parse import unquote

_OUR_KEY = re.compile(r"sk_([A-Za-z0-9]{8})_[A-Za-z0-9_-]+")
_OUR_KEY_BYTES = re.compile(rb"(sk_[A-Za-z0-9]{8}_)([A-Za-z0-9_-]+)")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#\s]*@)?([^/?#\s]*)([^?#\s]*)([?#]\S*)?")
_SECRET_IN_PATH: Final = frozenset(
    {"rtmp", "rtmps", "srt", "rist", "whip", "whips", "http+whip", "https+whip", "webrtc", "rtsp", "rtsps"}
)
HIDDEN: Final = "…"
SECRET_MIN_CHARACTERS: Final = 4


def key_prefix(offered: str) -> str | None:
    """Lookup prefix of something that looks like one of our keys; None otherwise."""
    match = _OUR_KEY.fullmatch(offered)
    return match[1] if match else None


def redacted_key(offered: str) -> str | None:
    """What may be shown of an offered key: `sk_` and its prefix; None of anything else, for that could be any secret."""
    prefix = key_prefix(offered)
    return f"sk_{prefix}" if prefix else None


def redacted_body(body: bytes) -> bytes:
    """A raw body, byte for byte, but for the secret part of keys of ours, which is overwritten with asterisks."""
    return _OUR_KEY_BYTES.sub(lambda match: match[1] + b"*" * len(match[2]), body)


def redacted_text(text: str) -> str:
    """A sentence of the media server without keys, and without the secrets of URLs."""
    return _OUR_KEY.sub(rf"sk_\1_{HIDDEN}", _URL.sub(_redacted_url, text))


def redacted_target(target: str) -> str:
    """Target of a push: user info, queries, and for protocols that have the key there the last part of the path are hidden."""
    return redacted_text(target)


def without_secrets_of(target: str, text: str) -> str:
    """A sentence of the media server about a push, without what is secret in the push's URL, in whatever form it stands there."""
    url = _URL.fullmatch(target)
    if url is None:
        return redacted_text(text)
    user = target.partition("://")[2].rpartition("@")[0] if "@" in target else ""
    segments = url[3].lstrip("/").split("/")
    secret = "/".join(segments[1:] or segments)
    parts = re.split(r"[/?#&=:]", f"{secret}?{(url[4] or '')[1:]}?{user}")
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        if len(part) >= SECRET_MIN_CHARACTERS:
            text = text.replace(part, HIDDEN)
    return redacted_text(text)


def digest(secret: str) -> str:
    """Stands for a secret where it only has to be recognised."""
    return sha256(secret.encode()).hexdigest()


def _redacted_url(match: re.Match[str]) -> str:
    scheme, host, path, query = match[1], match[2], match[3], match[4]
    if scheme.lower() in _SECRET_IN_PATH and path.rpartition("/")[2]:
        path = f"{path.rpartition('/')[0]}/{HIDDEN}"
    return f"{scheme}://{host}{path}{f'{query[0]}{HIDDEN}' if query else ''}"
