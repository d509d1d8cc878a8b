"""`fw edge journal`: what the platform refused is listed, shown and sent again, by its old ids, while the agent runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.journal_view import JournalView, NoJournal
from infra.embedded.stack import Stack
from infra.processes.ingress import running
from streams.codec import encode
from streams.generated import BufferChanged, BufferState
from streams.ids import derive
from streams.ingress.credentials import issue
from streams.topics import Topics
from tests.edge_node import STREAM, TENANT
from tests.edge_process import EdgeProcess, facts_on_log
from tests.ingress import SECRET_KEY, ingress_settings, meta
from tests.integration.test_edge_command_line import fw

OTHER_TENANT = derive(TENANT, "another tenant")


async def test_what_was_refused_is_seen_and_sent_again(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    state = str(tmp_path / "edge")
    about = meta(TENANT, STREAM)
    foreign = encode(BufferChanged("edge-1", BufferState.FULL, buffer_ms=7), about)
    async with running(ingress_settings(stack.kafka, topics)) as ingress:
        edge = EdgeProcess(tmp_path / "edge", f"127.0.0.1:{ingress.port}", [OTHER_TENANT])
        async with edge:
            await edge.ready()
            await edge.stop()
            keep(edge.state_dir, foreign, b"poison")  # as an agent with another credential left it
            await edge.start()
            await edge.ready()
            await edge.drained()

            status, out, _ = await fw("edge", "journal", "list", "--json", "--state-dir", state)
            listed = [json.loads(line) for line in out.splitlines()]
            assert status == 0
            assert [(one["record"], one["code"], one["state"]) for one in listed] == [
                ("BufferChanged", "FOREIGN_TENANT", "quarantined"),
                (None, "MALFORMED", "quarantined"),
            ]
            assert listed[0]["event_id"] == str(about.event_id)
            number = str(listed[0]["number"])
            status, out, _ = await fw("edge", "journal", "list", "--state-dir", state)
            assert "2 facts are in quarantine" in out
            assert "FOREIGN_TENANT" in out

            status, out, _ = await fw("edge", "journal", "show", number, "--json", "--state-dir", state)
            shown = json.loads(out)
            assert bytes.fromhex(shown["value_hex"]) == foreign
            assert shown["event"]["buffer_ms"] == 7
            status, out, _ = await fw("edge", "journal", "show", number, "--state-dir", state)
            assert "FOREIGN_TENANT" in out
            assert foreign[:2].hex() in out
            status, _, err = await fw("edge", "journal", "show", "999", "--state-dir", state)
            assert status == 1
            assert "does not hold 999" in err

            # The credential is put right, and what was refused is sent again.
            await edge.stop()
            (edge.state_dir / "credential").write_text(issue(SECRET_KEY, "edge-1", None))
            await edge.start()
            await edge.ready()
            assert (await fw("edge", "journal", "retry", "--state-dir", state))[0] != 0  # say which
            status, out, _ = await fw("edge", "journal", "retry", "--code", "FOREIGN_TENANT", "--json", "--state-dir", state)
            assert json.loads(out) == {"marked": 1}
            while (edge_gauges := await edge.gauges())["fw_edge_acknowledged_facts_total"] < 1:
                assert edge_gauges["fw_edge_quarantined_facts_total"] == 0
            [(event, said)] = await facts_on_log(stack.kafka, topics)
            assert (event, said.event_id) == (BufferChanged("edge-1", BufferState.FULL, buffer_ms=7), about.event_id)

            # What is poison stays so, however often it is sent.
            await fw("edge", "journal", "retry", "--all", "--state-dir", state)
            while (await edge.gauges())["fw_edge_quarantined_facts_total"] < 1:
                pass
            await edge.drained()
            with JournalView.opened(edge.state_dir) as view:
                assert [(held.value, held.code, held.state) for held in view.quarantined(9)] == [
                    (b"poison", "MALFORMED", "quarantined")
                ]
                assert view.summary().waiting == 0


def keep(state_dir: Path, *values: bytes) -> None:
    import sqlite3

    with sqlite3.connect(state_dir / "journal.db") as file:
        file.executemany("INSERT INTO journal (value, at_ms) VALUES (?, 1)", [(value,) for value in values])
    file.close()


async def test_a_directory_without_a_journal_is_said(tmp_path: Path) -> None:
    status, _, err = await fw("edge", "journal", "list", "--state-dir", str(tmp_path))
    assert status == 1
    assert "there is no journal" in err
    with pytest.raises(NoJournal, match="no journal"), JournalView.opened(tmp_path):
        pass
