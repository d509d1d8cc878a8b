"""The command line and the agent itself: enrolled once, then renewing while it works, and nothing is lost or said twice."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import identity
from infra.embedded.stack import Stack
from streams.generated import IngestRejected
from tests.edge_process import EdgeProcess, facts_on_log
from tests.enrolment import CERTIFICATE_SECONDS, Enrolling, enrolling, token_for
from tests.gateway_platform import OPERATOR_TOKEN

STRANGER = "sk_abcdefgh_" + "2" * 32
FW = str(Path(sys.executable).parent / "fw")


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolling]:
    with enrolling(stack, tmp_path_factory.mktemp("enrolling")) as started:
        yield started


async def fw(*arguments: str, **env: str) -> tuple[int, str, str]:
    """Runs `fw`: its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        FW, *arguments, env={**os.environ, **env}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_line_enrols_once(platform: Enrolling, tmp_path: Path) -> None:
    api = platform.operator()
    node_id, token = await token_for(api, "ber-1")
    state, file = tmp_path / "state", tmp_path / "token"
    file.write_text(token + "\n")
    asked = ["edge", "enroll", "--platform", platform.url, "--state-dir", str(state)]
    code, out, err = await fw(*asked, "--token", f"@{file}", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["node_id"], said["ingress"]) == (node_id, platform.ingress_tls)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    code, _, err = await fw(*asked, FW_EDGE_TOKEN=token)
    assert code == 1
    assert "is enrolled already, as ber-1" in err
    code, out, err = await fw(*asked, "--force", "--json", FW_EDGE_TOKEN=token)  # another key, and the token is used up
    assert (code, json.loads(out)["error"]) == (1, "ENROLMENT_TOKEN_USED")
    assert "Traceback" not in err
    code, _, err = await fw(*asked, "--force", "--token", "fwt_wrong")
    assert code == 1
    assert "78 characters" in err
    code, _, err = await fw("edge", "enroll", "--platform", "http://127.0.0.1:1", "--state-dir", str(tmp_path), "--token", token)
    assert code == 3
    assert "try again" in err
    found = identity.load(state)
    assert found is not None
    assert found.node_id == "ber-1"
    await api.close()


async def test_an_operator_needs_the_command_line_alone(platform: Enrolling, tmp_path: Path) -> None:
    """Registered, enrolled, drained, revoked, listed."""
    here = {"FW_PLATFORM": platform.url, "FW_API_TOKEN": OPERATOR_TOKEN}
    code, out, err = await fw("node", "register", "ber-2", "--region", "eu", "--tag", "gpu", **here)
    assert (code, out) == (0, "registered ber-2; next: fw node token ber-2\n"), err
    code, token, err = await fw("node", "token", "ber-2", **here)
    assert code == 0, err
    state = str(tmp_path / "state")
    code, _, err = await fw("edge", "enroll", "--platform", platform.url, "--token", token, "--state-dir", state)
    assert code == 0, err
    code, out, _ = await fw("node", "mode", "ber-2", "draining", **here)
    assert (code, out) == (0, "ber-2 is draining\n")
    code, out, _ = await fw("node", "list", "--json", **here)
    [row] = [node for node in json.loads(out) if node["id"] == "ber-2"]
    assert (row["mode"], row["enrolment"], row["region"], row["tags"]) == ("DRAINING", "ENROLLED", "eu", ["gpu"])
    code, out, _ = await fw("node", "revoke", "ber-2", "--reason", "sold", **here)
    assert (code, out) == (0, "revoked ber-2\n")
    async with asyncio.timeout(180):  # a list may be a little behind
        while "REVOKED" not in (await fw("node", "list", **here))[1]:
            pass
    for arguments, exit_code, sentence in (
        (("node", "token", "nobody"), 1, "register it first"),
        (("node", "register", "Not A Name"), 1, "begins and ends with a letter or digit"),
        (("node", "mode", "ber-2", "asleep"), 2, "active, draining or in maintenance"),
        (("node", "list", "--platform", "http://127.0.0.1:1"), 3, "does not answer"),
        (("node", "list", "--api-token", "wrong"), 1, "token is not known"),
    ):
        code, _, err = await fw(*arguments, **here)
        assert (code, sentence in err) == (exit_code, True), err


async def test_the_agent_renews_while_it_works(platform: Enrolling, tmp_path: Path) -> None:
    """Through three certificates, triggers come without a pause: every fact is on the log, and none of them twice."""
    api = platform.operator()
    _, token = await token_for(api, "edge-1")
    state = tmp_path / "state"
    code, _, err = await fw("edge", "enroll", "--platform", platform.url, "--state-dir", str(state), "--token", token)
    assert code == 0, err
    first = identity.load(state)
    assert first is not None
    edge = EdgeProcess(state, platform.ingress_tls)
    async with edge:
        await edge.ready()
        serials, sent = {first.certificate}, 0
        async with asyncio.timeout(180):
            while len(serials) < 4:
                # A publisher whose key nobody knows: refused, and a fact of the node, each of them.
                body = f"rtmp://h/live/{STRANGER}\n10.0.0.1\n{STRANGER}"
                status, _ = await edge.post("PUSH_REWRITE", body, uuid=f"rotation-{sent}", pid=1000 + sent)
                assert status == 200
                sent += 1
                known = identity.load(state)
                assert known is not None
                serials.add(known.certificate)
                await asyncio.sleep(0.01)
        await edge.drained()
        gauges = await edge.gauges()
        assert gauges["fw_edge_certificate_renewals_total"] == 3
        assert 0 < gauges["fw_edge_certificate_seconds_left"] <= CERTIFICATE_SECONDS
        assert gauges["fw_edge_uplink_lost_total"] == 0, "a renewal is no lost connection"
        assert await edge.stop() == 0
    facts = await facts_on_log(platform.platform.stack.kafka, platform.platform.topics)
    seen = Counter(meta.event_id for event, meta in facts if isinstance(event, IngestRejected))
    assert len(seen) == sent
    assert set(seen.values()) == {1}
    await api.close()
