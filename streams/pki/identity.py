"""What a node's certificate says: which node, by which enrolment, until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote, unquote
from uuid import UUID

from cryptography import x509

_PREFIX: Final = "urn:frameworks:node:"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    node_id: str
    enrolment_id: UUID
    not_after: datetime  # of the certificate

    @property
    def uri(self) -> str:
        return f"{_PREFIX}{quote(self.node_id, safe='')}:{self.enrolment_id}"


def identity_of(certificate: x509.Certificate) -> NodeIdentity:
    """What the certificate claims; who signed it is not looked at here. ValueError: it is not of a node."""
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        [uri] = san.get_values_for_type(x509.UniformResourceIdentifier)
        if not uri.startswith(_PREFIX):
            raise ValueError(uri)
        node_id, _, enrolment_id = uri.removeprefix(_PREFIX).rpartition(":")
        return NodeIdentity(unquote(node_id, errors="strict"), UUID(enrolment_id), certificate.not_valid_after_utc)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise ValueError("this is no certificate of a node") from error
