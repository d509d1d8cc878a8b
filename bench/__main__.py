"""All benchmarks, one after another, as a table: ours, the baseline of the same run, their ratio, the target.

python -m bench                 runs all, prints the table, writes docs/benchmarks.md
python -m bench ingress edge    runs these, prints the table, writes nothing

A benchmark is never a test: nothing fails here because it is slow. One that breaks is said to, and the others still run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import psutil

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
TIMEOUT_SECONDS: Final = 600
# In this order: those that start a platform of their own come first, while the machine is otherwise idle.
BENCHES: Final = (
    "startup",
    "latency",
    "gateway",
    "commands",
    "recovery",
    "facts",
    "faust_read",
    "archive",
    "samples",
    "postgres_projection",
    "rebuild",
    "ingress",
    "policy",
    "edge",
    "edge_drain",
    "edge_answers",
    "edge_idle",
    "sealing",
    "balancer",
    "simulator",
)
OWN_PLATFORM: Final = frozenset({"startup", "latency"})


class Result(msgspec.Struct, frozen=True):
    """One figure, as a benchmark prints it with --json."""

    name: str
    ours: float
    unit: str
    baseline: float | None = None
    baseline_is: str = ""
    target: float | None = None
    target_ratio: float | None = None
    lower_is_better: bool = False

    @property
    def ratio(self) -> str:
        if not self.baseline or not self.ours:
            return ""
        better = self.baseline / self.ours if self.lower_is_better else self.ours / self.baseline
        return f"{better:,.2f}x" if better < 10 else f"{better:,.0f}x"

    @property
    def aim(self) -> str:
        parts = []
        if self.target is not None:
            parts.append(f"{'≤' if self.lower_is_better else '≥'} {number(self.target)} {self.unit}")
        if self.target_ratio is not None:
            parts.append(f"≥ {number(self.target_ratio)}x")
        return ", ".join(parts)

    def row(self) -> tuple[str, str, str, str, str]:
        baseline = "" if self.baseline is None else f"{number(self.baseline)} ({self.baseline_is})"
        return self.name, f"{number(self.ours)} {self.unit}", baseline, self.ratio, self.aim


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


@contextlib.contextmanager
def servers() -> Iterator[Path]:
    """stack.json of servers for the benchmarks that need no platform: those that FW_TEST_STACK names, or our own."""
    if running_already := os.environ.get("FW_TEST_STACK"):
        yield Path(running_already)
        return
    from infra.embedded.stack import running

    with TemporaryDirectory(prefix="fw-bench-") as directory, running(Path(directory)) as stack:
        file = Path(directory) / "stack.json"
        stack.save(file)
        yield file


def run(name: str, stack: Path | None) -> Sequence[Result] | str:
    """The figures of one benchmark, or why there are none."""
    env = {**os.environ, "FW_TEST_STACK": str(stack)} if stack else dict(os.environ)
    command = [sys.executable, "-m", f"bench.{name}", "--json"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {TIMEOUT_SECONDS} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    try:
        return [msgspec.json.decode(line, type=Result) for line in lines] or "printed no figure"
    except msgspec.DecodeError as error:
        return f"printed something else than a figure: {error}"


def machine() -> str:
    """The machine in one sentence."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    memory = psutil.virtual_memory().total / (1 << 30)
    load = psutil.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB of memory, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load average {load:.1f} before the run"
    )


def page(described: str, rows: Sequence[Sequence[str]], broken: Sequence[str]) -> str:
    table = ["| measured | ours | baseline of the same run | ratio | target |", "| --- | --- | --- | --- | --- |"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`. Absolute figures are those of one machine in one hour; the ratio to the baseline, which",
            "was measured in the same run, is what counts. A ratio above 1 is in our favour, also where less is better.",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {described}.",
            "",
            *table,
            *(f"\nNot measured: {each}." for each in broken),
            "",
        ]
    )


def show(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("measured", "ours", "baseline of the same run", "ratio", "target"):
        table.add_column(heading, justify="right" if heading in ("ours", "ratio") else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*BENCHES, []], help=", ".join(BENCHES))
    names: list[str] = parser.parse_args().names
    described, results, broken = machine(), list[Result](), list[str]()

    def measure(name: str, stack: Path | None) -> None:
        print(f"{name} …", file=sys.stderr, flush=True)
        outcome = run(name, stack)
        if isinstance(outcome, str):
            broken.append(f"{name}: {outcome}")
        else:
            results.extend(outcome)

    wanted = [name for name in BENCHES if not names or name in names]
    for name in (n for n in wanted if n in OWN_PLATFORM):
        measure(name, None)
    if rest := [n for n in wanted if n not in OWN_PLATFORM]:
        with servers() as stack:
            for name in rest:
                measure(name, stack)
    rows = [result.row() for result in results]
    show(rows)
    for each in broken:
        print(f"not measured: {each}", file=sys.stderr)
    if not names:
        PAGE.write_text(page(described, rows, broken), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
