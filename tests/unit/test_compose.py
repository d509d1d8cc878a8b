"""compose.yml says what `fw up` does: it follows the compose specification, the port map, and our settings.

Containers cannot be started where these tests run, so everything that can be known without starting one is checked.
"""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import crossplane
import jsonschema
import pytest
import yaml

from infra.cli.app import COMMANDS
from infra.supervisor.layout import Ports
from projections import PROJECTIONS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "infra" / "compose"
DONE_ONCE = {"topics", "migrations", "node-authority", "node-credential"}
OURS = DONE_ONCE | {"commands", "reactors", "archive", "policy", "ingress", "gateway", "edge"}

# The port map of the founding documents, as far as we serve it: service -> ports on the host.
PORT_MAP = {
    "gateway": {18000, 18008},
    "ingress": {18006, 18016, 18026},
    "edge": {18007},
    "kafka": {29092},
    "postgres": {5432},
    "clickhouse": {8123, 9000},
    "mistserver": {4242, 1935, 8080},
    "nginx": {18090},
}
BESIDE_THE_MAP = {"mistserver": {8889}}  # SRT: MistServer's own default
LOOPBACK_ONLY = {4242, 5432, 8123, 9000, 29092, 18000, 18008, 18006, 18007, 18026}


@cache
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yml").read_text(encoding="utf-8"))
    return loaded


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    return {name: s for name, s in services().items() if s.get("image", "").startswith("frameworks:")}


def published(service: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """Port on the host: (address, port in the container)."""
    out = {}
    for text in service.get("ports", ()):
        address, host, inside = (["0.0.0.0", *text.split("/")[0].split(":")])[-3:]
        out[int(host)] = (address, int(inside))
    return out


def test_follows_the_compose_specification() -> None:
    spec = importlib.util.find_spec("check_jsonschema")  # for the schema in it; the package itself is not needed
    assert spec is not None
    assert spec.origin is not None
    bundled = Path(spec.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(bundled.read_text(encoding="utf-8"))
    jsonschema.validators.validator_for(schema)(schema).validate(compose())


def test_every_port_is_the_one_of_the_map() -> None:
    for name, service in services().items():
        ports = published(service)
        assert set(ports) == PORT_MAP.get(name, set()) | BESIDE_THE_MAP.get(name, set()), name
        assert all(host == inside for host, (_, inside) in ports.items()), name


def test_only_media_and_the_front_door_are_open_to_the_network() -> None:
    for service in services().values():
        for port, (address, _) in published(service).items():
            assert (address == "127.0.0.1") == (port in LOOPBACK_ONLY), port


def test_runs_the_processes_of_fw_up() -> None:
    workers = {f"projections-{name.replace('_', '-')}": ["python", "-m", "projections", name] for name in PROJECTIONS}
    assert set(ours()) == OURS | set(workers)
    for name, command in workers.items():
        assert services()[name]["command"] == command
    ports = Ports(0)
    assert services()["commands"]["environment"]["FW_METRICS_PORT"] == str(ports.commands_metrics)
    assert services()["reactors"]["environment"]["FW_METRICS_PORT"] == str(ports.reactors_metrics)
    assert services()["archive"]["environment"]["FW_METRICS_PORT"] == str(ports.archive_metrics)
    assert services()["policy"]["environment"]["FW_METRICS_PORT"] == str(ports.policy_metrics)
    assert services()["ingress"]["environment"]["FW_METRICS_PORT"] == str(ports.ingress_metrics)
    for n, name in enumerate(PROJECTIONS):
        service = services()[f"projections-{name.replace('_', '-')}"]
        assert service["environment"]["FW_METRICS_PORT"] == str(ports.projection_metrics(n))


def test_every_command_exists() -> None:
    for name, service in ours().items():
        match service["command"]:
            case ["fw", command, *_]:
                assert command in COMMANDS, name
            case ["python", "-m", module, *_]:
                assert importlib.util.find_spec(module), name
            case other:
                raise AssertionError(f"{name}: {other}")


def settings_read_anywhere() -> set[str]:
    """Every FW_ variable that a process reads."""
    files = [p for folder in ("streams", "edge_agent", "infra") for p in (ROOT / folder).rglob("*.py")]
    return {name for path in files for name in re.findall(r"\bFW_[A-Z_]+\b", path.read_text(encoding="utf-8"))}


def test_every_variable_is_a_setting() -> None:
    known = settings_read_anywhere()
    for name, service in ours().items():
        unknown = {v for v in service.get("environment", {}) if v.startswith("FW_")} - known
        assert not unknown, name


def test_every_variable_that_must_be_given_is_in_the_example() -> None:
    text = (ROOT / "compose.yml").read_text(encoding="utf-8")
    needed = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    example = {line.split("=")[0] for line in (COMPOSE / "env.example").read_text(encoding="utf-8").splitlines() if "=" in line}
    assert needed == example


def test_ours_run_without_root_and_without_writing() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER 10001", dockerfile, re.MULTILINE)
    for name, service in ours().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
    copied = set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE))
    assert copied == {"schemas", "streams", "commands", "projections", "gateway", "edge_agent", "infra"}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert all(f"!{folder}\n" in ignored for folder in copied)


def test_the_edge_knows_no_secret_but_its_credential() -> None:
    environment = set(services()["edge"]["environment"])
    assert not environment & {"FW_SECRET_KEY", "FW_OPERATOR_TOKEN", "FW_POSTGRES_URL", "FW_CLICKHOUSE_URL", "FW_KAFKA_BOOTSTRAP"}


def test_what_is_waited_for_exists_and_can_be_known() -> None:
    for name, service in services().items():
        for other, wanted in service.get("depends_on", {}).items():
            assert other in services(), name
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in services()[other], f"{name} waits for the health of {other}"
            if wanted["condition"] == "service_completed_successfully":
                assert services()[other]["restart"] == "no", f"{name} waits for the end of {other}"


def test_what_is_mounted_exists() -> None:
    for service in services().values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith("./") else source in compose()["volumes"]


@cache
def nginx() -> list[dict[str, Any]]:
    """nginx's own grammar: every directive known, in its place, with as many arguments as it takes."""
    path = str(COMPOSE / "nginx.conf")
    config: list[dict[str, Any]] = crossplane.parse(path, single=True)["config"][0]["parsed"]
    # The lines of a map are values, not directives; the parser's strict mode does not know.
    values = {d["line"] for found in directives(config, "map") for d in found["block"]}
    strict = crossplane.parse(path, strict=True, single=True, check_ctx=True, check_args=True)
    assert not [e["error"] for c in strict["config"] for e in c["errors"] if e["line"] not in values]
    return config


def directives(block: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    found = [d for d in block if d["directive"] == name]
    for directive in block:
        found += directives(directive.get("block", []), name)
    return found


def test_nginx_understands_its_configuration() -> None:
    assert [d["args"] for d in directives(nginx(), "listen")] == [["18090"]]
    (server,) = directives(directives(nginx(), "upstream"), "server")
    host, port = server["args"][0].split(":")
    assert f"0.0.0.0:{port}" == services()[host]["environment"]["FW_GATEWAY_LISTEN"]


def test_the_front_door_carries_graphql_over_both_protocols() -> None:
    locations = {" ".join(d["args"]): d["block"] for d in directives(nginx(), "location")}
    assert {"= /api/gateway", "= /graphql", "/"} <= set(locations)
    assert directives(locations["= /api/gateway"], "proxy_pass")[0]["args"] == ["http://gateway"]
    headers = {d["args"][0]: d["args"][1] for d in directives(nginx(), "proxy_set_header")}
    assert headers["Upgrade"] == "$http_upgrade"
    assert headers["Connection"] == "$connection_upgrade"
    assert directives(locations["= /metrics"], "return")[0]["args"] == ["404"]


def mist() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((COMPOSE / "mistserver.json").read_text(encoding="utf-8"))
    return loaded


def test_mistserver_listens_where_the_map_says() -> None:
    config = mist()["config"]
    listening = {p["port"] for p in config["protocols"] if "port" in p} | {config["controller"]["port"]}
    assert listening == set(published(services()["mistserver"]))


def test_mistserver_asks_the_agent() -> None:
    edge = services()["edge"]
    port = edge["environment"]["FW_EDGE_LISTEN"].rpartition(":")[2]
    assert mist()["config"]["serverid"] == edge["environment"]["FW_EDGE_NODE_ID"]
    for name, handlers in mist()["config"]["triggers"].items():
        (handler,) = handlers
        assert handler["handler"] == f"http://edge:{port}/trigger/{name}"
        assert len(handler["handler"]) <= 127, "MistServer cuts longer addresses off"
    # A publisher may not get in, nor a viewer, before the agent has said so.
    asked = {name for name, (handler,) in mist()["config"]["triggers"].items() if handler["sync"]}
    assert {"RTMP_PUSH_REWRITE", "PUSH_REWRITE", "STREAM_PUSH", "USER_NEW"} <= asked


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/readyz", "no url"])
def test_the_probe_fails_where_nobody_answers(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    from infra.compose.probe import main

    assert main(url) == 1
    assert url in capsys.readouterr().err
