"""TLS between nodes and the ingress, both sides showing certificates of the platform's authority."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from streams.pki.authority import INGRESS_DAYS, INGRESS_NAME, Authority

RENEW_AFTER: Final = timedelta(days=INGRESS_DAYS) * 2 / 3
TLS_OPTIONS: Final = (("grpc.ssl_target_name_override", INGRESS_NAME),)


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """What a node shows, and whom it trusts, as PEM."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    policy_key: bytes = b""  # what the policy's signatures are verified with

    def channel_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


def server_credentials(authority: Authority, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> grpc.ServerCredentials:
    """Of an ingress: a key that never leaves the process, with certificates of 30 days, replaced while it runs.

    Only callers whose certificate the authority signed, and that has not ended, get through the handshake.
    """
    made_at = clock()

    def configuration() -> grpc.ServerCertificateConfiguration:
        key, certificate = authority.ingress_certificate(made_at)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority.certificate_pem)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Asked before every handshake; None: go on with what there is."""
        nonlocal made_at
        if clock() - made_at < RENEW_AFTER:
            return None
        made_at = clock()
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        renewed,  # type: ignore[arg-type]  # the stubs do not know that it may give None
        require_client_authentication=True,
    )
