"""`fw up` of the three servers: start, refusal, death, recovery, stop; what a person reads when something is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import clickhouse_connect
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.cli.up import PRINTED
from infra.embedded import jars
from infra.embedded.errors import DAMAGED_DOWNLOAD, DISK_FULL, IN_USE, PORT_TAKEN
from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from infra.supervisor.leftovers import marked
from streams.topics import Topics
from tests.up import SERVERS_ONLY, eventually, free_port_base, fw, up


async def write(line: Mapping[str, str]) -> None:
    """One thing into each store."""
    postgres = await asyncpg.connect(line["postgres"])
    await postgres.execute("CREATE TABLE kept (n int)")
    await postgres.execute("INSERT INTO kept VALUES (7)")
    await postgres.close()
    producer = AIOKafkaProducer(bootstrap_servers=line["kafka"], acks="all")
    await producer.start()
    await producer.send_and_wait("fw.commands", b"kept", partition=3)
    await producer.stop()
    with contextlib.closing(clickhouse_connect.get_client(dsn=line["clickhouse"])) as client:
        client.command("CREATE TABLE kept (n UInt8) ENGINE = MergeTree ORDER BY n")
        client.insert("kept", [(7,)], column_names=["n"])


async def read(line: Mapping[str, str]) -> tuple[int, bytes | None, int]:
    postgres = await asyncpg.connect(line["postgres"])
    row = await postgres.fetchval("SELECT n FROM kept")
    await postgres.close()
    consumer = AIOKafkaConsumer(bootstrap_servers=line["kafka"], auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition("fw.commands", 3)])
    record = await consumer.getone()
    await consumer.stop()
    with contextlib.closing(clickhouse_connect.get_client(dsn=line["clickhouse"])) as client:
        return row, record.value, client.query("SELECT sum(n) FROM kept").result_rows[0][0]


def test_what_was_written_survives_a_stop_and_kill_9_of_everything(tmp_path: Path) -> None:
    base = free_port_base()
    with up(tmp_path, *SERVERS_ONLY, port_base=base) as first:
        line = dict(first.line)
        assert tuple(line) == PRINTED
        asyncio.run(write(first.stores()))
        assert first.stop() == 0
        assert marked(tmp_path) == []
    with up(tmp_path, *SERVERS_ONLY, port_base=base) as second:
        assert {**second.line, "processes": 0} == {**line, "processes": 0}  # the same addresses and secrets
        for pid in (second.process.pid, *second.pids().values()):
            os.kill(pid, signal.SIGKILL)
        second.process.wait(180)
    with up(tmp_path, *SERVERS_ONLY, port_base=base) as third:
        assert asyncio.run(read(third.stores())) == (7, b"kept", 7)


def test_what_a_killed_supervisor_left_is_ended(tmp_path: Path) -> None:
    with up(tmp_path, *SERVERS_ONLY) as first:
        left = set(first.pids().values())
        first.process.kill()
        first.process.wait(180)
        assert fw("status", "--data-dir", str(tmp_path)).returncode == 1
        with up(tmp_path, *SERVERS_ONLY) as second:
            assert not left & set(second.pids().values())
            assert "a former run was killed" in second.log.read_text()
            assert {process.pid for process, part in marked(tmp_path)} & left == set()


def test_a_second_up_says_so_and_the_first_one_goes_on(tmp_path: Path) -> None:
    with up(tmp_path, *SERVERS_ONLY) as first:
        second = fw("up", "--data-dir", str(tmp_path), "--port-base", "5000")
        assert second.returncode == IN_USE
        assert f"already running on {tmp_path}" in second.stderr
        assert str(first.process.pid) in second.stderr
        assert first.process.poll() is None
        reported = fw("status", "--json", "--data-dir", str(tmp_path))
        assert json.loads(reported.stdout) == first.line
        assert fw("doctor", "--data-dir", str(tmp_path)).returncode == 0


@pytest.mark.parametrize("part", ["kafka", "postgres", "clickhouse"])
def test_a_part_that_dies_is_restarted_alone(tmp_path: Path, part: str) -> None:
    with up(tmp_path, *SERVERS_ONLY) as running:
        asyncio.run(write(running.stores()))
        before = running.pids()
        os.kill(before[part], signal.SIGKILL)
        eventually(f"{part} is ready again", lambda: f"{part} is ready again" in running.log.read_text())
        after = running.pids()
        assert {name for name in before if before[name] != after[name]} == {part}
        assert running.status()["parts"][part]["restarts"] == 1
        assert f"{part} (pid {before[part]}) was ended by SIGKILL; restarting it" in running.log.read_text()
        assert asyncio.run(read(running.stores())) == (7, b"kept", 7)
        assert running.stop(signal.SIGTERM) == 0


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    with up(tmp_path, *SERVERS_ONLY) as running:
        for name in ("secrets.json", "stack.json"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running.pids().values() if Path("/proc").exists()]
        for secret in json.loads((tmp_path / "secrets.json").read_text()).values():
            assert not any(secret.encode() in command for command in commands)
    assert not (tmp_path / "stack.json").exists()


def test_services_of_others_are_used_instead(
    tmp_path: Path, stack: Stack, database: str, clickhouse_database: str, topics: Topics
) -> None:
    elsewhere = {"FW_KAFKA_BOOTSTRAP": stack.kafka, "FW_POSTGRES_URL": database, "FW_CLICKHOUSE_URL": clickhouse_database}
    with up(tmp_path, *SERVERS_ONLY, env=elsewhere | {"FW_TOPIC_PREFIX": topics.prefix}) as running:
        assert running.pids() == {}
        assert (running.line["kafka"], running.line["postgres"], running.line["clickhouse"]) == tuple(elsewhere.values())
        assert "topics done" in running.log.read_text()  # in the cluster of others


def test_a_service_of_others_that_does_not_answer_is_a_sentence(tmp_path: Path, stack: Stack) -> None:
    (nobody,) = free_ports(1)
    elsewhere = {
        "FW_KAFKA_BOOTSTRAP": stack.kafka,
        "FW_POSTGRES_URL": f"postgresql://u:p@127.0.0.1:{nobody}/d",
        "FW_CLICKHOUSE_URL": stack.clickhouse,
    }
    tried = fw("up", "--data-dir", str(tmp_path), "--port-base", str(free_port_base()), *SERVERS_ONLY, env=elsewhere)
    assert tried.returncode == 1
    assert "fw: migrations:" in tried.stderr
    assert str(nobody) in tried.stderr
    assert "Traceback" not in tried.stderr + tried.stdout


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    base = free_port_base()
    with socket.create_server(("127.0.0.1", base + 8123)):
        tried = fw("up", "--data-dir", str(tmp_path), "--port-base", str(base), *SERVERS_ONLY)
    assert tried.returncode == PORT_TAKEN
    assert f"Port {base + 8123}, wanted for ClickHouse, is in use by" in tried.stderr
    assert f"pid {os.getpid()}" in tried.stderr
    assert "Traceback" not in tried.stderr + tried.stdout


def test_a_damaged_jar_is_named_and_never_used(tmp_path: Path) -> None:
    repository = tmp_path / "m2"
    shutil.copytree(jars.repository(), repository, copy_function=os.symlink)
    damaged = repository / next(jar for jar in jars.locked() if jar.artifact == "kafka-clients").path
    damaged.unlink()
    damaged.write_bytes(b"not a jar")
    # a proxy that nobody listens on: the machine is offline
    env = {"M2_REPO": str(repository), "HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    diagnosed = fw("doctor", "--data-dir", str(tmp_path / "data"), "--port-base", str(free_port_base()), env=env)
    assert diagnosed.returncode == 1
    assert f"1 damaged ({damaged.name})" in diagnosed.stdout
    tried = fw("up", "--data-dir", str(tmp_path / "data"), "--port-base", str(free_port_base()), *SERVERS_ONLY, env=env)
    assert tried.returncode == DAMAGED_DOWNLOAD
    assert f"{damaged.name} is damaged" in tried.stdout + tried.stderr
    assert "could not be downloaded" in tried.stderr
    assert "Traceback" not in tried.stderr + tried.stdout
    assert damaged.read_bytes() == b"not a jar"
    assert marked(tmp_path / "data") == []


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "secrets.json.incoming").symlink_to("/dev/full")
    tried = fw("up", "--data-dir", str(tmp_path), "--port-base", str(free_port_base()), *SERVERS_ONLY)
    assert tried.returncode == DISK_FULL
    assert f"The disk of {tmp_path} is full" in tried.stderr
    assert "Traceback" not in tried.stderr


def test_logs_of_a_part_and_of_one_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "kafka.log").write_text("one\ntwo\nthree\n")
    assert fw("logs", "kafka", "-n", "2", "--data-dir", str(tmp_path)).stdout == "two\nthree\n"
    unknown = fw("logs", "kavka", "--data-dir", str(tmp_path))
    assert unknown.returncode == 1
    assert "Logs there: kafka" in unknown.stderr
