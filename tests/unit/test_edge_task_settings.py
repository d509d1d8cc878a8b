"""What an operator may say about tasks of a node, and what is refused."""

from __future__ import annotations

import pytest

from edge_agent.task_settings import GRACE_SECONDS, TaskSettings, read_task_settings
from streams.settings import Reader


def read(**variables: str) -> tuple[TaskSettings, list[str]]:
    reader = Reader(variables, {})
    return read_task_settings(reader), reader.problems


def test_what_is_not_said_is_closed() -> None:
    assert read() == (TaskSettings(None, allows_private_pushes=False, maintenance_grace_seconds=GRACE_SECONDS), [])


def test_everything_may_be_said() -> None:
    found, problems = read(
        FW_EDGE_RECORDINGS_DIR="/var/rec/", FW_EDGE_PRIVATE_PUSH_TARGETS="1", FW_EDGE_MAINTENANCE_GRACE_SECONDS="0"
    )
    assert (found, problems) == (TaskSettings("/var/rec", allows_private_pushes=True, maintenance_grace_seconds=0), [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FW_EDGE_RECORDINGS_DIR", "rec"),
        ("FW_EDGE_RECORDINGS_DIR", "/rec/$stream"),  # a variable of the media server's
        ("FW_EDGE_RECORDINGS_DIR", "/rec?split=5"),  # parameters of the media server's
        ("FW_EDGE_PRIVATE_PUSH_TARGETS", "maybe"),
        ("FW_EDGE_MAINTENANCE_GRACE_SECONDS", "-1"),
    ],
)
def test_what_cannot_be_is_a_problem(name: str, value: str) -> None:
    _, problems = read(**{name: value})
    assert [problem.partition(" ")[0] for problem in problems] == [name]
