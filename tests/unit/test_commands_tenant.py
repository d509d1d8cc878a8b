"""Stories of tenants."""

from __future__ import annotations

import pytest

from commands.tenant import TENANT
from streams.generated import (
    ApiTokenIssued,
    ApiTokenRevoked,
    IssueApiToken,
    RegisterTenant,
    RevokeApiToken,
    StreamCreated,
    StreamDeleted,
    TenantRegistered,
)
from tests.given import given

HASH = b"t" * 32
TENANT_REGISTERED = TenantRegistered("Radio Lobby")
FIRST = ApiTokenIssued("first token", "fwt_abcdefgh", HASH)
ISSUE = IssueApiToken(name="encoder", token_prefix="fwt_secondxx", token_hash=b"s" * 32)
REGISTER = RegisterTenant(name="Radio Lobby", token_prefix="fwt_abcdefgh", token_hash=HASH)


def test_a_tenant_is_registered_with_a_first_token() -> None:
    given(TENANT).when(REGISTER).then(
        TenantRegistered("Radio Lobby"), ApiTokenIssued(name="first token", token_prefix="fwt_abcdefgh", token_hash=HASH)
    )


def test_a_tenant_is_registered_once() -> None:
    given(TENANT, TenantRegistered("Radio Lobby")).when(REGISTER).then_rejected("TENANT_EXISTS")


@pytest.mark.parametrize("name", ["", "   ", "a" * 101, "two\nlines", "nul\0", "line\u2028separator"])
def test_a_name_is_one_line_that_can_be_read(name: str) -> None:
    given(TENANT).when(RegisterTenant(name, "fwt_", HASH)).then_rejected("NAME_INVALID", "name")


@pytest.mark.parametrize("name", ["A", "a" * 100, "Zürich 1", "日本", "👩‍💻 live"])
def test_people_name_themselves_in_any_script(name: str) -> None:
    assert given(TENANT).when(RegisterTenant(name, "fwt_", HASH)).rejected is None


def test_slugs_are_taken_and_freed() -> None:
    created = StreamCreated("Lobby", "lobby", "play", "internal", "sk_abc", b"k" * 32)
    taken = given(TENANT, TenantRegistered("x"), created).state
    assert taken is not None
    assert "lobby" in taken.slugs
    freed = TENANT.evolve(taken, StreamDeleted("lobby"))
    assert freed is not None
    assert "lobby" not in freed.slugs
    assert "lobby" in taken.slugs, "evolve changes no state that somebody holds"


def test_a_fold_is_total() -> None:
    assert given(TENANT, StreamDeleted("lobby")).state is None
    assert given(TENANT, TenantRegistered("x"), StreamDeleted("never-created")).state is not None


def test_a_tenant_gets_another_token() -> None:
    given(TENANT, TENANT_REGISTERED, FIRST).when(ISSUE).then(ApiTokenIssued("encoder", "fwt_secondxx", b"s" * 32))


def test_nobody_gets_a_token_of_a_tenant_who_does_not_exist() -> None:
    given(TENANT).when(ISSUE).then_rejected("TENANT_NOT_FOUND")


def test_a_token_is_issued_once() -> None:
    again = IssueApiToken("encoder", FIRST.token_prefix, b"s" * 32)
    given(TENANT, TENANT_REGISTERED, FIRST).when(again).then_rejected("TOKEN_EXISTS")


@pytest.mark.parametrize("name", ["", "a" * 101, "two\nlines"])
def test_a_tokens_name_is_one_line_that_can_be_read(name: str) -> None:
    given(TENANT, TENANT_REGISTERED, FIRST).when(IssueApiToken(name, "fwt_x", HASH)).then_rejected("NAME_INVALID", "name")


SECOND = ApiTokenIssued("encoder", "fwt_secondxx", b"s" * 32)


def test_a_token_is_revoked() -> None:
    given(TENANT, TENANT_REGISTERED, FIRST, SECOND).when(RevokeApiToken("fwt_secondxx")).then(ApiTokenRevoked("fwt_secondxx"))
    given(TENANT, TENANT_REGISTERED, FIRST, SECOND).when(RevokeApiToken("fwt_abcdefgh")).then(ApiTokenRevoked("fwt_abcdefgh"))


def test_only_a_token_that_works_is_revoked() -> None:
    revoked = ApiTokenRevoked("fwt_secondxx")
    given(TENANT, TENANT_REGISTERED, FIRST).when(RevokeApiToken("fwt_unknownx")).then_rejected("TOKEN_NOT_FOUND", "tokenPrefix")
    given(TENANT, TENANT_REGISTERED, FIRST, SECOND, revoked).when(RevokeApiToken("fwt_secondxx")).then_rejected(
        "TOKEN_NOT_FOUND", "tokenPrefix"
    )
    given(TENANT).when(RevokeApiToken("fwt_abcdefgh")).then_rejected("TENANT_NOT_FOUND")


def test_the_last_token_stays() -> None:
    given(TENANT, TENANT_REGISTERED, FIRST).when(RevokeApiToken("fwt_abcdefgh")).then_rejected("LAST_TOKEN")
    given(TENANT, TENANT_REGISTERED, FIRST, SECOND, ApiTokenRevoked("fwt_secondxx")).when(
        RevokeApiToken("fwt_abcdefgh")
    ).then_rejected("LAST_TOKEN")


def test_a_revoked_token_is_never_issued_again() -> None:
    given(TENANT, TENANT_REGISTERED, FIRST, SECOND, ApiTokenRevoked("fwt_secondxx")).when(ISSUE).then_rejected("TOKEN_EXISTS")
