"""Which URLs a stream may be pushed to, and what is shown of them."""

from __future__ import annotations

import pytest

from streams.push_urls import problem, shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rtmp://live.example.org/app/live_123_secret", "rtmp://live.example.org/app/…"),
        ("rtmps://live.example.org:443/rtmp/FB-1-0-secret?s_bl=1&a=secret", "rtmps://live.example.org:443/rtmp/…?…"),
        ("rtmp://user:secret@live.example.org/app/inst/secret", "rtmp://live.example.org/app/…"),
        ("rtmp://live.example.org/secret", "rtmp://live.example.org/…"),
        ("srt://ingest.example.org:9000?streamid=secret&passphrase=secret", "srt://ingest.example.org:9000?…"),
        ("srt://[2a00:1450::1]:9000?mode=caller&streamid=secret", "srt://[2a00:1450::1]:9000?…"),
        ("rtmp://8.8.8.8/app/secret", "rtmp://8.8.8.8/app/…"),
    ],
)
def test_a_url_that_may_be_is_shown_without_its_secret(url: str, expected: str) -> None:
    assert problem(url) is None
    assert shown(url) == expected
    assert "secret" not in shown(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://live.example.org/a",
        "file:///etc/passwd",
        "/var/mist/a.mkv",
        "live.example.org/app/key",
        "rtmp:///app/key",
        "rtmp://live.example.org/app/a b",
        "rtmp://live.example.org/app/a\nb",
        "rtmp://live.example.org/app/$stream",
        "rtmp://live.example.org:99999/app/key",
        "rtmp://live.example.org/app/key#x",
        "rtmp://live.example.org/app/" + "k" * 1024,
        "srt://live.example.org:9000?mode=listener",
        "rtmp://live.example.org/app/key?m3u8=/tmp/a.m3u8&split=5",
        "rtmp://lïve.example.org/app/key",
    ],
)
def test_a_url_that_leads_to_no_service_is_refused(url: str) -> None:
    found = problem(url, allows_private=True)
    assert found is not None
    assert found.startswith("url ")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "192.168.0.9", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "localhost",
     "printer.local", "db.internal", "kafka", "0x7f.0.0.1", "2130706433", "127.1", "0.0.0.0"],
)  # fmt: skip
def test_a_url_into_a_private_network_is_refused_unless_the_operator_allows_it(host: str) -> None:
    assert problem(f"rtmp://{host}/app/key") == "url points into a private network: name a host of the public internet"
    assert problem(f"rtmp://{host}/app/key", allows_private=True) is None
