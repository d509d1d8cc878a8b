"""Certificates of nodes, and the messages by which they get them: what is believed, and what is not."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from edge_agent import identity
from edge_agent.identity import Shown
from infra.cli.node import app
from infra.supervisor.layout import Directory
from infra.supervisor.state import authority as kept_authority
from streams.ingress.transport import NodeCertificate
from streams.pki.authority import BACKDATED, INGRESS_NAME, NoAuthority, load, make, pin_of
from streams.pki.identity import NodeIdentity, identity_of
from streams.pki.messages import (
    EnrolmentToken,
    csr_pem,
    fingerprint,
    new_request,
    parse_csr,
    parse_token,
    proof_of,
    sign,
    signed_with,
)
from streams.settings import authority_files
from tests.enrolment import an_identity, another_authority, certificate

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
OURS = another_authority()
SECRET = "fwe_" + "a" * 8 + "_" + "b" * 32


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize("node_id", ["fra-1", "studio~k3x7qa", "ä:/ ?%", "x" * 128])
def test_a_certificate_says_which_node_and_by_which_enrolment(node_id: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    wanted = NodeIdentity(node_id, uuid4(), now + timedelta(days=1))
    pem = OURS.node_certificate(wanted, key().public_key(), 31, now)
    found = x509.load_pem_x509_certificate(pem)
    assert identity_of(found) == wanted
    assert found.serial_number == 31
    found.verify_directly_issued_by(OURS.certificate)


def test_clocks_that_are_a_little_behind_find_them_good() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    pem = OURS.node_certificate(NodeIdentity("n", uuid4(), now + timedelta(days=1)), key().public_key(), 1, now)
    assert x509.load_pem_x509_certificate(pem).not_valid_before_utc == now - BACKDATED
    _, of_ingress = OURS.ingress_certificate(now)
    assert x509.load_pem_x509_certificate(of_ingress).not_valid_before_utc <= now - timedelta(hours=23)
    assert OURS.certificate.not_valid_before_utc <= now - timedelta(hours=23)


def test_a_node_is_no_ingress_and_an_ingress_is_no_node() -> None:
    _, pem = OURS.ingress_certificate(datetime.now(UTC))
    of_ingress = x509.load_pem_x509_certificate(pem)
    with pytest.raises(ValueError, match="no certificate of a node"):
        identity_of(of_ingress)
    with pytest.raises(ValueError, match="no certificate of a node"):
        identity_of(OURS.certificate)
    of_node = x509.load_pem_x509_certificate(certificate(OURS, INGRESS_NAME).certificate)
    names = of_node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []
    constraints = of_node.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca


def test_a_token_is_copied_whole_or_not_at_all() -> None:
    token = EnrolmentToken(SECRET, OURS.pin)
    text = str(token)
    assert len(text) == 78
    assert parse_token(f" {text}\n") == token
    assert token.prefix == "fwe_aaaaaaaa"
    for broken in ("", text[:-1], text + "a", text.upper(), SECRET, text.replace("fwe", "fwt")):
        with pytest.raises(ValueError, match="78 characters"):
            parse_token(broken)


def test_a_proof_is_of_one_token_and_one_key() -> None:
    ours, theirs = new_request(key()), new_request(key())
    assert proof_of(SECRET, ours) == proof_of(SECRET, ours)
    assert len({proof_of(SECRET, ours), proof_of(SECRET, theirs), proof_of(SECRET + "c", ours)}) == 3


def test_requests_are_of_the_one_kind_of_key_that_we_use() -> None:
    ours = key()
    assert fingerprint(parse_csr(csr_pem(new_request(ours)))[1]) == fingerprint(ours.public_key())
    other_curve = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    edwards = other_curve.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.PEM).decode()
    for broken in ("", "-----BEGIN CERTIFICATE REQUEST-----", edwards, OURS.certificate_pem.decode()):
        with pytest.raises(ValueError, match="no certificate signing request"):
            parse_csr(broken)


def test_a_signature_is_of_one_key_and_one_message() -> None:
    signature = sign(OURS.key, b"yes")
    assert signed_with(OURS.certificate, b"yes", signature)
    assert not signed_with(OURS.certificate, b"no", signature)
    assert not signed_with(another_authority().certificate, b"yes", signature)
    assert not signed_with(OURS.certificate, b"yes", b"")


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    for word in ("wrote", "kept"):
        done = CliRunner().invoke(app, ["authority", "-o", str(directory)])
        assert done.exit_code == 0, done.output
        assert done.output.startswith(word)
        assert load(*authority_files(directory)).pin in done.output
    assert {f.name: stat.S_IMODE(f.stat().st_mode) for f in directory.iterdir()} == {
        "authority.crt": 0o600,
        "authority.key": 0o600,
    }
    kept_authority(Directory(directory), {})  # as `fw up` does it: what is there stays
    assert load(*authority_files(directory)).pin in done.output
    kept_authority(Directory(tmp_path), {"FW_CA_CERT": "elsewhere"})
    assert os.listdir(tmp_path) == ["cluster"]


def test_files_that_are_no_authority_are_said_to_be_none(tmp_path: Path) -> None:
    certificate_file, key_file = authority_files(tmp_path)
    with pytest.raises(NoAuthority, match="fw node authority"):
        load(certificate_file, key_file)
    certificate_file.write_bytes(make(NOON)[0])
    key_file.write_bytes(make(NOON)[1])
    with pytest.raises(NoAuthority, match="is not the key"):
        load(certificate_file, key_file)
    key_file.write_text("x")
    with pytest.raises(NoAuthority, match="as PEM"):
        load(certificate_file, key_file)


@pytest.mark.parametrize(("now_ms", "is_due"), [(1_000_000, False), (1_199_999, False), (1_200_000, True), (999_999, True)])
def test_the_next_certificate_is_due_after_two_thirds_or_a_jump_of_the_clock(now_ms: int, is_due: bool) -> None:
    assert an_identity().is_due(now_ms) == is_due


def test_an_identity_is_kept_whole_and_takes_the_place_of_the_credential(tmp_path: Path) -> None:
    credential = tmp_path / "credential"
    credential.write_text("a credential")
    shown = Shown(tmp_path, credential)
    assert shown() == "a credential"
    first = identity.asked(tmp_path)
    assert identity.asked(tmp_path) == first  # after a kill, too
    known = an_identity()
    identity.store(tmp_path, known)
    assert identity.load(tmp_path) == known
    now = shown()
    assert isinstance(now, NodeCertificate)
    assert now.key.decode() == known.key
    assert "PRIVATE" not in repr(now)
    assert identity.asked(tmp_path) != first
    (tmp_path / identity.IDENTITY).write_text("{")
    with pytest.raises(ValueError, match="enrol with another token"):
        identity.load(tmp_path)


def test_the_pin_is_of_the_certificate() -> None:
    assert pin_of(OURS.certificate) == OURS.pin
    assert pin_of(another_authority().certificate) != OURS.pin
    assert replace(OURS).pin == OURS.pin
