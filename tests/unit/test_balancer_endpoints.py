"""URLs of nodes, sums of what-ifs, and decisions as facts."""

from __future__ import annotations

import pytest

from gateway.balancer.endpoints import ingest_url, playback_url
from gateway.balancer.routes import fact
from infra.cli.balancer import summary
from projections.routes import Moved
from streams.balancing.geography import cell_of
from streams.balancing.score import Ceilings, Exclusion, Node, Purpose, Question, Weights, choose
from streams.ids import OPERATOR_TENANT


@pytest.mark.parametrize(
    ("protocol", "url"),
    [
        ("HLS", "http://h:8080/view/hls/live+cam1/index.m3u8"),
        ("hls", "http://h:8080/view/hls/live+cam1/index.m3u8"),
        ("CMAF", "http://h:8080/view/cmaf/live+cam1/"),
        ("EBML", "http://h:8080/view/live+cam1.webm"),
        ("RTMP", "rtmp://h:1935/play/live+cam1"),
        ("DTSC", "dtsc://h:4200/live+cam1"),
        ("NOPE", None),
    ],
)
def test_a_stream_is_watched_where_the_media_server_has_it(protocol: str, url: str | None) -> None:
    assert playback_url("http://h:8080/view/", protocol, "live+cam1") == url


def test_names_cannot_leave_their_place_in_a_url() -> None:
    url = playback_url("http://h", "HLS", "a/../b?c#d\r\nX: y")
    assert url == "http://h/hls/a%2F..%2Fb%3Fc%23d%0D%0AX%3A%20y/index.m3u8"
    assert playback_url("http://[2001:db8::1]:80", "RTMP", "x") == "rtmp://[2001:db8::1]:1935/play/x"
    assert ingest_url("https://h", "WHIP", "sk_a_b") == "https://h/webrtc/sk_a_b"
    assert ingest_url("https://h", "HLS", "x") is None


def test_a_fact_tells_what_was_decided_from_and_not_who_asked() -> None:
    nodes = [
        Node("a", None, sampled_at_ms=0, cell=cell_of(52, 5)),
        Node("full", None, sampled_at_ms=0, cpu_ppm=999_999),
        Node("private", frozenset(), sampled_at_ms=0),
    ]
    cell = cell_of(52.37, 4.9)
    choice = choose(nodes, Question(OPERATOR_TENANT, cell=cell), Weights(), Ceilings(), 0)
    said = fact(Purpose.VIEWER, "HLS", "NL", cell, Weights(), choice)
    assert (said.node_id, said.node_ids, said.country, said.candidates_total) == ("a", ("a",), "NL", 1)
    assert said.h3_cell not in (None, cell)
    assert (said.excluded_node_ids, said.exclusion_reasons) == (("full",), (str(Exclusion.CPU_FULL),)), "no word of foreign nodes"
    assert said.scores == tuple(c.score for c in choice.candidates)


def test_what_moves_is_summed_by_node_and_country() -> None:
    moved = [Moved("NL", "a", "a", 5, 0), Moved("NL", "a", "b", 3, 1), Moved("", "b", "", 2, 0)]
    assert summary(moved) == {
        "decisions": 10,
        "elsewhere": 5,
        "truncated": 1,
        "nodes": [
            {"node": None, "went": 0, "would": 2, "lost": 0, "gained": 2},
            {"node": "a", "went": 8, "would": 5, "lost": 3, "gained": 0},
            {"node": "b", "went": 2, "would": 3, "lost": 2, "gained": 3},
        ],
        "countries": [
            {"country": None, "decisions": 2, "elsewhere": 2},
            {"country": "NL", "decisions": 8, "elsewhere": 3},
        ],
    }
