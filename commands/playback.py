"""What a playback policy, a signing key and a kick may look like. Pure; each raises Rejected with the input field."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from streams.errors import Rejected
from streams.generated import PlaybackKind, PlaybackPolicy, SigningAlgorithm

ENTRIES_MAX: Final = 100
ORIGIN_MAX_CHARACTERS: Final = 253
AUDIENCE_MAX_CHARACTERS: Final = 200
WEBHOOK_URL_MAX_CHARACTERS: Final = 1000
VIEWERS_MAX: Final = 10_000_000
SESSION_ID_MAX_CHARACTERS: Final = 200
BLOCK_MAX_SECONDS: Final = 24 * 60 * 60
PUBLIC_KEY_BYTES: Final = {SigningAlgorithm.ES256: 91, SigningAlgorithm.EDDSA: 44}  # SubjectPublicKeyInfo of P-256, Ed25519
_PREFIXES: Final = {  # what such a key begins with, up to the point itself
    SigningAlgorithm.ES256: bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    SigningAlgorithm.EDDSA: bytes.fromhex("302a300506032b6570032100"),
}
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PRINTABLE: Final = re.compile(r"[!-~]+")


def require_playback(policy: PlaybackPolicy) -> None:
    if policy.kind is PlaybackKind.OTHER:
        raise Rejected("KIND_INVALID", "A playback policy is PUBLIC, JWT or WEBHOOK: choose one.", "kind")
    _require_few(policy.allowed_origins, "allowedOrigins", "ORIGINS_TOO_LONG")
    for origin in policy.allowed_origins:
        if not is_origin(origin):
            message = f"{origin[:80]!r} is no origin: give one such as https://example.org, example.org or *.example.org."
            raise Rejected("ORIGIN_INVALID", message, "allowedOrigins")
    for field, countries in (("allowedCountries", policy.allowed_countries), ("blockedCountries", policy.blocked_countries)):
        for country in countries:
            if not _COUNTRY.fullmatch(country):
                message = f"{country[:20]!r} is no country: give the two capital letters of ISO 3166-1, such as NL."
                raise Rejected("COUNTRY_INVALID", message, field)
        if len(countries) > 26 * 26 or len(set(countries)) < len(countries):
            raise Rejected("COUNTRY_INVALID", "A country is named twice: name each once.", field)
    if policy.max_viewers is not None and not 0 <= policy.max_viewers <= VIEWERS_MAX:
        message = f"0 to {VIEWERS_MAX:,} viewers may watch at a time; leave it out where there shall be no limit."
        raise Rejected("MAX_VIEWERS_INVALID", message, "maxViewers")
    if policy.audience is not None and not _is_line(policy.audience, AUDIENCE_MAX_CHARACTERS):
        message = f"An audience has 1 to {AUDIENCE_MAX_CHARACTERS} printable ASCII characters and no space: choose another."
        raise Rejected("AUDIENCE_INVALID", message, "audience")
    _require_webhook(policy)


def _require_webhook(policy: PlaybackPolicy) -> None:
    if policy.webhook_url is None:
        if policy.kind is PlaybackKind.WEBHOOK:
            raise Rejected("WEBHOOK_URL_REQUIRED", "Say which address is to be asked: webhookUrl.", "webhookUrl")
        return
    if not is_webhook_url(policy.webhook_url):
        message = "A webhook's address begins with https:// (http:// on the machine itself) and names a host, without a password."
        raise Rejected("WEBHOOK_URL_INVALID", message, "webhookUrl")


def is_origin(text: str) -> bool:
    """An origin (https://example.org:8443), a host, or `*.` and a host: all below it."""
    scheme, separator, rest = text.rpartition("://")
    if len(text) > ORIGIN_MAX_CHARACTERS or (separator and scheme not in ("http", "https")):
        return False
    host, colon, port = rest.partition(":")
    if colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        return False
    return _HOST.fullmatch(host.removeprefix("*.")) is not None


def is_webhook_url(text: str) -> bool:
    if len(text) > WEBHOOK_URL_MAX_CHARACTERS or not _PRINTABLE.fullmatch(text):
        return False
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        return False
    if not host or url.username is not None or url.password is not None or url.fragment:
        return False
    return url.scheme == "https" or (url.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_signing_key(algorithm: SigningAlgorithm, public_key: bytes) -> None:
    """Of its shape; whether the point lies on the curve is for whoever reads the PEM (the gateway)."""
    if algorithm not in _PREFIXES:
        raise Rejected("ALGORITHM_INVALID", "A signing key is for ES256 or EDDSA: choose one.", "algorithm")
    if len(public_key) != PUBLIC_KEY_BYTES[algorithm] or not public_key.startswith(_PREFIXES[algorithm]):
        message = "The public key is not one for this algorithm: ES256 takes a P-256 key, EDDSA an Ed25519 key."
        raise Rejected("PUBLIC_KEY_INVALID", message, "publicKeyPem")


def require_session_id(session_id: str) -> None:
    if not _is_line(session_id, SESSION_ID_MAX_CHARACTERS):
        message = "This is no session id: take the `sessionId` of one of the stream's sessions."
        raise Rejected("SESSION_ID_INVALID", message, "sessionId")


def require_block_seconds(seconds: int) -> None:
    if not 1 <= seconds <= BLOCK_MAX_SECONDS:
        message = f"A session may be refused for 1 to {BLOCK_MAX_SECONDS} seconds (a day): choose a time in between."
        raise Rejected("BLOCK_INVALID", message, "blockSeconds")


def _require_few(entries: tuple[str, ...], field: str, code: str) -> None:
    if len(entries) > ENTRIES_MAX:
        raise Rejected(code, f"There are {len(entries)} entries, {ENTRIES_MAX} are allowed: name fewer.", field)


def _is_line(text: str, max_characters: int) -> bool:
    return len(text) <= max_characters and _PRINTABLE.fullmatch(text) is not None
