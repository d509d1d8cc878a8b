"""What a command id stands for, and what the log may know of a secret."""

from __future__ import annotations

import hashlib
import re
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from gateway import derived

MASTER = bytes(32)
SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")


@given(st.uuids())
def test_a_command_id_always_stands_for_the_same(command_id: UUID) -> None:
    for kind in (derived.STREAM_KEY, derived.API_TOKEN):
        secret = derived.secret(MASTER, kind, command_id)
        assert secret == derived.secret(MASTER, kind, command_id)
        assert re.fullmatch(rf"{kind}_[a-z2-7]{{8}}_[a-z2-7]{{32}}", secret.text)
        assert derived.prefix_of(secret.text) == secret.prefix
        assert secret.hash == hashlib.sha256(secret.text.encode()).digest()
    assert re.fullmatch(r"[a-z2-7]{16}", derived.playback_id(command_id))
    assert re.fullmatch(r"[a-z2-7]{20}", derived.internal_name(command_id))


def test_other_masters_kinds_and_commands_give_other_secrets() -> None:
    one, two = uuid4(), uuid4()
    texts = {
        derived.secret(master, kind, command_id).text.split("_", 1)[1]
        for master in (MASTER, b"x" * 32)
        for kind in (derived.STREAM_KEY, derived.API_TOKEN)
        for command_id in (one, two)
    }
    assert len(texts) == 8


def test_a_secret_does_not_show_in_a_log_line() -> None:
    secret = derived.secret(MASTER, derived.STREAM_KEY, uuid4())
    assert secret.text not in repr(secret)


@given(st.text(min_size=1, max_size=200), st.uuids())
def test_every_title_has_a_slug(title: str, command_id: UUID) -> None:
    assert SLUG.fullmatch(derived.slug(title, command_id))


def test_slugs_read_like_their_titles() -> None:
    command_id = UUID(int=7)
    assert derived.slug("Café au lait, LIVE!", command_id).rpartition("-")[0] == "cafe-au-lait-live"
    assert derived.slug("日本語", command_id).rpartition("-")[0] == "stream"


def test_what_is_no_key_has_no_prefix() -> None:
    for text in ("", "sk_", "sk_short_x", "sk_" + "a" * 8 + "_" + "A" * 32, "xx_" + "a" * 8 + "_" + "a" * 32):
        assert derived.prefix_of(text) is None
