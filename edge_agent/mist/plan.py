"""What has to be done to a MistServer so that it works with us: `plan(desired, observed)`, pure, and in an order that is safe.

Invariants:
* What is not ours stays: other handlers of the same trigger, other streams, members of the configuration that we have no wish
  about, fields that an operator added to our own stream.
* Ours is the last handler of its trigger: of several blocking ones the last answer counts (CONTRACT section 2).
* Nobody can publish to our streams before the triggers that admit publishers are set.
* Carrying out a step and looking again makes that step disappear; a plan that was carried out is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from edge_agent.mist import triggers
from edge_agent.mist.config import Config, Handler

MAX_HANDLER_BYTES: Final = 127  # what is longer is cut off without a word (CONTRACT section 2)
COUNT_ALL: Final = ("192.0.2.0/24",)  # matches nobody; an empty list would be refilled with the private networks
OUR_FILTER: Final = ("live", "live+")  # stock matches what stands before the plus, the fork's matcher wants it
SESSION_MODES: Final[Mapping[str, int]] = {
    "sessionViewerMode": 14,  # stream, address and token make a session
    "sessionInputMode": 15,
    "sessionOutputMode": 15,
    "sessionUnspecifiedMode": 0,
    "sessionStreamInfoMode": 1,
    "tknMode": 15,
}


@dataclass(frozen=True, slots=True)
class Desired:
    """What the operator wants. `trigger_url`: where MistServer reaches us, without a path."""

    trigger_url: str
    wildcard: str = "live"
    counts_private: bool = False  # whether viewers of private networks are counted as any other
    prometheus: str = "metrics"  # path of the figures, where the server has none yet
    viewers_when_down: str = "open"
    former_urls: tuple[str, ...] = ()  # where we were reached before: handlers there are ours, too


@dataclass(frozen=True, slots=True)
class Observed:
    """What the server reports."""

    config: Config
    streams: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    exceptions: tuple[str, ...] = ()
    is_fork: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One change. `commands` is what is sent; `name` is what it is about, the same whenever it comes again."""

    name: str
    sentence: str
    commands: Mapping[str, object]


def plan(desired: Desired, observed: Observed) -> list[Step]:
    """The steps that are missing. The first is to be done first; then look, and plan again."""
    return [
        *_figures(desired, observed),
        *_session_modes(observed),
        *_exceptions(desired, observed),
        *_triggers(desired, observed),
        *_stream(desired, observed),
    ]


def problems(desired: Desired, observed: Observed) -> list[str]:
    """What no step can mend: sentences for the operator."""
    found = [too_long] if (too_long := url_problem(desired.trigger_url)) else []
    if triggers.UNUSABLE in observed.streams:
        found.append(
            f"a stream is called {triggers.UNUSABLE!r}, which is where publishers end up while the agent is down: rename it"
        )
    source = observed.streams.get(desired.wildcard, {}).get("source")
    if isinstance(source, str) and source and not source.startswith(triggers.PUSHED):
        found.append(f"the stream {desired.wildcard!r} was made for {source}; our publishers need it to be {triggers.PUSHED}")
    return found


def url_problem(trigger_url: str) -> str | None:
    """Why MistServer could not call us there."""
    longest = handler_url(trigger_url, "X" * triggers.LONGEST_NAME)
    if len(longest.encode()) <= MAX_HANDLER_BYTES:
        return None
    spare = MAX_HANDLER_BYTES - len(handler_url("", "X" * triggers.LONGEST_NAME))
    return f"the trigger URL is longer than {spare} bytes: MistServer would cut it off without a word"


def handler_url(trigger_url: str, name: str) -> str:
    return f"{trigger_url.rstrip('/')}/trigger/{name}"


def _triggers(desired: Desired, observed: Observed) -> list[Step]:
    wanted = triggers.wanted(is_fork=observed.is_fork, viewers_when_down=desired.viewers_when_down)
    present = observed.config.handlers()
    raw: dict[str, list[object]] = {name: list(found or ()) for name, found in (observed.config.triggers or {}).items()}
    steps = []
    for name, want in wanted.items():
        known = present.get(name, ())
        ours = [handler for handler in known if _is_ours(handler, desired)]
        target = _handler(desired, name, want, is_fork=observed.is_fork)
        if not _is_set(ours, known, target):
            section = {**raw, name: [*(handler.raw for handler in known if handler not in ours), target]}
            steps.append(Step(f"trigger {name}", _sentence(name, want, ours, known), _write(section)))
    for name in sorted(present.keys() - wanted.keys()):
        others = [handler.raw for handler in present[name] if not _is_ours(handler, desired)]
        if len(others) < len(present[name]):
            section = {**raw, name: others}
            if not others:
                del section[name]
            why = f"stop sending {name} to us, because we have no use for it"
            steps.append(Step(f"trigger {name}", why, _write(section)))
    return steps


def _is_set(ours: Sequence[Handler], known: Sequence[Handler], target: Mapping[str, object]) -> bool:
    """Whether exactly one handler is ours, the last of its trigger, and as it shall be."""
    if len(ours) != 1 or known[-1] is not ours[0] or not isinstance(ours[0].raw, dict):
        return False
    raw = ours[0].raw
    blank: tuple[object, ...] = (None, "", [], ())
    return all(raw.get(key) == value or (raw.get(key) in blank and value in blank) for key, value in target.items())


def _is_ours(handler: Handler, desired: Desired) -> bool:
    return any(handler.handler.startswith(handler_url(url, "")) for url in (desired.trigger_url, *desired.former_urls))


def _handler(desired: Desired, name: str, want: triggers.Wanted, *, is_fork: bool) -> Mapping[str, object]:
    made: dict[str, object] = {
        "handler": handler_url(desired.trigger_url, name),
        "sync": want.is_sync,
        "streams": list(OUR_FILTER) if want.is_ours_only else [],
        "params": "",
        "default": want.default,
    }
    if is_fork and want.onfail:
        made["onfail"] = want.onfail
    return made


def _write(section: Mapping[str, object]) -> Mapping[str, object]:
    return {"config": {"triggers": section}, "save": True}  # the section is replaced as a whole


def _sentence(name: str, want: triggers.Wanted, ours: Sequence[Handler], known: Sequence[Handler]) -> str:
    manner = "wait for our answer" if want.is_sync else "be told and not waited for"
    without = {
        triggers.OPEN: "goes on without us while we are away",
        triggers.CLOSED: "refuses while we are away",
        triggers.PUSHED: "takes the configured source while we are away",
        triggers.UNUSABLE: "opens nothing while we are away",
    }[want.default]
    if not ours:
        return f"send us {name}, which shall {manner} and {without}"
    if len(ours) == 1 and known[-1] is not ours[0]:
        return f"ask us last about {name}, because of several answers the last one counts"
    return f"put {name} right again: it shall {manner} and {without}"


def _stream(desired: Desired, observed: Observed) -> list[Step]:
    known = observed.streams.get(desired.wildcard)
    source = (known or {}).get("source")
    if isinstance(source, str) and source.startswith(triggers.PUSHED):
        return []  # also with hosts or a password behind it: that is the operator's wish
    if isinstance(source, str) and source:
        return []  # somebody's stream: we say so (`problems`) and do not take it
    kept = {name: value for name, value in (known or {}).items() if name not in ("name", "online")}
    why = f"make the stream {desired.wildcard!r}, so that publishers can be given names that begin with {desired.wildcard}+"
    return [
        Step(
            f"stream {desired.wildcard}",
            why,
            {"addstream": {desired.wildcard: {**kept, "source": triggers.PUSHED}}, "save": True},
        )
    ]


def _figures(desired: Desired, observed: Observed) -> list[Step]:
    if observed.config.prometheus or not desired.prometheus:
        return []
    why = f"serve the figures of the node under /{desired.prometheus}, because its load is sampled there"
    return [Step("figures", why, {"config": {"prometheus": desired.prometheus}, "save": True})]


def _session_modes(observed: Observed) -> list[Step]:
    steps = []
    for name, mode in SESSION_MODES.items():
        found = getattr(observed.config, name)
        if found is not None and found != mode:
            why = f"set {name} to {mode} instead of {found}, because sessions are told apart by it"
            steps.append(Step(f"mode {name}", why, {"config": {name: mode}, "save": True}))
    return steps


def _exceptions(desired: Desired, observed: Observed) -> list[Step]:
    if not desired.counts_private or observed.exceptions == COUNT_ALL:
        return []
    why = "count viewers of private networks and of this machine, because it was asked for"
    return [Step("bandwidth", why, {"bandwidth": {"exceptions": list(COUNT_ALL)}, "save": True})]
