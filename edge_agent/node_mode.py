"""The mode of the node: what follows from it for what runs, and what is told of it.

Invariant: draining ends nothing; maintenance ends what runs after a grace, and is done when nothing runs any more. That new
publishers and viewers are refused meanwhile is decided where they ask (`admission.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.node_state import ModeChange, NodeState
from edge_agent.policy import LIVE, PolicyTable
from streams.generated import EdgeActionStatus, NodeMode, NodePolicy

NODE: Final = "node"
ASK_AGAIN_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class ModeStep:
    why: str
    change: ModeChange
    report: tuple[EdgeActionStatus, str | None] | None = None
    commands: tuple[Mapping[str, object], ...] = ()


def plan_mode(
    node: NodePolicy | None, known: ModeChange | None, running: Sequence[str], now_ms: int, grace_ms: int
) -> ModeStep | None:
    """`running`: streams that are published or watched here, as the media server calls them."""
    if node is None or node.mode_request_id is None:
        return None
    if known is None or known.request_id != node.mode_request_id:
        return _entered(ModeChange(node.mode_request_id, node.mode, now_ms), running, grace_ms)
    if known.is_done or known.mode is not NodeMode.MAINTENANCE:
        return None
    if not running:
        detail = f"nothing has run since {(now_ms - known.since_ms) // 1000} s after it was asked for"
        return ModeStep("maintenance: nothing runs", replace(known, is_done=True), (EdgeActionStatus.DONE, detail))
    if now_ms < known.since_ms + grace_ms or (known.asked_ms is not None and now_ms < known.asked_ms + ASK_AGAIN_MS):
        return None
    commands = tuple({"nuke_stream": stream, "stop_sessions": stream} for stream in running)
    return ModeStep(f"maintenance: ends {len(running)} streams", replace(known, asked_ms=now_ms), commands=commands)


def _entered(change: ModeChange, running: Sequence[str], grace_ms: int) -> ModeStep:
    here = f"{len(running)} streams are published or watched here"
    if change.mode is NodeMode.MAINTENANCE and running:
        detail = f"{here}; they are ended in {grace_ms // 1000} s"
        return ModeStep(f"maintenance: {detail}", change, (EdgeActionStatus.ACKNOWLEDGED, detail))
    stays = f"{here}, and stay" if change.mode is NodeMode.DRAINING else None
    return ModeStep(f"the node is {change.mode.value}", replace(change, is_done=True), (EdgeActionStatus.DONE, stays))


def running_streams(state: NodeState, policy: PolicyTable) -> Sequence[str]:
    """Streams that are published or watched here, as the media server calls them."""
    names = {f"{LIVE}{i.internal_name}": None for i in state.ingests if i.concluded_ms is None and not i.is_lost}
    for viewing in state.viewings:
        stream = policy.stream(viewing.subject.aggregate_id) if viewing.is_open else None
        if stream is not None:
            names[f"{LIVE}{stream.internal_name}"] = None
    return tuple(names)
