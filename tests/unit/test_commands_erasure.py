"""Stories of erasures."""

from __future__ import annotations

import pytest

from commands.erasure import ERASURE
from streams.generated import (
    ConfirmErasure,
    ErasureReason,
    ErasureRequested,
    PersonalKind,
    RequestErasure,
    SubjectErased,
    TenantRegistered,
)
from tests.given import given

ASKED, EXPIRED = ErasureReason.REQUESTED, ErasureReason.EXPIRED
TAG = bytes(32)
REGISTERED = TenantRegistered("Acme")
OF_ALICE = ErasureRequested(PersonalKind.VIEWER, ASKED, TAG)
DONE = SubjectErased(PersonalKind.VIEWER, ASKED, 3, TAG)


@pytest.mark.parametrize(
    ("kind", "tag", "day"),
    [
        (PersonalKind.VIEWER, TAG, None),
        (PersonalKind.VIEWER_DAY, None, "2026-11-21"),
        (PersonalKind.PUBLISHER_DAY, None, "2026-11-21"),
        (PersonalKind.NODE_DAY, None, "2026-11-21"),
        (PersonalKind.CONTACT, None, None),
    ],
)
def test_an_erasure_says_whose_keys(kind: PersonalKind, tag: bytes | None, day: str | None) -> None:
    given(ERASURE, REGISTERED).when(RequestErasure(kind, ASKED, tag, day)).then(ErasureRequested(kind, ASKED, tag, day))


def test_keys_of_no_tenant_expire_too() -> None:
    wanted = RequestErasure(PersonalKind.NODE_DAY, EXPIRED, None, "2026-10-21")
    given(ERASURE).when(wanted).then(ErasureRequested(PersonalKind.NODE_DAY, EXPIRED, None, "2026-10-21"))


@pytest.mark.parametrize(
    ("kind", "tag", "day", "code", "field"),
    [
        (PersonalKind.VIEWER, None, None, "SUBJECT_INVALID", "subject"),
        (PersonalKind.VIEWER, b"alice", None, "SUBJECT_INVALID", "subject"),  # a name in the clear is none
        (PersonalKind.VIEWER_DAY, TAG, "2026-11-21", "SUBJECT_INVALID", "subject"),
        (PersonalKind.VIEWER_DAY, None, None, "DAY_INVALID", "viewerDay"),
        (PersonalKind.PUBLISHER_DAY, None, "20261121", "DAY_INVALID", "viewerDay"),
        (PersonalKind.NODE_DAY, None, "2026-02-30", "DAY_INVALID", "viewerDay"),
        (PersonalKind.CONTACT, None, "2026-11-21", "DAY_INVALID", "viewerDay"),
        (PersonalKind.OTHER, None, None, "SUBJECT_INVALID", None),
    ],
)
def test_an_erasure_of_nobody_is_refused(
    kind: PersonalKind, tag: bytes | None, day: str | None, code: str, field: str | None
) -> None:
    given(ERASURE, REGISTERED).when(RequestErasure(kind, ASKED, tag, day)).then_rejected(code, field)


def test_an_erasure_is_requested_once() -> None:
    again = RequestErasure(PersonalKind.VIEWER, ASKED, TAG)
    given(ERASURE, REGISTERED, OF_ALICE).when(again).then_rejected("ERASURE_EXISTS")
    given(ERASURE, REGISTERED, OF_ALICE, DONE).when(again).then_rejected("ERASURE_EXISTS")


def test_what_was_destroyed_is_recorded_once() -> None:
    given(ERASURE, REGISTERED, OF_ALICE).when(ConfirmErasure(3)).then(DONE)
    given(ERASURE, REGISTERED, OF_ALICE, DONE).when(ConfirmErasure(0)).then()  # the reactor did it again


def test_nothing_is_confirmed_that_nobody_requested() -> None:
    given(ERASURE, REGISTERED).when(ConfirmErasure(3)).then_rejected("ERASURE_NOT_FOUND")
