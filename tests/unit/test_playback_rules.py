"""Who may watch: a table of every rule, and what counts before what."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.generated import (
    AdmissionBasis,
    KickedSession,
    PlaybackKind,
    PlaybackPolicy,
    StreamPolicy,
    TenantPolicy,
    TenantStanding,
    ViewerRejection,
)
from streams.playback.origins import is_allowed, told_origin
from streams.playback.rules import (
    Allowed,
    AskWebhook,
    Decision,
    Denied,
    PlaybackRequest,
    WebhookSaid,
    after_webhook,
    decide_playback,
)
from tests.edge_node import SESSION, stream_policy
from tests.playback import NOON, NOON_SECONDS, playback, signing_key, tenant_policy, token

JWT, WEBHOOK, PUBLIC = PlaybackKind.JWT, PlaybackKind.WEBHOOK, PlaybackKind.PUBLIC
TENANT = tenant_policy(signing_key())
HOOK = "https://tenant.example/play"
PAGE = "http://edge/hls/x.m3u8?origin=https%3A%2F%2Fwww.example.org"
Reason = ViewerRejection


def decide(stream: StreamPolicy, tenant: TenantPolicy | None = TENANT, *, stale: bool = False, **request: Any) -> Decision:
    asked = PlaybackRequest(**{"address": "198.51.100.7", "country": "NL", "session_id": SESSION} | request)
    return decide_playback(stream, tenant, asked, NOON, stale)


def short(decided: Decision) -> AdmissionBasis | ViewerRejection | str:
    """What was decided, in a word."""
    match decided:
        case Allowed(basis=basis):
            return basis
        case Denied(reason=reason, message=message):
            assert message
            return reason
        case AskWebhook():
            return "ask"


def kicked(seconds: int, session: str = SESSION) -> StreamPolicy:
    kick = KickedSession(session, NOON + timedelta(seconds=seconds), UUID(int=1))
    return replace(stream_policy(), kicked=(kick,))


@pytest.mark.parametrize(
    ("stream", "request_", "expected"),
    [
        (stream_policy(), {}, AdmissionBasis.PUBLIC),
        (playback(), {}, AdmissionBasis.PUBLIC),
        (stream_policy(deleted=True), {}, Reason.STREAM_DELETED),
        (replace(stream_policy(), disabled=True), {}, Reason.STREAM_DISABLED),
        (kicked(1), {}, Reason.KICKED),
        (kicked(0), {}, AdmissionBasis.PUBLIC),
        (kicked(1, "another"), {}, AdmissionBasis.PUBLIC),
        (playback(blocked_countries=("NL",)), {}, Reason.COUNTRY_NOT_ALLOWED),
        (playback(blocked_countries=("NL",)), {"country": None}, AdmissionBasis.PUBLIC),
        (playback(allowed_countries=("BE", "NL")), {}, AdmissionBasis.PUBLIC),
        (playback(allowed_countries=("BE",)), {}, Reason.COUNTRY_NOT_ALLOWED),
        (playback(allowed_countries=("BE",)), {"country": None}, Reason.COUNTRY_NOT_ALLOWED),
        (playback(allowed_countries=("NL",), blocked_countries=("NL",)), {}, Reason.COUNTRY_NOT_ALLOWED),
        (playback(allowed_origins=("example.org",)), {}, Reason.ORIGIN_NOT_ALLOWED),
        (playback(allowed_origins=("*.example.org",)), {"url": PAGE}, AdmissionBasis.PUBLIC),
        (playback(allowed_origins=("example.com",)), {"url": PAGE}, Reason.ORIGIN_NOT_ALLOWED),
        (playback(max_viewers=3), {"viewers": 2}, AdmissionBasis.PUBLIC),
        (playback(max_viewers=3), {"viewers": 3}, Reason.VIEWER_LIMIT_REACHED),
        (playback(max_viewers=0), {}, Reason.VIEWER_LIMIT_REACHED),
        (playback(JWT), {}, Reason.TOKEN_MISSING),
        (playback(JWT), {"token": "113304752"}, Reason.TOKEN_MISSING),
        (playback(JWT), {"token": token()}, AdmissionBasis.JWT),
        (playback(JWT), {"url": f"rtmp://h/live/x?jwt={token()}"}, AdmissionBasis.JWT),
        (playback(JWT), {"token": "a.b.c"}, Reason.TOKEN_INVALID),
        (playback(JWT), {"token": token(kid="gone")}, Reason.TOKEN_INVALID),
        (playback(JWT), {"token": token(exp=NOON_SECONDS - 60)}, Reason.TOKEN_EXPIRED),
        (playback(JWT), {"token": token(sub="other")}, Reason.TOKEN_MISMATCH),
        (playback(JWT, audience="site"), {"token": token()}, Reason.TOKEN_MISMATCH),
        (playback(JWT, max_viewers=1), {"token": token(), "viewers": 1}, Reason.VIEWER_LIMIT_REACHED),
        (playback(JWT, max_viewers=1), {"token": "a.b.c", "viewers": 1}, Reason.TOKEN_INVALID),
        (playback(JWT, allowed_origins=("example.org",)), {"token": token(origin="https://example.org")}, AdmissionBasis.JWT),
        (
            playback(JWT, allowed_origins=("example.com",)),
            {"token": token(origin="https://example.org")},
            Reason.ORIGIN_NOT_ALLOWED,
        ),
        (playback(JWT), {"token": token(origin="https://other.org"), "url": PAGE}, Reason.ORIGIN_NOT_ALLOWED),
        (playback(JWT), {"token": token(origin=["www.example.org"]), "url": PAGE}, AdmissionBasis.JWT),
        (playback(JWT), {"token": token(origin=[7])}, Reason.TOKEN_INVALID),
        (playback(WEBHOOK, webhook_url=HOOK), {}, "ask"),
        (playback(WEBHOOK, webhook_url=HOOK, max_viewers=1), {"viewers": 1}, Reason.VIEWER_LIMIT_REACHED),
        (playback(WEBHOOK), {}, Reason.WEBHOOK_UNAVAILABLE),
        (playback(WEBHOOK, open_when_unavailable=True), {}, AdmissionBasis.OPEN_WHEN_UNAVAILABLE),
        (playback(PlaybackKind.OTHER), {}, Reason.WEBHOOK_UNAVAILABLE),
        (playback(PlaybackKind.OTHER, open_when_unavailable=True), {}, AdmissionBasis.OPEN_WHEN_UNAVAILABLE),
    ],
)
def test_rules(stream: StreamPolicy, request_: dict[str, Any], expected: object) -> None:
    assert short(decide(stream, **request_)) == expected


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (TenantStanding.ACTIVE, AdmissionBasis.JWT),
        (TenantStanding.SUSPENDED, Reason.TENANT_SUSPENDED),
        (TenantStanding.PAYMENT_REQUIRED, Reason.PAYMENT_REQUIRED),
        (TenantStanding.OTHER, Reason.TENANT_SUSPENDED),
    ],
)
def test_the_tenants_standing(standing: TenantStanding, expected: object) -> None:
    tenant = tenant_policy(signing_key(), standing=standing)
    assert short(decide(playback(JWT), tenant, token=token())) == expected


def test_a_tenant_that_is_not_known_has_no_keys_and_nothing_against_it() -> None:
    assert short(decide(playback(), None)) == AdmissionBasis.PUBLIC
    assert short(decide(playback(JWT), None, token=token())) == Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    ("stream", "request_", "expected"),
    [
        (playback(), {}, AdmissionBasis.PUBLIC),
        (playback(blocked_countries=("NL",)), {}, Reason.COUNTRY_NOT_ALLOWED),
        (stream_policy(deleted=True), {}, Reason.STREAM_DELETED),
        (playback(JWT), {"token": token()}, Reason.POLICY_STALE),
        (playback(JWT, open_when_unavailable=True), {"token": token()}, AdmissionBasis.JWT),
        (playback(JWT, open_when_unavailable=True), {}, AdmissionBasis.OPEN_WHEN_UNAVAILABLE),
        (playback(JWT, open_when_unavailable=True, max_viewers=0), {}, Reason.VIEWER_LIMIT_REACHED),
        (playback(WEBHOOK, webhook_url=HOOK), {}, Reason.POLICY_STALE),
        (playback(WEBHOOK, webhook_url=HOOK, open_when_unavailable=True), {}, "ask"),
    ],
)
def test_a_policy_that_is_out_of_date(stream: StreamPolicy, request_: dict[str, Any], expected: object) -> None:
    assert short(decide(stream, stale=True, **request_)) == expected


@pytest.mark.parametrize(
    ("said", "is_open", "expected"),
    [
        (True, False, AdmissionBasis.WEBHOOK),
        (False, True, Reason.WEBHOOK_DENIED),
        (None, False, Reason.WEBHOOK_UNAVAILABLE),
        (None, True, AdmissionBasis.OPEN_WHEN_UNAVAILABLE),
    ],
)
def test_what_the_webhook_said(said: bool | None, is_open: bool, expected: object) -> None:
    stream = playback(WEBHOOK, webhook_url=HOOK, open_when_unavailable=is_open, max_viewers=5)
    asked = decide(stream)
    assert isinstance(asked, AskWebhook)
    assert short(after_webhook(stream, PlaybackRequest(), asked, WebhookSaid(said, "silence"))) == expected
    full = short(after_webhook(stream, PlaybackRequest(viewers=5), asked, WebhookSaid(said, "silence")))
    assert full == (Reason.VIEWER_LIMIT_REACHED if isinstance(expected, AdmissionBasis) else expected)


def test_whom_the_media_server_trusts_is_judged_by_what_forbids_alone() -> None:
    assert short(decide(playback(JWT, max_viewers=0), is_trusted=True)) == AdmissionBasis.MEDIA_SERVER
    assert short(decide(kicked(1), is_trusted=True)) == Reason.KICKED
    assert short(decide(playback(JWT, blocked_countries=("NL",)), is_trusted=True)) == Reason.COUNTRY_NOT_ALLOWED


def test_only_a_verified_token_names_the_viewer() -> None:
    assert decide(playback(JWT), token=token(sub="pblobby", viewer="anna")) == Allowed(
        AdmissionBasis.JWT, "the token is good", "anna"
    )


@pytest.mark.parametrize(
    ("origin", "wanted", "expected"),
    [
        ("https://example.org", "https://example.org", True),
        ("https://example.org", "https://example.org:443", True),
        ("https://example.org:8443", "https://example.org", False),
        ("http://example.org", "https://example.org", False),
        ("https://EXAMPLE.org/watch?x=1", "example.org", True),
        ("https://example.org.", "example.org", True),
        ("https://a.example.org", "*.example.org", True),
        ("https://a.b.example.org", "https://*.example.org", True),
        ("https://example.org", "*.example.org", False),
        ("https://evilexample.org", "*.example.org", False),
        ("https://example.org.evil.net", "example.org", False),
        ("https://example.org@evil.net", "example.org", False),
        ("https://evil.net/#example.org", "example.org", False),
        ("https://localhost:3000", "localhost:3000", True),
        ("https://localhost:3001", "localhost:3000", False),
        ("https://localhost:3001", "localhost", True),
        ("javascript:alert(1)", "example.org", False),
        ("null", "example.org", False),
        ("file:///etc/passwd", "example.org", False),
        ("https://[bad", "example.org", False),
        ("https://x:99999999", "x", False),
        ("", "example.org", False),
    ],
)
def test_origins(origin: str, wanted: str, expected: bool) -> None:
    assert is_allowed(origin, [wanted]) is expected


def test_what_the_player_says_of_its_page() -> None:
    assert told_origin("http://h/x?origin=https%3A%2F%2Fa.org&origin=b") == "https://a.org"
    assert told_origin("http://h/x?origin=") is None
    assert told_origin("http://[bad?origin=x") is None
    assert told_origin("http://h/x?origin=" + "a" * 600) is None


@given(st.text(max_size=80), st.text(max_size=40))
def test_no_text_breaks_the_rule_of_origins(origin: str, wanted: str) -> None:
    assert is_allowed(origin, [wanted]) in (True, False)


POLICIES = st.builds(
    PlaybackPolicy,
    kind=st.sampled_from(PlaybackKind),
    allowed_countries=st.sampled_from([(), ("NL",), ("BE",)]),
    blocked_countries=st.sampled_from([(), ("NL",)]),
    allowed_origins=st.sampled_from([(), ("example.org",)]),
    max_viewers=st.sampled_from([None, 0, 5]),
    webhook_url=st.sampled_from([None, HOOK]),
    open_when_unavailable=st.booleans(),
)
REQUESTS = st.builds(
    PlaybackRequest,
    country=st.sampled_from([None, "NL", "BE"]),
    token=st.sampled_from(["", "a.b.c", token(), token(exp=1), token(sub="other")]),
    url=st.sampled_from(["", PAGE]),
    viewers=st.integers(0, 6),
)


@given(POLICIES, REQUESTS, st.booleans(), st.sampled_from(TenantStanding))
def test_nobody_comes_in_by_an_old_policy_whom_the_same_policy_refuses_when_it_is_new_but_by_its_own_word(
    policy: PlaybackPolicy, request_: PlaybackRequest, deleted: bool, standing: TenantStanding
) -> None:
    stream = replace(stream_policy(deleted=deleted), playback=policy)
    tenant = tenant_policy(signing_key(), standing=standing)
    new = decide_playback(stream, tenant, request_, NOON, False)
    old = decide_playback(stream, tenant, request_, NOON, True)
    if isinstance(new, Denied) and not isinstance(old, Denied):
        assert policy.open_when_unavailable
        assert old == Allowed(AdmissionBasis.OPEN_WHEN_UNAVAILABLE, old.message)
    if deleted or standing is not TenantStanding.ACTIVE:
        assert isinstance(new, Denied)
        assert isinstance(old, Denied)
