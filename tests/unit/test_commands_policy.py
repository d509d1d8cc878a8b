"""Stories of what edges decide by: suspension, limits, signing keys, who may watch, who was kicked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as generated
from hypothesis import strategies as st

from commands.playback import BLOCK_MAX_SECONDS, ENTRIES_MAX, VIEWERS_MAX, is_origin, is_webhook_url
from commands.stream import STREAM
from commands.tenant import MAX_LIVE_STREAMS, SIGNING_KEYS_AT_ONCE, TENANT
from streams.generated import (
    CreateSigningKey,
    DisableStream,
    EnableStream,
    KickViewer,
    PlaybackKind,
    PlaybackPolicy,
    PlaybackPolicySet,
    ReinstateTenant,
    RevokeSigningKey,
    SetPlaybackPolicy,
    SetTenantLimits,
    SigningAlgorithm,
    SigningKeyCreated,
    SigningKeyRevoked,
    StreamCreated,
    StreamDeleted,
    StreamDisabled,
    StreamEnabled,
    SuspendTenant,
    SuspensionReason,
    TenantLimitsSet,
    TenantRegistered,
    TenantReinstated,
    TenantSuspended,
    ViewerKicked,
)
from tests.given import given

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACME = TenantRegistered("Acme")
LOBBY = StreamCreated("Lobby", "lobby", "play", "internal", "sk_1", b"1")
BROKE, OWES = SuspensionReason.SUSPENDED, SuspensionReason.PAYMENT_REQUIRED
ES256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004") + bytes(64)
EDDSA = bytes.fromhex("302a300506032b6570032100") + bytes(32)
PUBLIC = PlaybackPolicy(PlaybackKind.PUBLIC)


def key(key_id: str = "k1", algorithm: SigningAlgorithm = SigningAlgorithm.ES256, public_key: bytes = ES256) -> CreateSigningKey:
    return CreateSigningKey(key_id, "web", algorithm, public_key)


def made(key_id: str = "k1") -> SigningKeyCreated:
    return SigningKeyCreated(key_id, "web", SigningAlgorithm.ES256, ES256)


def test_a_tenant_is_suspended_for_a_reason_that_can_change() -> None:
    given(TENANT, ACME).when(SuspendTenant(BROKE)).then(TenantSuspended(BROKE))
    given(TENANT, ACME, TenantSuspended(BROKE)).when(SuspendTenant(BROKE)).then()
    given(TENANT, ACME, TenantSuspended(BROKE)).when(SuspendTenant(OWES)).then(TenantSuspended(OWES))
    given(TENANT, ACME).when(SuspendTenant(SuspensionReason.OTHER)).then_rejected("REASON_INVALID", "reason")
    given(TENANT).when(SuspendTenant(BROKE)).then_rejected("TENANT_NOT_FOUND")


def test_a_tenant_is_reinstated_once() -> None:
    given(TENANT, ACME, TenantSuspended(OWES)).when(ReinstateTenant()).then(TenantReinstated())
    given(TENANT, ACME).when(ReinstateTenant()).then()
    given(TENANT, ACME, TenantSuspended(OWES), TenantReinstated()).when(ReinstateTenant()).then()
    given(TENANT).when(ReinstateTenant()).then_rejected("TENANT_NOT_FOUND")


def test_limits_of_a_tenant() -> None:
    given(TENANT, ACME).when(SetTenantLimits(3)).then(TenantLimitsSet(3))
    given(TENANT, ACME, TenantLimitsSet(3)).when(SetTenantLimits(3)).then()
    given(TENANT, ACME, TenantLimitsSet(3)).when(SetTenantLimits(None)).then(TenantLimitsSet(None))
    given(TENANT, ACME).when(SetTenantLimits(0)).then(TenantLimitsSet(0))
    for limit in (-1, MAX_LIVE_STREAMS + 1):
        given(TENANT, ACME).when(SetTenantLimits(limit)).then_rejected("LIMIT_INVALID", "maxLiveStreams")


def test_signing_keys_come_and_go_for_ever() -> None:
    given(TENANT, ACME).when(key()).then(made())
    given(TENANT, ACME, made()).when(key()).then_rejected("SIGNING_KEY_EXISTS")
    given(TENANT, ACME, made()).when(RevokeSigningKey("k1")).then(SigningKeyRevoked("k1"))
    given(TENANT, ACME, made(), SigningKeyRevoked("k1")).when(RevokeSigningKey("k1")).then_rejected(
        "SIGNING_KEY_NOT_FOUND", "keyId"
    )
    given(TENANT, ACME, made(), SigningKeyRevoked("k1")).when(key()).then_rejected("SIGNING_KEY_EXISTS")
    given(TENANT, ACME).when(replace(key(), name="\t")).then_rejected("NAME_INVALID", "name")


def test_a_tenant_has_only_so_many_good_keys() -> None:
    full = [made(f"k{n}") for n in range(SIGNING_KEYS_AT_ONCE)]
    given(TENANT, ACME, *full).when(key("another")).then_rejected("TOO_MANY_SIGNING_KEYS")
    given(TENANT, ACME, *full, SigningKeyRevoked("k0")).when(key("another")).then(made("another"))


def test_a_public_key_is_one_for_its_algorithm() -> None:
    assert given(TENANT, ACME).when(key(algorithm=SigningAlgorithm.EDDSA, public_key=EDDSA)).rejected is None
    for algorithm, public_key in (
        (SigningAlgorithm.ES256, EDDSA),
        (SigningAlgorithm.EDDSA, ES256),
        (SigningAlgorithm.ES256, b""),
        (SigningAlgorithm.ES256, ES256 + b"x"),
        (SigningAlgorithm.EDDSA, bytes(44)),
    ):
        given(TENANT, ACME).when(key(algorithm=algorithm, public_key=public_key)).then_rejected(
            "PUBLIC_KEY_INVALID", "publicKeyPem"
        )
    given(TENANT, ACME).when(key(algorithm=SigningAlgorithm.OTHER)).then_rejected("ALGORITHM_INVALID", "algorithm")


def test_a_stream_is_disabled_and_enabled() -> None:
    given(STREAM, ACME, LOBBY).when(DisableStream()).then(StreamDisabled())
    given(STREAM, ACME, LOBBY, StreamDisabled()).when(DisableStream()).then()
    given(STREAM, ACME, LOBBY, StreamDisabled()).when(EnableStream()).then(StreamEnabled())
    given(STREAM, ACME, LOBBY).when(EnableStream()).then()


def test_who_may_watch_is_said_whole() -> None:
    strict = PlaybackPolicy(
        PlaybackKind.JWT, ("https://example.org", "*.example.org", "localhost:8080"), ("NL", "DE"), ("RU",), 10, "tv", None, True
    )
    given(STREAM, ACME, LOBBY).when(SetPlaybackPolicy(strict)).then(PlaybackPolicySet(strict))
    given(STREAM, ACME, LOBBY, PlaybackPolicySet(strict)).when(SetPlaybackPolicy(strict)).then()
    given(STREAM, ACME, LOBBY, PlaybackPolicySet(strict)).when(SetPlaybackPolicy(PUBLIC)).then(PlaybackPolicySet(PUBLIC))


@pytest.mark.parametrize(
    ("policy", "code", "field"),
    [
        (PlaybackPolicy(PlaybackKind.OTHER), "KIND_INVALID", "kind"),
        (replace(PUBLIC, allowed_origins=("no origin",)), "ORIGIN_INVALID", "allowedOrigins"),
        (replace(PUBLIC, allowed_origins=("a",) * (ENTRIES_MAX + 1)), "ORIGINS_TOO_LONG", "allowedOrigins"),
        (replace(PUBLIC, allowed_countries=("Netherlands",)), "COUNTRY_INVALID", "allowedCountries"),
        (replace(PUBLIC, blocked_countries=("nl",)), "COUNTRY_INVALID", "blockedCountries"),
        (replace(PUBLIC, blocked_countries=("NL", "NL")), "COUNTRY_INVALID", "blockedCountries"),
        (replace(PUBLIC, max_viewers=-1), "MAX_VIEWERS_INVALID", "maxViewers"),
        (replace(PUBLIC, max_viewers=VIEWERS_MAX + 1), "MAX_VIEWERS_INVALID", "maxViewers"),
        (replace(PUBLIC, audience=""), "AUDIENCE_INVALID", "audience"),
        (replace(PUBLIC, audience="a b"), "AUDIENCE_INVALID", "audience"),
        (replace(PUBLIC, kind=PlaybackKind.WEBHOOK), "WEBHOOK_URL_REQUIRED", "webhookUrl"),
        (replace(PUBLIC, webhook_url="http://example.org/x"), "WEBHOOK_URL_INVALID", "webhookUrl"),
    ],
)
def test_a_policy_that_no_edge_could_follow_is_refused(policy: PlaybackPolicy, code: str, field: str) -> None:
    given(STREAM, ACME, LOBBY).when(SetPlaybackPolicy(policy)).then_rejected(code, field)


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://example.org/play", True),
        ("https://example.org:8443/play?x=1", True),
        ("http://127.0.0.1:9000/play", True),
        ("http://[::1]/play", True),
        ("http://localhost/play", True),
        ("http://10.0.0.1/play", False),
        ("http://localhost.evil.org/", False),
        ("https://user:password@example.org/", False),
        ("https://example.org/#x", False),
        ("https://", False),
        ("https://example.org:99999/", False),
        ("ftp://example.org/", False),
        ("https://example.org/a b", False),
        ("https://example.org/" + "a" * 1000, False),
        ("", False),
    ],
)
def test_where_a_webhook_may_lie(url: str, is_good: bool) -> None:
    assert is_webhook_url(url) is is_good


@pytest.mark.parametrize(
    ("origin", "is_good"),
    [
        ("https://example.org", True),
        ("http://example.org:8080", True),
        ("example.org", True),
        ("*.example.org", True),
        ("https://*.example.org", True),
        ("localhost", True),
        ("192.0.2.1", True),
        ("", False),
        ("*", False),
        ("*.", False),
        ("example.org/path", False),
        ("Example.org", False),
        ("exa mple.org", False),
        ("example..org", False),
        ("-a.org", False),
        ("example.org:0", False),
        ("example.org:x", False),
        ("ftp://example.org", False),
        ("a" * 300, False),
    ],
)
def test_what_is_an_origin(origin: str, is_good: bool) -> None:
    assert is_origin(origin) is is_good


@generated(st.text(max_size=60))
def test_any_text_is_an_origin_and_a_webhook_or_not(text: str) -> None:
    assert is_origin(text) in (True, False)
    assert is_webhook_url(text) in (True, False)


def test_a_viewer_is_kicked_for_a_while() -> None:
    command = KickViewer("c036d0224f09", 60, NOON)
    given(STREAM, ACME, LOBBY).when(command).then(ViewerKicked("c036d0224f09", NOON + timedelta(minutes=1)))
    for seconds in (0, -1, BLOCK_MAX_SECONDS + 1):
        given(STREAM, ACME, LOBBY).when(replace(command, block_seconds=seconds)).then_rejected("BLOCK_INVALID", "blockSeconds")
    for session_id in ("", "a b", "a\n", "x" * 201):
        given(STREAM, ACME, LOBBY).when(replace(command, session_id=session_id)).then_rejected("SESSION_ID_INVALID", "sessionId")


def test_of_a_deleted_stream_nothing_is_decided() -> None:
    for command in (DisableStream(), EnableStream(), SetPlaybackPolicy(PUBLIC), KickViewer("s", 60, NOON)):
        given(STREAM, ACME, LOBBY, StreamDeleted("lobby")).when(command).then_rejected("STREAM_NOT_FOUND", "streamId")
        given(STREAM, ACME).when(command).then_rejected("STREAM_NOT_FOUND", "streamId")


def test_what_is_decided_about_a_stream_leaves_the_rest_as_it_was() -> None:
    state = given(STREAM, ACME, LOBBY, StreamDisabled(), PlaybackPolicySet(PUBLIC), ViewerKicked("s", NOON)).state
    assert state.own is not None
    assert (state.own.title, state.own.key_hash, state.own.is_disabled, state.own.playback) == ("Lobby", b"1", True, PUBLIC)
