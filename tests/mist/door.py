"""The API's port: HTTP/1.1, kept alive, a login for each connection (CONTRACT 6.1 and 6.2)."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.mist import api
from tests.mist.state import State


class Door:
    """Listens on a port of its own choosing. `is_local`: whether callers count as local."""

    def __init__(self, state: State, *, is_local: bool) -> None:
        self.requests: list[Any] = []  # every object of commands that came
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            is_in = False

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                commands = {}
                if self.headers.get("Content-Type") == "application/json":  # exactly, or the body is ignored
                    try:
                        commands = json.loads(body)
                    except ValueError:
                        commands = {}
                self._reply(commands if isinstance(commands, dict) else {})

            def do_GET(self) -> None:
                with state.lock:
                    controller = state.controller
                    path = controller.config.get("prometheus") if controller else None
                    found = api.load(state) if path and self.path == f"/{path}.json" else None
                if found is None:
                    self._send("<!DOCTYPE html>")  # its interface
                else:
                    self._send(json.dumps(found))

            def _reply(self, commands: dict[str, Any]) -> None:
                with state.lock:
                    if state.controller is None:
                        self.close_connection = True
                        self.connection.close()
                        return
                    door.requests.append(commands)
                    said, is_allowed = api.authorize(state, commands, is_local=is_local, is_in=self.is_in)
                    answer = {"authorize": said} | (api.execute(state, commands) if is_allowed else {})
                    self.is_in = is_allowed and "logout" not in commands
                self._send(json.dumps(answer) + "\n\n")
                settle(state)

            def _send(self, text: str) -> None:
                data = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/javascript")
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def settle(state: State) -> None:
    """What other processes do about an API call, after it was answered."""
    with state.lock:
        while state.later:
            state.later.pop(0)()
