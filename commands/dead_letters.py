"""Records that mean nothing go aside with their original bytes, so that a person can look; the line goes on.

Invariant: the headers say where the original lies. One that fills its topic's limit already goes without its bytes.
"""

from __future__ import annotations

from typing import Final

from aiokafka import ConsumerRecord

from commands.lines import Line
from streams.topics import Topics

KEY: Final = b"commands"
VALUE_MAX_BYTES: Final = Topics().dead_letters.max_message_bytes - (4 << 10)  # the headers need room, too
REASON_MAX_CHARACTERS: Final = 500


def dead_letter(record: ConsumerRecord, reason: str) -> Line:
    """What is written to the dead letters about a record of the command topic."""
    headers = [
        ("reason", reason[:REASON_MAX_CHARACTERS].encode(errors="replace")),
        ("topic", record.topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
    ]
    value: bytes | None = record.value
    if value is not None and len(value) > VALUE_MAX_BYTES:
        headers.append(("value_omitted_bytes", str(len(value)).encode()))
        value = None
    return Line(KEY, value, headers)
