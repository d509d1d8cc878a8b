"""No key leaves the agent, wherever in a text it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.redact import redacted_body, redacted_key, redacted_target, redacted_text

SECRET = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=8, max_size=40)


@given(st.text(max_size=30), SECRET, st.text(max_size=30))
def test_a_key_in_any_text(before: str, secret: str, after: str) -> None:
    key = f"sk_abcd2345_{secret}"
    assert f"_{secret}" not in redacted_text(f"{before} {key}/{after}").replace(after, "").replace(before, "")
    body = f"{before}{key}".encode(errors="replace")
    assert len(redacted_body(body)) == len(body)
    assert key.encode() not in redacted_body(body)


@pytest.mark.parametrize(
    ("offered", "shown"),
    [("sk_abcd2345_secret", "sk_abcd2345"), ("wrong-key-1", None), ("sk-7f3a9c", None), ("sk_short_x", None), ("", None)],
)
def test_of_an_offered_key_only_a_prefix_of_ours_is_shown(offered: str, shown: str | None) -> None:
    assert redacted_key(offered) == shown


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/rec/$stream-$datetime.mkv", "/rec/$stream-$datetime.mkv"),
        ("rtmp://live.example.org/app/their-key", "rtmp://live.example.org/app/…"),
        ("rtmps://user:password@example.org:443/app/key?x=y", "rtmps://example.org:443/app/…?…"),
        ("srt://example.org:9000?streamid=key&passphrase=secret", "srt://example.org:9000?…"),
        ("whip://example.org/their/token", "whip://example.org/their/…"),
        ("s3+https://key:secret@bucket.example.org/a/b.ts", "s3+https://bucket.example.org/a/b.ts"),
        ("https://bucket.example.org/a/b.ts?X-Amz-Signature=secret", "https://bucket.example.org/a/b.ts?…"),
    ],
)
def test_targets(target: str, shown: str) -> None:
    assert redacted_target(target) == shown


def test_a_sentence_of_the_media_server() -> None:
    said = "Push from 127.0.0.1 to URL rtmp://127.0.0.1:11935/live/wrong-key-1 rejected - PUSH_REWRITE trigger blanked the URL"
    assert "wrong-key-1" not in redacted_text(said)
