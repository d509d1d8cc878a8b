"""News of the policy on the wire: messages of bounded size, with the secrets that the records beside them need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

from streams.codec import decode_policy, name_of
from streams.errors import Invalid
from streams.generated import StreamTasks, TenantPolicy
from streams.ingress.ingress_pb2 import PolicyUpdate, Secret, SignedPolicy
from streams.ingress.keys import day_keys, day_messages
from streams.ingress.policy_news import Known, PolicyNews, Signed
from streams.policy_signing import webhook_secret
from streams.privacy.envelope import DayKeys
from streams.sealed_secret import unseal
from streams.telemetry import log

POLICIES_PER_UPDATE: Final = 500  # some 200 KB
UPDATE_BYTES: Final = 1 << 20
_WITH_SECRETS: Final = frozenset({TenantPolicy.__name__, StreamTasks.__name__})

logger = log(__name__)


def updates(news: PolicyNews, secret_key: bytes, days: Sequence[DayKeys] = ()) -> Iterator[PolicyUpdate]:
    """The messages of some news. The last one says up to where a node knows the policy that has taken them all."""
    parts = list(_parts(news.records))
    for n, part in enumerate(parts, 1):
        is_last = n == len(parts)
        known = news.known if is_last else None
        yield PolicyUpdate(
            policies=[_signed(s) for s in part],
            of_snapshot=news.of_snapshot,
            complete=news.is_complete and is_last,
            offsets=known.offsets if known else (),
            snapshot=known.snapshot if known else b"",
            secrets=[Secret(id=i.bytes, value=value) for i, value in _secrets(part, secret_key)],
            days=day_messages(days) if is_last else (),
            public_key=news.public_key if n == 1 else b"",
            confirmed=_signed(news.confirmed) if is_last and news.confirmed else None,
        )


def news_of(update: PolicyUpdate) -> PolicyNews:
    """What a message says. Raises Invalid: not as the protocol has it."""
    if any(len(s.id) != 16 for s in update.secrets):
        raise Invalid("the id of a secret has 16 bytes")
    return PolicyNews(
        records=tuple(Signed(s.value, s.signature) for s in update.policies),
        of_snapshot=update.of_snapshot,
        is_complete=update.complete,
        known=Known(update.snapshot, tuple(update.offsets)) if update.snapshot else None,
        secrets=tuple((UUID(bytes=s.id), s.value) for s in update.secrets),
        days=day_keys(update.days),
        public_key=update.public_key,
        confirmed=Signed(update.confirmed.value, update.confirmed.signature) if update.HasField("confirmed") else None,
    )


def _signed(signed: Signed) -> SignedPolicy:
    return SignedPolicy(value=signed.value, signature=signed.signature)


def _parts(records: Sequence[Signed]) -> Iterator[Sequence[Signed]]:
    """At least one part, also of nothing."""
    part, size = list[Signed](), 0
    for record in records:
        if len(part) == POLICIES_PER_UPDATE or (part and size + len(record.value) > UPDATE_BYTES):
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record.value)
    yield part


def _secrets(records: Iterable[Signed], secret_key: bytes) -> Iterator[tuple[UUID, bytes]]:
    for record in records:
        if name_of(record.value) not in _WITH_SECRETS:
            continue
        policy = decode_policy(record.value)
        if isinstance(policy, TenantPolicy):
            yield policy.tenant_id, webhook_secret(secret_key, policy.tenant_id.bytes)
        elif isinstance(policy, StreamTasks):
            yield from _urls(policy, secret_key)


def _urls(tasks: StreamTasks, secret_key: bytes) -> Iterator[tuple[UUID, bytes]]:
    for push in tasks.pushes:
        try:
            yield push.target_id, unseal(secret_key, tasks.tenant_id, push.target_id, push.sealed_url).encode()
        except Invalid as error:
            logger.error(
                "the URL of a push target cannot be opened, no node will push there",
                target_id=str(push.target_id),
                reason=str(error),
            )
