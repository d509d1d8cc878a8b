"""Resolvers of what edges decide by: signing keys, and the secret that requests to playback webhooks are signed with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ariadne import ObjectType, QueryType
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from graphql import GraphQLResolveInfo

from gateway.reads import wait_for
from gateway.runtime import Context
from projections import tenants
from projections.tenants import SigningKeyRow, TenantRow
from streams.policy_signing import webhook_secret
from streams.recorded import Position

Info = GraphQLResolveInfo[Context]
query = QueryType()
tenant_type = ObjectType("Tenant")
signing_key_type = ObjectType("SigningKey")
TYPES: Final = (query, tenant_type, signing_key_type)


@query.field("signingKeys")
async def resolve_signing_keys(_: None, info: Info, after: Position | None = None) -> Sequence[SigningKeyRow]:
    context: Context = info.context
    tenant_id = context.tenant_id()
    await wait_for(context, tenants.PROJECTION.name, after)
    return await tenants.signing_keys(context.runtime.database, tenant_id)


@tenant_type.field("playbackWebhookSecret")
def resolve_webhook_secret(tenant: TenantRow, info: Info) -> str:
    return webhook_secret(info.context.runtime.secret_key, tenant.tenant_id.bytes).decode()


@signing_key_type.field("publicKeyPem")
def resolve_public_key_pem(key: SigningKeyRow, _: Info) -> str:
    return load_der_public_key(key.public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
