"""Settings of the media server: a flag before a variable before the file, and every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_agent.settings import read_edge_settings
from infra.cli.edge_options import as_variables
from streams.ingress.credentials import issue
from streams.settings import SettingsError

API = "http://127.0.0.1:4242"


def environment(tmp_path: Path, toml: str = "", **more: str) -> Mapping[str, str]:
    (tmp_path / "credential").write_text(issue(bytes(32), "edge-9", None))
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "edge.toml").write_text(toml)
    return {"FW_EDGE_STATE_DIR": str(tmp_path), "FW_EDGE_CONFIG": str(tmp_path / "edge.toml"), **more}


def problems(env: Mapping[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as found:
        read_edge_settings(env)
    return str(found.value).splitlines()


def test_a_file_says_what_variables_could(tmp_path: Path) -> None:
    toml = f"""
listen = "127.0.0.1:9999"
log_level = "warning"
count_private = true
[mist]
api = "{API}"
user = "fw"
password_file = "{tmp_path / "password"}"
"""
    settings = read_edge_settings(environment(tmp_path, toml))
    assert (settings.listen.port, settings.log_level) == (9999, "warning")
    assert settings.mist is not None
    assert (settings.mist.api_url, settings.mist.username, settings.mist.trigger_url) == (API, "fw", "http://127.0.0.1:9999")
    assert settings.mist.counts_private
    assert settings.mist._password() == "secret"


def test_a_variable_goes_before_the_file_and_a_flag_before_both(tmp_path: Path) -> None:
    env = environment(tmp_path, 'listen = "127.0.0.1:1"\n[mist]\napi = "http://a:1"', FW_EDGE_LISTEN="127.0.0.1:2")
    settings = read_edge_settings(env)
    assert settings.listen.port == 2
    assert settings.mist is not None
    assert settings.mist.api_url == "http://a:1"
    flags = as_variables(mist_api=API, listen=None, trigger_url="http://edge:18007")
    assert flags == {"FW_EDGE_MIST_API": API, "FW_EDGE_TRIGGER_URL": "http://edge:18007"}
    settings = read_edge_settings({**env, **flags})
    assert settings.mist is not None
    assert (settings.mist.api_url, settings.mist.trigger_url) == (API, "http://edge:18007")


def test_without_an_api_nothing_is_asked_of_one(tmp_path: Path) -> None:
    assert read_edge_settings(environment(tmp_path)).mist is None


def test_listening_everywhere_means_to_be_reached_at_loopback(tmp_path: Path) -> None:
    settings = read_edge_settings(environment(tmp_path, FW_EDGE_LISTEN="0.0.0.0:18007", FW_EDGE_MIST_API=API))
    assert settings.mist is not None
    assert settings.mist.trigger_url == "http://127.0.0.1:18007"


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    found = problems(
        environment(
            tmp_path,
            'lisen = "127.0.0.1:1"\nodd = [1]\n',
            FW_EDGE_MIST_API="127.0.0.1:4242",
            FW_EDGE_MIST_USER="fw",
            FW_EDGE_TRIGGER_URL="http://" + "h" * 120,
            FW_EDGE_VIEWERS_WHEN_DOWN="ajar",
            FW_EDGE_COUNT_PRIVATE="yes",
            FW_EDGE_MIST_PROMETHEUS="../x",
            FW_LOG_LEVEL="loud",
        )
    )
    wanted = ("odd", "FW_LOG_LEVEL", "FW_EDGE_MIST_API", "cut it off", "go together", "FW_EDGE_COUNT_PRIVATE", "open or closed")
    for word in (*wanted, "FW_EDGE_MIST_PROMETHEUS", "lisen means nothing"):
        assert any(word in line for line in found), word
    assert len(found) == len(wanted) + 2


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    env = environment(tmp_path, "not toml")
    assert any("is no TOML" in line for line in problems(env))
    assert any("cannot read" in line for line in problems({**env, "FW_EDGE_CONFIG": str(tmp_path / "none")}))
    assert any("need FW_EDGE_MIST_API" in line for line in problems({**env, "FW_EDGE_CONFIG": "", "FW_EDGE_MIST_USER": "x"}))
