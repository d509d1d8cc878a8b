"""What an operator installs: the unit, the package, and what the agent tells systemd."""

from __future__ import annotations

import asyncio
import configparser
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edge_agent import identity
from edge_agent.settings import read_edge_settings
from edge_agent.watchdog import Watchdog
from tests.enrolment import an_identity

PACKAGING = Path(__file__).parents[2] / "infra" / "packaging"
UNIT = "frameworks-edge.service"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names as they are written
    parser.read(PACKAGING / UNIT)
    return parser


def test_the_service_comes_back_and_can_do_little() -> None:
    service = unit()["Service"]
    assert (service["Type"], service["Restart"], service["ExecStart"]) == ("notify", "always", "fw edge run")
    assert service["StateDirectory"] == service["User"] == "frameworks-edge"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["NoNewPrivileges"] == "yes"
    assert int(service["WatchdogSec"]) > 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine: nobody checks units")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (PACKAGING / UNIT).read_text().replace("ExecStart=fw ", f"ExecStart={sys.executable} ")
    file = tmp_path / UNIT
    file.write_text(text.replace("User=frameworks-edge", "User=root").replace("Group=frameworks-edge", "Group=root"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if UNIT in line]
    assert said == []


def test_the_example_settings_are_settings(tmp_path: Path) -> None:
    """Every line of it, those that are commented out, too."""
    text = (PACKAGING / "edge.toml").read_text(encoding="utf-8")
    every = re.sub(r"^# (\[?[a-z_]+(?: = .*|\])$)", r"\1", text, flags=re.MULTILINE)
    assert {"listen", "ingress", "geoip_db", "balancer_url", "peer_networks", "mist"} == set(tomllib.loads(every))
    database, password = tmp_path / "countries.mmdb", tmp_path / "password"
    for file in (database, password):
        file.touch()
    for example, file in (("/var/lib/GeoIP/GeoLite2-Country.mmdb", database), ("/etc/frameworks/mist.password", password)):
        every = every.replace(example, str(file))
    (tmp_path / "edge.toml").write_text(every)
    identity.store(tmp_path, an_identity("fra-1"))
    settings = read_edge_settings({"FW_EDGE_CONFIG": str(tmp_path / "edge.toml"), "FW_EDGE_STATE_DIR": str(tmp_path)})
    assert (settings.node_id, settings.ingress, settings.geoip_database) == ("fra-1", "10.0.0.5:18016", database)
    assert settings.mist is not None
    assert (settings.mist.api_url, settings.mist.password_file) == ("http://127.0.0.1:4242", password)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on this machine: it builds the package")
def test_the_debian_package_holds_what_it_should(tmp_path: Path) -> None:
    command = ["sh", str(PACKAGING / "deb.sh"), str(tmp_path), "--without-dependencies"]
    subprocess.run(command, env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}, check=True, capture_output=True)
    [package] = tmp_path.glob("frameworks-edge_*.deb")
    listed = subprocess.run(["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True).stdout
    files = {line.split()[5].removeprefix("."): line.split()[:2] for line in listed.splitlines()}
    assert files["/usr/bin/fw"] == ["-rwxr-xr-x", "root/root"]
    assert files[f"/lib/systemd/system/{UNIT}"][0] == "-rw-r--r--"
    assert files["/etc/frameworks/edge.env"][0] == "-rw-r-----"
    for inside in ("edge_agent/agent.py", "infra/cli/edge_enroll.py", "schemas/avro/ids.lock.json"):
        assert f"/opt/frameworks-edge/lib/{inside}" in files
    fields = subprocess.run(["dpkg-deb", "--field", str(package)], capture_output=True, text=True, check=True).stdout
    assert "Package: frameworks-edge" in fields
    assert f"python3 (>= {sys.version_info[0]}.{sys.version_info[1]})" in fields
    subprocess.run(["dpkg-deb", "--control", str(package), str(tmp_path / "control")], check=True)
    for script in ("postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", str(tmp_path / "control" / script)], check=True)
    assert (tmp_path / "control" / "conffiles").read_text().split() == ["/etc/frameworks/edge.toml", "/etc/frameworks/edge.env"]


async def test_the_agent_tells_systemd_that_it_is_there_and_alive(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        watchdog = Watchdog({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "150000"})
        running = asyncio.create_task(watchdog.run(lambda: "fine"))

        async def heard() -> str:
            return (await asyncio.wait_for(asyncio.get_running_loop().sock_recv(systemd, 1000), 180)).decode()

        told = [await heard() for _ in range(3)]
        running.cancel()
        told.append(await heard())
    assert told == ["READY=1\nSTATUS=fine", "WATCHDOG=1\nSTATUS=fine", "WATCHDOG=1\nSTATUS=fine", "STOPPING=1"]


async def test_without_systemd_nothing_is_told() -> None:
    await Watchdog({}).run(lambda: "fine")
