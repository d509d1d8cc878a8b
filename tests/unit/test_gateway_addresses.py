"""Whose request it is, and how often an address may ask."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.addresses import REMEMBERED, Buckets, client_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),  # the asker wrote the first part
        ("10.0.0.1", "203.0.113.9, 10.2.3.4", "203.0.113.9"),  # two proxies of ours
        ("fd00::1", "2001:db8::5", "2001:db8::5"),
        ("10.0.0.1", "10.0.0.7", "10.0.0.7"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("203.0.113.1", "6.6.6.6", "203.0.113.1"),  # none of our proxies: it may write what it likes
        ("", "6.6.6.6", ""),
    ],
)
def test_a_forwarded_address_is_believed_from_our_proxies_alone(peer: str, forwarded: str | None, found: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == found
    assert client_address(peer, forwarded, ()) == peer


def test_an_address_has_a_burst_and_a_rate() -> None:
    now = [0.0]
    buckets = Buckets(per_second=2, burst=3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b")
    now[0] = 0.4
    assert not buckets.take("a")
    now[0] = 0.5
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    now[0] = 1000.0
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    buckets = Buckets(per_second=1, burst=1, clock=lambda: 0.0)
    for n in range(REMEMBERED + 10):
        buckets.take(str(n))
    assert len(buckets._left) == REMEMBERED
    assert not buckets.take(str(REMEMBERED)), "the newest are"
