"""Explain tokens: what was sealed comes back, and nothing else opens."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.explain import GOOD_FOR, LONGEST, of_facts, opened, token_of
from gateway.times import checked, moment_of
from projections.explanations import Question
from projections.moments import Moment, from_milliseconds

KEY = b"k" * 32
TENANT, STREAM = uuid4(), uuid4()
MOMENTS = st.none() | st.integers(0, 4_000_000_000_000).map(from_milliseconds)


@given(
    MOMENTS, MOMENTS, st.integers(0, 1 << 62), st.dictionaries(st.sampled_from(("viewer_joined", "viewer_left")), st.integers(-1))
)
def test_a_token_carries_all_that_it_takes(
    at: datetime | None, known_at: datetime | None, value: int, upto: dict[str, int]
) -> None:
    upto = {table: min(offset, 1 << 60) for table, offset in upto.items()}
    question = Question("VIEWERS_NOW", STREAM, value, Moment(at, known_at, upto), 17, (("viewer_left", uuid4()),))
    token = token_of(KEY, TENANT, question)
    assert len(token) < LONGEST
    assert opened(KEY, TENANT, token)[0] == question


def code(token: str, key: bytes = KEY) -> str:
    with pytest.raises(ApiError) as refused:
        opened(key, TENANT, token)
    assert refused.value.message.endswith(".")
    return refused.value.code


def test_what_was_not_sealed_here_for_this_tenant_opens_nothing() -> None:
    question = of_facts("SESSION_SECONDS", STREAM, 14, [("viewer_left", uuid4()), ("viewer_joined", None)])
    assert len(question.events) == 1
    token = token_of(KEY, TENANT, question)
    for other in ("", "x", "é", token[:-4], token + "AAAA", "A" * LONGEST * 2):
        assert code(other) == "BAD_EXPLAIN_TOKEN"
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for n in (0, 16, len(data) - 1):
        forged = base64.urlsafe_b64encode(data[:n] + bytes([data[n] ^ 1]) + data[n + 1 :]).decode()
        assert code(forged) == "BAD_EXPLAIN_TOKEN"
    assert code(token, b"another installation") == "BAD_EXPLAIN_TOKEN"
    assert code(token_of(KEY, uuid4(), question)) == "BAD_EXPLAIN_TOKEN"
    now = datetime.now(UTC)
    assert code(token_of(KEY, TENANT, question, now - GOOD_FOR - timedelta(minutes=1))) == "EXPLAIN_TOKEN_EXPIRED"
    assert opened(KEY, TENANT, token_of(KEY, TENANT, question, now - GOOD_FOR + timedelta(minutes=1)))[0] == question


def test_no_answer_about_a_time_that_has_not_been() -> None:
    now = datetime.now(UTC)
    for at, known_at in ((now + timedelta(days=1), None), (None, now + timedelta(days=1))):
        with pytest.raises(ApiError, match="lies outside of history: give a time until now") as refused:
            moment_of(at, known_at)
        assert refused.value.code == "OUTSIDE_HISTORY"
    with pytest.raises(ApiError, match=r"give a time from 20\d\d-.* until now"):
        checked("asOf", now - timedelta(days=2), now - timedelta(days=1))
    assert moment_of(None, None) == Moment()
    past = now - timedelta(seconds=1)
    assert moment_of(past, past) == Moment(past, past)
