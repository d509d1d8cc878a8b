"""The restore drill: a platform that worked is backed up and gone; what is made from the backup is the same platform."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from infra.embedded.errors import FAILED, IN_USE
from streams.archive.chain import load_chains
from streams.archive.files import ArchiveReader
from streams.archive.objects import Objects
from streams.settings import authority_files
from tests.e2e.test_spine import AUDIENCE, after_replay, nodes, recorded_viewings
from tests.platform import Json, Platform, until
from tests.stored_rows import Rows, rows_of
from tests.up import Up, free_port_base, fw, up

RECORDING = "1-publisher-3-hls-viewers"
SECONDS = 300.0
RENAME = """mutation ($input: RenameStreamInput!) { renameStream(input: $input) {
  __typename ... on RenameStreamSuccess { stream { id title } position } ... on Error { code message } } }"""


def rename(platform: Platform, token: str, stream_id: str, title: str, key: str) -> Json:
    given = {"streamId": stream_id, "title": title, "clientMutationId": key}
    answer: Json = platform.query(RENAME, {"input": given}, token)["renameStream"]
    assert answer["__typename"] == "RenameStreamSuccess", answer
    return answer


def backup(started: Up, target: Path) -> Json:
    done = fw("backup", str(target), "--data-dir", str(started.data_dir), "--json", timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    line: Json = json.loads(done.stdout)
    return line


async def last_offsets(archive: Path, positions: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, int], int]:
    """The last record of every partition that has one."""
    found, objects = dict[tuple[str, int], int](), Objects(str(archive))
    with ThreadPoolExecutor(1) as threads:
        for topic in positions:
            for partition, chain in (await load_chains(objects, topic)).items():
                async for batch in ArchiveReader(objects, threads).read(chain, chain.firsts[0], chain.end):
                    found[topic, partition] = batch[-1].offset
    return found


async def have_passed(postgres: str, last: Mapping[tuple[str, int], int]) -> bool:
    """Whether the active build of every projection contains every record."""
    connection = await asyncpg.connect(postgres)
    try:
        rows = await connection.fetch(
            "SELECT topic, partition, next_offset FROM platform.projection_offset "
            "JOIN platform.projection_build USING (projection, build) WHERE state = 'active'"
        )
    finally:
        await connection.close()
    return bool(rows) and all((r["next_offset"] or 0) > last.get((r["topic"], r["partition"]), -1) for r in rows)


def settled_rows(started: Up, archive: Path, positions: Mapping[str, Mapping[str, int]]) -> Rows:
    last = asyncio.run(last_offsets(archive, positions))
    stores = started.stores()
    until(lambda: asyncio.run(have_passed(stores["postgres"], last)), SECONDS, "every projection to have read the log")
    return asyncio.run(rows_of(stores["postgres"], stores["clickhouse"]))


@pytest.mark.timeout(900)  # two platforms and a restore: half a minute, and ten times that on a machine that has more to do
def test_what_is_restored_is_the_same_platform(tmp_path: Path) -> None:
    base, target, again = free_port_base(), tmp_path / "backup", secrets.token_hex(8)
    with up(tmp_path / "old", port_base=base) as started:
        platform = Platform(dict(started.line), started.data_dir)
        stream, token = after_replay(platform, RECORDING)
        stream_id = platform.query("{ streams(first: 1) { nodes { id } } }", token=token)["streams"]["nodes"][0]["id"]
        foreign = platform.create_tenant("Rival")
        rename(platform, token, stream_id, "Stage", again)
        rename(platform, token, stream_id, "Hall", secrets.token_hex(8))
        first = backup(started, target)
        assert first["new_ranges"] == first["ranges"] > 0
        # the edge may have said something since: until a backup has nothing new, the rows are not those of its log
        while True:
            rows = settled_rows(started, target / "archive", first["positions"])
            following = backup(started, target)
            if following["new_ranges"] == 0:
                break
            first = following
        verified = fw("archive", "verify", "--data-dir", str(started.data_dir), "--json")
        assert json.loads(verified.stdout)["ok"], verified.stdout
    shutil.copy(tmp_path / "old" / "master.key", tmp_path / "master.key")
    of_nodes = [file.read_bytes() for file in authority_files(tmp_path / "old")]
    shutil.rmtree(tmp_path / "old")

    damaged_backups_are_refused(target, tmp_path / "new")
    key, ports = ("--master-key-file", str(tmp_path / "master.key")), ("--port-base", str(base))
    restored = fw("restore", str(target), "--data-dir", str(tmp_path / "new"), *key, *ports, timeout=SECONDS)
    assert restored.returncode == 0, restored.stderr
    assert [file.read_bytes() for file in authority_files(tmp_path / "new")] == of_nodes, "no node has to be enrolled anew"
    refused = fw("restore", str(target), "--data-dir", str(tmp_path / "new"))
    assert (refused.returncode, "is not empty" in refused.stderr) == (IN_USE, True)

    with up(tmp_path / "new", port_base=base) as started:
        platform = Platform(dict(started.line), started.data_dir)
        after = settled_rows(started, target / "archive", first["positions"])
        for name, before in rows.items():
            # an edge that starts says so: what is new may be there, what was there has to be
            assert [row for row in before if row not in after[name]] == [], name
        seen = platform.query(AUDIENCE, {"id": stream_id}, token)["stream"]
        assert sorted((s["seconds"], s["upBytes"], s["downBytes"]) for s in nodes(seen["sessions"])) == recorded_viewings(
            RECORDING
        )
        assert seen == stream
        assert platform.query("{ streams(first: 9) { totalCount } }", token=foreign)["streams"]["totalCount"] == 0
        answered = rename(platform, token, stream_id, "Stage", again)
        assert answered["stream"]["title"] == "Hall", "a command that is sent again is answered again, and not decided again"
        rename(platform, token, stream_id, "Lounge", secrets.token_hex(8))
        postgres = started.stores()["postgres"]
        until(lambda: asyncio.run(versions(postgres, stream_id)) == [1, 2, 3, 4], SECONDS, "the next decision, once")


async def versions(postgres: str, aggregate_id: str) -> list[int]:
    connection = await asyncpg.connect(postgres)
    try:
        rows = await connection.fetch("SELECT version FROM journal WHERE aggregate_id = $1 ORDER BY version", aggregate_id)
        return [row["version"] for row in rows]
    finally:
        await connection.close()


def damaged_backups_are_refused(target: Path, data_dir: Path) -> None:
    """And leave nothing behind."""
    for harmed in (next((target / "archive").rglob("*.avro")), next((target / "keys").iterdir())):
        good = harmed.read_bytes()
        harmed.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        done = fw("restore", str(target), "--data-dir", str(data_dir), "--port-base", str(free_port_base()), timeout=SECONDS)
        assert (done.returncode, harmed.name in done.stderr, "Traceback" in done.stderr) == (FAILED, True, False), done.stderr
        assert not data_dir.exists()
        assert not data_dir.with_name(f"{data_dir.name}.restoring").exists()
        harmed.write_bytes(good)
