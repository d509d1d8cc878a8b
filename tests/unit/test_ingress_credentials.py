"""A credential says who a node is and for whom it speaks; nothing that we did not issue passes for one."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import jwt
import pytest
from typer.testing import CliRunner

from infra.cli.node import app
from streams.errors import Rejected
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.ingress.credentials import AUDIENCE, NodeCredential, issue, read, signing_key, verify
from streams.policy_signing import public_key

SECRET = bytes(range(32))
A, B, C = uuid4(), uuid4(), uuid4()
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize("tenants", [None, [A], [A, B]])
def test_what_is_issued_is_verified_and_read(tenants: list[object] | None) -> None:
    text = issue(SECRET, "edge-1", tenants, NOON)  # type: ignore[arg-type]
    of = None if tenants is None else frozenset(tenants)
    expected = NodeCredential("edge-1", of, NOON, public_key(SECRET))  # type: ignore[arg-type]
    assert verify(SECRET, text) == expected
    assert verify(SECRET, text + "\n") == expected
    assert read(text) == expected


def test_nothing_else_is_accepted() -> None:
    claims = {"aud": AUDIENCE, "sub": "edge-1", "iat": 1, "operator": True}
    key = signing_key(SECRET)
    forged = [
        "",
        "x.y.z",
        issue(bytes(32), "edge-1", None),  # another master secret
        jwt.encode(claims, SECRET, "HS256"),  # the master secret itself
        jwt.encode(claims, "", "none"),
        jwt.encode(claims, key * 2, "HS512"),
        jwt.encode(claims | {"aud": "fw:other"}, key, "HS256"),
        jwt.encode({"aud": AUDIENCE, "sub": "edge-1", "iat": 1}, key, "HS256"),  # bound to nobody
        jwt.encode({"aud": AUDIENCE, "sub": "edge-1", "iat": 1, "tenants": []}, key, "HS256"),
        jwt.encode({"aud": AUDIENCE, "sub": "edge-1", "iat": 1, "tenants": ["x"]}, key, "HS256"),
        jwt.encode({"aud": AUDIENCE, "iat": 1, "operator": True}, key, "HS256"),
    ]
    for text in forged:
        with pytest.raises(Rejected) as rejected:
            verify(SECRET, text)
        assert rejected.value.code == "UNAUTHENTICATED"
    found = verify(SECRET, jwt.encode(claims, key, "HS256"))  # of before there was a policy key in it
    assert (found.tenants, found.policy_key) == (None, None)
    with pytest.raises(Rejected):
        verify(SECRET, jwt.encode(claims | {"policy_key": "abcd"}, key, "HS256"))


@pytest.mark.parametrize("node_id", ["", "a\nb", "x" * 129])
def test_a_node_has_a_printable_name(node_id: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        issue(SECRET, node_id, None)


def test_a_node_speaks_for_its_tenants_and_of_itself() -> None:
    operator, one, two = (NodeCredential("edge-1", t, NOON) for t in (None, frozenset({A}), frozenset({A, B})))
    itself, other = node_uuid("edge-1"), node_uuid("edge-2")
    assert [c.own_tenant for c in (operator, one, two)] == [OPERATOR_TENANT, A, OPERATOR_TENANT]
    assert all(operator.may_say(t, other) for t in (A, B, C, OPERATOR_TENANT))
    assert one.may_say(A, C)
    assert one.may_say(one.own_tenant, itself)
    assert not one.may_say(B, C)
    assert not one.may_say(OPERATOR_TENANT, itself)
    assert two.may_say(B, C)
    assert two.may_say(two.own_tenant, itself)
    assert not two.may_say(OPERATOR_TENANT, other)
    assert not two.may_say(C, itself)
    assert (one.serves(A), one.serves(B), operator.serves(C), two.serves(OPERATOR_TENANT)) == (True, False, True, False)


def test_the_command_line_writes_a_private_file(tmp_path: Path) -> None:
    env, out = {"FW_SECRET_KEY": SECRET.hex(), "FW_DATA_DIR": str(tmp_path)}, tmp_path / "edge-1.credential"
    done = CliRunner().invoke(app, ["credential", "--node-id", "edge-1", "--tenant", str(A), "-o", str(out)], env=env)
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert verify(SECRET, out.read_text()).tenants == frozenset({A})
    assert os.listdir(tmp_path) == [out.name]
    printed = CliRunner().invoke(app, ["credential", "--node-id", "edge-1", "--operator"], env=env)
    assert verify(SECRET, printed.stdout).tenants is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--node-id", "n"], "either name tenants"),
        (["--node-id", "n", "--operator", "--tenant", str(A)], "either name tenants"),
        (["--node-id", "n", "--tenant", "x"], "--tenant"),
        (["--node-id", "", "--operator"], "printable"),
        (["--node-id", "n", "--operator", "-o", "/proc/none/x"], "No such file"),
    ],
)
def test_the_command_line_says_what_is_wrong(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    env = {"FW_SECRET_KEY": SECRET.hex(), "FW_DATA_DIR": str(tmp_path)}
    done = CliRunner().invoke(app, ["credential", *arguments], env=env)
    assert done.exit_code != 0
    assert sentence in done.output


def test_the_command_line_needs_the_master_secret(tmp_path: Path) -> None:
    env = {"FW_SECRET_KEY": "", "FW_DATA_DIR": str(tmp_path)}
    done = CliRunner().invoke(app, ["credential", "--node-id", "n", "--operator"], env=env)
    assert done.exit_code == 1
    assert "FW_SECRET_KEY" in done.output
