"""A body that never ends is given up."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from gateway import http


async def test_a_body_that_does_not_come_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.02)
    parts = [b'{"query":', b'"{']

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": parts.pop(0), "more_body": True}

    with pytest.raises(http.BadRequest) as refused:
        await http._posted({b"content-type": b"application/json"}, receive)
    assert (refused.value.status, refused.value.code) == (408, "BODY_TOO_SLOW")
