"""What a client asked for, as 32 bytes: the same idempotency key with another wish is a conflict.

Only what the client says counts. What the gateway adds (times, secrets, new ids and names) may differ between two sendings
of the same wish, and does not make it another one: the schema of the command marks such fields with `"wish": false`, and marks
`meta` so where the id of what the command is about is new, too.

Invariant: whoever sends a command and whoever decides it get the same bytes, also when one of them knows a newer schema. So a
field that has a default counts only where it has another value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from hashlib import sha256
from operator import attrgetter
from typing import Final, get_args
from uuid import UUID

from streams.generated import Command
from streams.registry import by_name


@dataclass(frozen=True, slots=True)
class Wish:
    """What counts of one kind of command."""

    record: str
    values: Callable[[Command], object] | None  # of the fields without a default; None: there are none
    with_default: Sequence[tuple[str, object]]
    is_about_old: bool  # whether it is about something that was there before it


def _wish(command: type) -> Wish:
    described = by_name()[command.__name__].schema["fields"]
    assert isinstance(described, list)
    names = [str(f["name"]) for f in described if f.get("wish", True)]
    defaults: Mapping[str, object] = {f.name: f.default for f in fields(command) if f.default is not MISSING}
    always = [name for name in names if name not in defaults and name != "meta"]
    return Wish(
        command.__name__,
        attrgetter(*always) if always else None,
        [(name, defaults[name]) for name in names if name in defaults],
        "meta" in names,
    )


WISHES: Final[Mapping[type, Wish]] = {command: _wish(command) for command in get_args(Command)}


def fingerprint(command: Command, aggregate_id: UUID) -> bytes:
    """SHA-256 of the command's record name and the client's wish."""
    wish = WISHES[type(command)]
    values = wish.values(command) if wish.values is not None else None
    said: tuple[object, ...] = (wish.record, aggregate_id.hex if wish.is_about_old else None, values)
    if chosen := [(name, value) for name, default in wish.with_default if (value := getattr(command, name)) != default]:
        said = (*said, chosen)
    # As Python writes them down: no two values of a type alike, and `ascii` does not change with Unicode as `repr` does.
    return sha256(ascii(said).encode()).digest()
