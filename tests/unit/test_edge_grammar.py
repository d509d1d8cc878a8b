"""Every trigger: a valid body has exactly one understanding, a broken one none, and no secret of either is seen again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.catalogue import CATALOGUE, UNUSABLE_STREAM
from streams.codec import encode
from streams.generated import IngestRejected, TriggerInvalid
from tests.edge_bodies import GRAMMARS, Sample
from tests.edge_node import AgentUnderTest

SAFE_ANSWERS = {
    "RTMP_PUSH_REWRITE": "",
    "PUSH_REWRITE": "",
    "STREAM_PUSH": "false",
    "USER_NEW": "false",
    "PLAY_REWRITE": UNUSABLE_STREAM,
    "PUSH_OUT_START": "",
    "STREAM_SOURCE": "",
    "STREAM_PROCESS": "",
    "DEFAULT_STREAM": "",
}
NAMES = sorted(GRAMMARS)
NO_NUMBERS = st.sampled_from(["", "-", "1.5", "x", " 1", "1 ", "0x1", str((1 << 63) * 2), "９", "1\r"])


def named() -> st.SearchStrategy[tuple[str, Sample]]:
    return st.sampled_from(NAMES).flatmap(lambda name: GRAMMARS[name].valid.map(lambda sample: (name, sample)))


def test_every_trigger_has_a_grammar() -> None:
    assert set(GRAMMARS) == set(CATALOGUE)


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_body_has_one_understanding(name: str) -> None:
    @given(GRAMMARS[name].valid)
    def check(sample: Sample) -> None:
        assert GRAMMARS[name].parse(sample.body) == sample.understood
        agent = AgentUnderTest()
        is_known = name == "USER_END" and b"\n" in sample.body  # a shifted end is sure only of a session that is known
        outcome = agent.outcome(name, sample.body)
        assert not outcome.is_invalid or is_known

    check()


def assert_safe(agent: AgentUnderTest, name: str, body: bytes) -> bool:
    """Whether the body was understood; where it was not, nothing came of it but the record that it came."""
    outcome = agent.outcome(name, body)
    if not outcome.is_invalid:
        return True
    assert outcome.answer == SAFE_ANSWERS.get(name, "true")
    assert len(agent.said(TriggerInvalid)) == 1
    assert len(agent.said()) == 1 + len(agent.said(IngestRejected))
    state = agent.agent.state
    assert not [*state.viewings, *state.ingests, *state.admissions, *state.pushes, *state.push_results, *state.broadcasts]
    return False


@given(named(), st.data())
def test_a_line_more_or_less_is_never_half_understood(named_sample: tuple[str, Sample], data: st.DataObject) -> None:
    """As when somebody types a newline into a field, or a proxy eats one."""
    name, sample = named_sample
    lines = sample.body.split(b"\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    part = data.draw(st.integers(0, len(lines[at])))
    added = [*lines[:at], lines[at][:part], lines[at][part:], *lines[at + 1 :]]
    body = b"\n".join(data.draw(st.sampled_from([added, [*lines[:at], *lines[at + 1 :]], [*lines, *lines]])))
    agent = AgentUnderTest()
    if assert_safe(agent, name, body) and body != sample.body:
        count = body.count(b"\n") + 1
        assert count in GRAMMARS[name].more_lines or count == len(lines), body


@given(named(), st.data())
def test_no_number_is_guessed(named_sample: tuple[str, Sample], data: st.DataObject) -> None:
    name, sample = named_sample
    numbers = GRAMMARS[name].numbers
    if not numbers:
        return
    lines = sample.body.split(b"\n")
    lines[data.draw(st.sampled_from(numbers))] = data.draw(NO_NUMBERS).encode()
    assert not assert_safe(AgentUnderTest(), name, b"\n".join(lines))


@given(named(), st.data())
def test_noise_breaks_nothing(named_sample: tuple[str, Sample], data: st.DataObject) -> None:
    name, sample = named_sample
    body = bytearray(sample.body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert_safe(AgentUnderTest(), name, bytes(body))


@given(st.lists(named(), min_size=1, max_size=6), st.booleans())
def test_no_secret_is_seen_again(said: list[tuple[str, Sample]], is_broken: bool) -> None:
    """Keys, tokens, addresses, passwords: neither in a fact nor in what the journal keeps nor in a line of the log."""
    agent = AgentUnderTest()
    remarks: list[str] = []
    for name, sample in said:
        outcome = agent.outcome(name, sample.body + b"\nx\ny\nz" * is_broken)
        remarks += outcome.remarks
    seen = [encode(fact, meta) for fact, meta in agent.facts]
    seen += [value for (shelf, _), value in agent.rows.items() if shelf != "envelopes"]
    seen += [remark.encode() for remark in remarks]
    for _, sample in said:
        for secret in sample.secrets:
            assert not [value for value in seen if secret.encode() in value], secret
