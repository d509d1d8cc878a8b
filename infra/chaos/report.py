"""What a run comes to, for people and for machines."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from infra.chaos.check_subscriptions import gaps
from infra.chaos.findings import Finding, Wrong
from infra.chaos.ledger import Ledger, State
from infra.chaos.log import Entry

if TYPE_CHECKING:
    from rich.console import Console

    from infra.chaos.commands import Client
    from infra.chaos.triggers import MistServer
    from infra.chaos.watchers import Watcher

SHOWN: Final = 40  # findings


@dataclass(frozen=True, slots=True)
class Recovered:
    """Of one part, over its kills."""

    kills: int
    ready_p50_seconds: float
    ready_max_seconds: float
    caught_up_p50_seconds: float
    caught_up_max_seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    seed: int
    load_seconds: float
    faults: Mapping[str, int]
    operations: Mapping[str, Mapping[str, int]]  # by kind and state
    repeated_answers: int
    retries: int
    records: int
    resent_facts: int  # that stand on the log more than once, under one id
    messages: int
    reconnects: int
    gap_markers: Mapping[str, int]
    wrong: Mapping[str, int]
    findings: Sequence[Finding]
    recovery: Mapping[str, Recovered]

    @property
    def is_good(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, object]:
        return {"good": self.is_good, **asdict(self), "findings": [str(finding) for finding in self.findings]}


def report(
    seed: int,
    ledger: Ledger,
    log: Sequence[Entry],
    findings: Sequence[Finding],
    load_seconds: float,
    clients: Sequence[Client],
    mist: MistServer,
    watchers: Sequence[Watcher],
) -> Report:
    operations, messages, faults = ledger.operations(), ledger.messages(), ledger.faults()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for operation in operations:
        counts[operation.kind][operation.state] += 1
    facts = Counter(entry.event_id for entry in log if entry.topic != "decisions")
    kills = defaultdict[str, list[tuple[float, float]]](list)
    for fault in faults:
        if fault.ready_seconds is not None:
            kills[fault.part].append((fault.ready_seconds, fault.caught_up_seconds or fault.ready_seconds))
    return Report(
        seed=seed,
        load_seconds=round(load_seconds, 1),
        faults=dict(Counter(fault.kind for fault in faults)),
        operations={kind: dict(states) for kind, states in counts.items()},
        repeated_answers=sum(len(o.answers) - 1 for o in operations if o.state is State.ANSWERED),
        retries=sum(client.retries for client in clients) + mist.retries,
        records=len(log),
        resent_facts=sum(times > 1 for times in facts.values()),
        messages=len(messages),
        reconnects=sum(watcher.connections - 1 for watcher in watchers),
        gap_markers=dict(gaps(messages)),
        wrong={wrong: sum(finding.wrong is wrong for finding in findings) for wrong in Wrong},
        findings=findings,
        recovery={part: _recovered(times) for part, times in sorted(kills.items())},
    )


def _recovered(times: Sequence[tuple[float, float]]) -> Recovered:
    ready, caught_up = [t[0] for t in times], [t[1] for t in times]
    figures = (median(ready), max(ready), median(caught_up), max(caught_up))
    return Recovered(len(times), *(round(figure, 2) for figure in figures))


def show(result: Report, console: Console, rerun: str) -> None:
    from rich.table import Table

    sent = ", ".join(f"{sum(states.values())} {kind}s ({_states(states)})" for kind, states in result.operations.items())
    faults = ", ".join(f"{times} × {kind}" for kind, times in result.faults.items()) or "none"
    console.print(f"Faults in {result.load_seconds:.0f} s: {faults}")
    console.print(f"Operations: {sent}; {result.retries} retries, {result.repeated_answers} repeated on purpose")
    console.print(f"Log: {result.records} records, {result.resent_facts} facts that the edge sent again")
    told = f"{result.messages} messages, {result.reconnects} reconnections, gap markers: {dict(result.gap_markers) or 'none'}"
    console.print(f"Subscriptions: {told}")
    table = Table("killed", "times", "ready p50", "max", "caught up p50", "max", box=None)
    for part, r in result.recovery.items():
        figures = (r.ready_p50_seconds, r.ready_max_seconds, r.caught_up_p50_seconds, r.caught_up_max_seconds)
        table.add_row(part, str(r.kills), *(f"{figure:.2f} s" for figure in figures))
    if result.recovery:
        console.print(table)
    console.print("  ".join(f"{wrong}: {count}" for wrong, count in result.wrong.items()), style="bold")
    for finding in result.findings[:SHOWN]:
        console.print(str(finding), markup=False, soft_wrap=True)
    if len(result.findings) > SHOWN:
        console.print(f"… and {len(result.findings) - SHOWN} more: --json names them all")
    if result.findings:
        console.print(f"Again: {rerun}", markup=False, soft_wrap=True)


def _states(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items())
