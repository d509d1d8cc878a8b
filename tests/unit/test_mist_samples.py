"""What is said of a node's own figures: often enough for the balancer, each look once, with the bandwidth that it has."""

from __future__ import annotations

from itertools import pairwise

from edge_agent.mist import load, sight
from edge_agent.mist.load import Load
from edge_agent.mist.samples import NODE_MS, WINDOW_MS, Samples
from streams.generated import ClientSamples, NodeSamples
from tests.edge_node import KEY
from tests.mist.direct import Node

LOAD = Load(124, 2 << 30, 8 << 30, 0, 1, 1000, 2000, 3, 1, 0, 134_217_728)


def test_the_node_is_told_of_every_few_seconds_and_its_sessions_by_the_window() -> None:
    node, samples = Node(), Samples()
    assert node.mist.publish(KEY).refusal is None
    node.mist.watch("live+lobby")
    looks = 0
    for elapsed_ms in range(0, WINDOW_MS + 3001, 3000):
        node.advance(3)
        answer = node.mist.call(sight.COMMANDS)
        assert answer is not None
        seen = sight.read(answer, elapsed_ms, node.mist.clock.wall_ms)
        figures = None if elapsed_ms == 9000 else LOAD  # once they cannot be had
        looks += figures is not None
        outcome = node.agent.agent.observe(
            lambda turn, seen=seen, figures=figures: samples.take(turn, seen, figures),  # type: ignore[misc]  # bound at once
            node.mist.clock.wall_ms,
            uuid=f"sample {elapsed_ms}",
        )
        node.agent.take(outcome)
    said = list(node.agent.said())
    of_node = [fact for fact in said if isinstance(fact, NodeSamples)]
    times = [at for fact in of_node for at in fact.sampled_at]
    assert len(times) == len(set(times)) >= looks - 1, "each look once; the last may wait"
    between = [two.sampled_at[-1] - one.sampled_at[-1] for one, two in pairwise(of_node)]
    assert max(step.total_seconds() for step in between) <= NODE_MS / 1000 + 3 + 3, "one look later, and one that failed"
    assert {fact.bandwidth_limit_bytes_per_second for fact in of_node} == {134_217_728}
    assert sum(isinstance(fact, ClientSamples) for fact in said) == 1


def test_figures_are_those_of_the_recording() -> None:
    """CONTRACT 6.7, `/metrics.json`."""
    document: dict[str, object] = {
        "bw": [8_280_776, 2_693_120],
        "bwlimit": 134_217_728,
        "cpu": 72,
        "curr": [3, 2, 2, 0, 7],
        "mem_total": 24_683_520,
        "mem_used": 544_768,
        "shm_total": 12_341_248,
        "shm_used": 3072,
    }
    found = load.read(document)
    assert (found.cpu_permille, found.viewers, found.bandwidth_limit_bytes_per_second) == (72, 3, 134_217_728)
    assert load.read({**document, "bwlimit": 0}).bandwidth_limit_bytes_per_second is None
