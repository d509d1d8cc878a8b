"""Countries from a MaxMind-format file; whoever has none, knows none."""

from __future__ import annotations

import struct
from pathlib import Path

import maxminddb
import pytest

from edge_agent.geo import countries
from streams.generated import ViewerJoined
from streams.geoip import NOWHERE, Place, places
from tests.edge_node import SESSION, AgentUnderTest


def text(value: str) -> bytes:
    return bytes([2 << 5 | len(value)]) + value.encode()


def small(value: int) -> bytes:
    return bytes([5 << 5 | 2]) + value.to_bytes(2, "big")


def number(value: int) -> bytes:
    return bytes([6 << 5 | 4]) + value.to_bytes(4, "big")


def large(value: int) -> bytes:
    return bytes([0 << 5 | 8, 9 - 7]) + value.to_bytes(8, "big")


def double(value: float) -> bytes:
    return bytes([3 << 5 | 8]) + struct.pack(">d", value)


def mapping(fields: dict[str, bytes]) -> bytes:
    return bytes([7 << 5 | len(fields)]) + b"".join(text(name) + value for name, value in fields.items())


def database(file: Path) -> Path:
    """One node: 0.0.0.0/1 is in the Netherlands, the rest is nowhere. https://maxmind.github.io/MaxMind-DB/"""
    tree = (1 + 16).to_bytes(3, "big") + (1).to_bytes(3, "big")
    location = mapping({"latitude": double(52.3), "longitude": double(4.9)})
    data = mapping({"country": mapping({"iso_code": text("NL")}), "location": location})
    meta = {
        "node_count": number(1),
        "record_size": small(24),
        "ip_version": small(4),
        "database_type": text("Country"),
        "binary_format_major_version": small(2),
        "binary_format_minor_version": small(0),
        "build_epoch": large(1),
        "languages": bytes([0 << 5 | 0, 11 - 7]),
        "description": mapping({}),
    }
    file.write_bytes(tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + mapping(meta))
    return file


def test_countries(tmp_path: Path) -> None:
    country_of = countries(database(tmp_path / "country.mmdb"))
    assert country_of("81.2.69.160") == "NL"
    assert [country_of(address) for address in ("203.0.113.9", "::1", "", "no address", "81.2.69.160\n")] == [None] * 5
    assert countries(None)("81.2.69.160") is None


def test_places(tmp_path: Path) -> None:
    place_of = places(database(tmp_path / "city.mmdb"))
    assert place_of("81.2.69.160") == Place("NL", 52.3, 4.9)
    assert [place_of(address) for address in ("203.0.113.9", "::1", "", "no address")] == [NOWHERE] * 4
    assert places(None)("81.2.69.160") == NOWHERE


def test_a_damaged_file_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "broken.mmdb").write_bytes(b"no database")
    with pytest.raises(maxminddb.InvalidDatabaseError):
        countries(tmp_path / "broken.mmdb")


def test_the_country_is_in_the_fact_and_the_address_is_not(tmp_path: Path) -> None:
    agent = AgentUnderTest()
    agent.agent._country_of = countries(database(tmp_path / "country.mmdb"))
    agent.send("USER_NEW", f"live+lobby\n81.2.69.160\ntoken\nHLS\nhttp://h/\n{SESSION}\nfalse", pid=7)
    agent.send("USER_END", f"token\nlive+lobby\nHLS\n81.2.69.160\n14\n1\n2\n\n14\n14\n14\n{SESSION}", pid=7)
    joined, left = agent.said()
    assert isinstance(joined, ViewerJoined)
    assert joined.country == getattr(left, "country", None) == "NL"
    assert "81.2.69.160" not in repr(agent.facts)
