"""What the archive worker's metrics mean for a person."""

from __future__ import annotations

from collections.abc import Mapping

ALARM_SECONDS = 5 * 24 * 3600
"""So long before the log deletes what is not archived."""


def archive_health(processes: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str | None]]:
    """Findings of `fw doctor` about a running stack."""
    import httpx

    url = processes.get("archive", {}).get("metrics")
    if not isinstance(url, str):
        return []  # left out by --no-archive: it runs elsewhere
    try:
        return [("archive", sentence(httpx.get(url, timeout=2).text))]
    except httpx.HTTPError:
        return []  # that the part does not answer is said already


def sentence(metrics: str) -> str | None:
    """What is wrong; None: nothing."""
    values: dict[str, list[float]] = {}
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("fw_archive_"):
            values.setdefault(name.partition("{")[0], []).append(float(value))
    if lost := sum(values.get("fw_archive_lost_records", ())):
        return (
            f"The log deleted {lost:,.0f} offsets before they were archived. `fw logs archive` says which; "
            "`fw archive flush --accept-gap` goes on behind them."
        )
    if (left := min(values.get("fw_archive_seconds_to_loss", (ALARM_SECONDS,)))) < ALARM_SECONDS:
        hours = max(left, 0) / 3600
        return f"In {hours:.1f} h the log deletes records that are not archived: `fw logs archive` says what holds it up."
    if any(values.get("fw_archive_problems", ())):
        return "Some of the log cannot be archived now: `fw logs archive` says why."
    return None
