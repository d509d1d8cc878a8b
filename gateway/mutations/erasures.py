"""Erasures: whose keys are to be destroyed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final, TypedDict
from uuid import UUID

from ariadne import MutationType

from gateway.inputs import BadInput
from gateway.mutations.answers import AuthError, Info, Refusal, command_id_of, invalid, payload_of, tenant_of
from gateway.runtime import Context
from streams import ids
from streams.generated import ErasureReason, PersonalKind, RequestErasure
from streams.privacy.envelope import SUBJECT_MAX_CHARACTERS
from streams.privacy.people import subject_tag
from streams.recorded import Position

mutation = MutationType()


@dataclass(frozen=True, slots=True)
class EraseSubjectSuccess:
    erasure_id: UUID
    position: Position
    client_mutation_id: str | None


class EraseSubjectInput(TypedDict):
    subject: str | None
    viewer_day: str | None
    publisher_day: str | None
    contact: bool | None
    client_mutation_id: str | None


@mutation.field("eraseSubject")
async def erase_subject(_: None, info: Info, input: EraseSubjectInput) -> EraseSubjectSuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key = input.get("client_mutation_id")
    try:
        command_id = command_id_of(caller.tenant_id, key)
        command = _command(context.runtime.secret_key, caller.tenant_id, input)
    except BadInput as bad:
        return invalid(bad)
    erasure_id = ids.derive(command_id, "erasure")
    answer = await context.send(command, command_id, caller.tenant_id, erasure_id, caller.actor)
    return payload_of(answer, lambda at: EraseSubjectSuccess(erasure_id, at, key))


def _command(secret_key: bytes, tenant_id: UUID, wanted: EraseSubjectInput) -> RequestErasure:
    """Raises BadInput. A viewer's name becomes a tag here: it goes no further."""
    subject, viewers, publishers = wanted.get("subject"), wanted.get("viewer_day"), wanted.get("publisher_day")
    contact = bool(wanted.get("contact"))
    if [subject is not None, viewers is not None, publishers is not None, contact].count(True) != 1:
        message = "say exactly one of subject, viewerDay, publisherDay and contact"
        raise BadInput("SUBJECT_INVALID", "subject", message)
    reason = ErasureReason.REQUESTED
    if subject is not None:
        return RequestErasure(PersonalKind.VIEWER, reason, subject_tag(secret_key, tenant_id, _subject(subject)))
    if viewers is not None:
        return RequestErasure(PersonalKind.VIEWER_DAY, reason, None, _day(viewers, "viewerDay"))
    if publishers is not None:
        return RequestErasure(PersonalKind.PUBLISHER_DAY, reason, None, _day(publishers, "publisherDay"))
    return RequestErasure(PersonalKind.CONTACT, reason)


def _subject(text: str) -> str:
    if not 1 <= len(text) <= SUBJECT_MAX_CHARACTERS or (not text.isascii() and "\ud800" <= max(text) <= "\udfff"):
        message = f"subject has 1 to {SUBJECT_MAX_CHARACTERS} characters, as the `sub` of your viewers' tokens"
        raise BadInput("SUBJECT_INVALID", "subject", message)
    return text


def _day(text: str, field: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise BadInput("DAY_INVALID", field, f"{field} is a UTC day like 2026-11-21") from None


TYPES: Final = (mutation,)
