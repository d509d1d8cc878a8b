"""Erasures: somebody's personal data is to become unreadable, and then is.

Invariant: an erasure is requested once and confirmed once, by the reactor that destroyed the keys. Whom it is about is known here
only as a keyed pseudonym. It needs no tenant: keys of the operator's own nodes end, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import assert_never, get_args

from commands.decider import Decider
from commands.tenant import OfTenant
from commands.tenant import evolve as evolve_tenant
from streams.errors import Rejected
from streams.generated import (
    ConfirmErasure,
    Decision,
    ErasureRequested,
    PersonalKind,
    RequestErasure,
    SubjectErased,
)

ErasureCommand = RequestErasure | ConfirmErasure
ErasureEvent = ErasureRequested | SubjectErased

TAG_BYTES = 32
OF_A_DAY = frozenset({PersonalKind.VIEWER_DAY, PersonalKind.PUBLISHER_DAY, PersonalKind.NODE_DAY})


@dataclass(frozen=True, slots=True)
class Erasure:
    requested: ErasureRequested
    is_done: bool = False


def decide(command: ErasureCommand, state: OfTenant[Erasure]) -> Sequence[Decision]:
    erasure = state.own
    match command:
        case RequestErasure():
            if erasure is not None:
                raise Rejected("ERASURE_EXISTS", "This erasure was requested already: look at it in `erasures`.")
            _require_person(command)
            return [ErasureRequested(command.kind, command.reason, command.subject_tag, command.day)]
        case ConfirmErasure(keys_destroyed=keys):
            if erasure is None:
                raise Rejected("ERASURE_NOT_FOUND", "There is no such erasure: request it first.")
            if erasure.is_done:
                return []
            of = erasure.requested
            return [SubjectErased(of.kind, of.reason, keys, of.subject_tag, of.day)]
        case _:
            assert_never(command)


def _require_person(command: RequestErasure) -> None:
    tag, day = command.subject_tag, command.day
    if command.kind is PersonalKind.OTHER:
        raise Rejected("SUBJECT_INVALID", "An erasure is of a viewer, of a day, or of the contact: say which.")
    if (tag is not None and len(tag) == TAG_BYTES) != (command.kind is PersonalKind.VIEWER):
        raise Rejected("SUBJECT_INVALID", "A viewer is erased by the name that your tokens give them: say it.", "subject")
    if _is_day(day) != (command.kind in OF_A_DAY):
        raise Rejected("DAY_INVALID", "A day is written like 2026-11-21, and only some erasures have one.", "viewerDay")


def _is_day(text: str | None) -> bool:
    try:
        return text is not None and date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def evolve(state: OfTenant[Erasure], event: Decision) -> OfTenant[Erasure]:
    erasure = _evolve_erasure(state.own, event) if isinstance(event, ErasureEvent) else state.own
    return OfTenant(erasure, evolve_tenant(state.tenant, event))


def _evolve_erasure(erasure: Erasure | None, event: ErasureEvent) -> Erasure | None:
    match event:
        case ErasureRequested():
            return Erasure(event)
        case SubjectErased():
            return None if erasure is None else Erasure(erasure.requested, is_done=True)
        case _:
            assert_never(event)


ERASURE: Decider[ErasureCommand, OfTenant[Erasure], Decision] = Decider(
    name="erasure",
    initial=OfTenant(),
    decide=decide,
    evolve=evolve,
    commands=frozenset(get_args(ErasureCommand)),
    events=frozenset(get_args(ErasureEvent)),
)
