"""Settings: everything that is wrong is said at once; `fw up`'s file fills in what is not set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams.settings import Listen, SettingsError, read_settings
from streams.topics import Topics

SECRET = "5e" * 32
COMPLETE = {
    "FW_KAFKA_BOOTSTRAP": "kafka:9092",
    "FW_POSTGRES_URL": "postgresql://u:p@db:5432/fw",
    "FW_CLICKHOUSE_URL": "http://u:p@ch:8123/fw",
    "FW_SECRET_KEY": SECRET,
    "FW_OPERATOR_TOKEN": "operator",
}


def test_a_complete_environment_needs_no_stack(tmp_path: Path) -> None:
    settings = read_settings({**COMPLETE, "FW_DATA_DIR": str(tmp_path), "FW_TOPIC_PREFIX": "eu."})
    assert settings.kafka == "kafka:9092"
    assert settings.topics == Topics("eu.")
    assert settings.secret_key == bytes.fromhex(SECRET)
    assert settings.gateway == Listen("127.0.0.1", 18000)
    assert (settings.metrics_port, settings.replication_factor, settings.otel_endpoint, settings.geoip_database) == (
        0,
        1,
        None,
        None,
    )


def test_what_is_not_set_comes_from_the_running_stack(tmp_path: Path) -> None:
    stack = {
        "kafka": "127.0.0.1:29092",
        "postgres": "postgresql://a:b@127.0.0.1:5432/fw",
        "clickhouse": "http://a:b@127.0.0.1:8123/default",
        "secret_key": SECRET,
        "operator_token": "from the file",
    }
    (tmp_path / "stack.json").write_text(json.dumps(stack))
    settings = read_settings({"FW_DATA_DIR": str(tmp_path), "FW_POSTGRES_URL": "postgresql://mine:x@db/fw"})
    assert settings.kafka == "127.0.0.1:29092"
    assert settings.operator_token == "from the file"
    assert settings.postgres_url == "postgresql://mine:x@db/fw", "the environment goes before the file"


def test_every_problem_is_reported_together(tmp_path: Path) -> None:
    env = {
        "FW_DATA_DIR": str(tmp_path),
        "FW_POSTGRES_URL": "mysql://u:p@db/fw",
        "FW_CLICKHOUSE_URL": "http://u:p@ch:8123/fw",
        "FW_SECRET_KEY": "abc",
        "FW_METRICS_PORT": "many",
        "FW_GATEWAY_LISTEN": "18000",
        "FW_LOG_LEVEL": "loud",
        "FW_GEOIP_DB": str(tmp_path / "no.mmdb"),
        "FW_KAFKA_REPLICATION_FACTOR": "0",
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(env)
    lines = str(caught.value).splitlines()
    for variable in (
        "FW_KAFKA_BOOTSTRAP",
        "FW_POSTGRES_URL",
        "FW_SECRET_KEY",
        "FW_OPERATOR_TOKEN",
        "FW_METRICS_PORT",
        "FW_GATEWAY_LISTEN",
        "FW_LOG_LEVEL",
        "FW_GEOIP_DB",
        "FW_KAFKA_REPLICATION_FACTOR",
    ):
        assert [line for line in lines if line.startswith(variable)], variable
    assert len(lines) == 9
    assert "mysql://u:p@db/fw" not in str(caught.value), "a URL has a password in it"


def test_a_short_secret_is_refused_without_being_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FW_SECRET_KEY must be at least 64 hexadecimal digits") as caught:
        read_settings({**COMPLETE, "FW_DATA_DIR": str(tmp_path), "FW_SECRET_KEY": "c0ffee"})
    assert "c0ffee" not in str(caught.value)


def test_a_damaged_stack_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(SettingsError, match=r"cannot read .*stack\.json"):
        read_settings({"FW_DATA_DIR": str(tmp_path)})


@pytest.mark.parametrize(("text", "listen"), [("0.0.0.0:80", Listen("0.0.0.0", 80)), ("[::1]:80", Listen("[::1]", 80))])
def test_addresses(tmp_path: Path, text: str, listen: Listen) -> None:
    settings = read_settings({**COMPLETE, "FW_DATA_DIR": str(tmp_path), "FW_INGRESS_LISTEN": text})
    assert settings.ingress == listen
    assert str(settings.ingress) == text
