"""MistServer's recorded answers are read as they are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from edge_agent.mist import active_streams, capabilities, clients, config, load, push_list
from edge_agent.mist.server import configured_streams
from streams.errors import Transient
from tests.mist.recordings import reply


def test_clients_are_read_with_their_kind_and_figures() -> None:
    found = clients.read(reply("live", "clients, time -5"))
    viewers = [c for c in found.rows if c.is_viewer]
    assert {(c.protocol, c.stream) for c in viewers} == {("HLS", "live+cam1")}
    assert {c.host for c in viewers} == {"127.0.5.1", "127.0.5.2", "127.0.5.3"}
    [publisher] = [c for c in found.rows if c.is_input and c.stream == "live+cam1"]
    assert (publisher.protocol, publisher.conntime, publisher.down) == ("INPUT:RTMP", 27, 1265325)
    assert found.time == 1795175621


def test_clients_of_long_ago_are_none() -> None:
    assert clients.read(reply("live", "clients, time None")).rows == ()


def test_clients_in_another_order_are_read_by_name_and_an_unknown_shape_is_refused() -> None:
    usual = {
        "time": 1,
        "fields": list(clients.Client.__struct_fields__),
        "data": [["h", "s", "HLS", 1, 2, 3, 4, 5, 6, "a", 0, 0, 0]],
    }
    mixed = {"time": 1, "fields": usual["fields"][::-1], "data": [usual["data"][0][::-1]]}  # type: ignore[index]
    assert clients.read({"clients": mixed}) == clients.read({"clients": usual})
    with pytest.raises(Transient, match="fields"):
        clients.read({"clients": {"time": 1, "fields": ["host"], "data": [["h"]]}})
    with pytest.raises(Transient, match="no 'clients'"):
        clients.read({"LTS": 1})


def test_active_streams_say_who_is_on_the_air_and_who_feeds_it() -> None:
    found = active_streams.read(reply("live", "active_streams: longform + filter + fields"))
    assert found["live+cam1"].is_online
    assert found["live+cam1"].sourcepids == (8871,)
    assert active_streams.read({"active_streams": None}) == {}


def test_figures_of_a_stream_that_just_ended_are_null_and_hide_no_other() -> None:
    ended = {"status": "Offline", "viewers": 1, "inputs": 0, "outputs": 0, "lastms": None, "upbytes": None, "downbytes": None}
    alive = {"status": "Online", "viewers": 2, "inputs": 1, "outputs": 0, "lastms": 5, "sourcepids": [7]}
    found = active_streams.read({"active_streams": {"live+ended": ended, "live+alive": alive}})
    assert (found["live+ended"].viewers, found["live+ended"].lastms) == (1, 0)
    assert found["live+alive"].sourcepids == (7,)


def test_pushes_are_read_with_their_status_and_none_is_none() -> None:
    pushes = push_list.read(reply("live", "push_list"))
    recording = next(p for p in pushes if p.target == "/var/mist/api/api.mkv")
    assert (recording.pid, recording.stream) == (9091, "live+cam1")
    assert recording.status is not None
    assert recording.status.bytes
    assert push_list.read(reply("push", "3 s after push_stop")) == ()


def test_the_configuration_says_version_instance_and_handlers() -> None:
    found = config.read(reply("config", "read config"))
    assert (found.version, found.iid, found.prometheus) == ("3.10 Generic_x86_64", "^{z^pohsuUXsuNPU", "metrics")
    handlers = found.handlers()
    assert handlers["USER_NEW"][0].sync
    assert not handlers["USER_END"][0].sync
    array = config.Config(triggers={"STREAM_ADD": [["http://127.0.0.1/one", True, ["x4"]], 7]})
    first, odd = array.handlers()["STREAM_ADD"]
    assert (first.handler, first.sync, first.streams) == ("http://127.0.0.1/one", True, ("x4",))
    assert odd.raw == 7


def test_stock_is_told_from_the_fork_by_the_triggers_that_it_names() -> None:
    stock = reply("capabilities", "triggers")
    assert not capabilities.read({"capabilities": {"triggers": stock}}).is_fork
    assert capabilities.read({"capabilities": {"triggers": {**stock, "STREAM_PROCESS": {}}}}).is_fork


def test_a_server_on_which_nothing_was_configured_yet_says_null() -> None:
    fresh: Mapping[str, object] = {"streams": None, "config": {"version": "3.10 Generic_x86_64", "iid": "a", "triggers": None}}
    assert configured_streams(fresh) == {}
    assert config.read(fresh).handlers() == {}


def test_the_load_of_the_node_in_whole_units() -> None:
    found = load.read(reply("live", "prometheus json"))
    assert (found.cpu_permille, found.memory_used_bytes, found.viewers, found.inputs, found.outputs) == (
        72,
        544768 << 10,
        3,
        2,
        2,
    )
    assert (found.up_bytes, found.down_bytes) == (8280776, 2693120)
    with pytest.raises(Transient):
        load.read({"curr": [1]})
