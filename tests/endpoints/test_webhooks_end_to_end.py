"""A rollout asks before it goes on, and tells what has happened; a webhook that does not agree holds it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.models import write_model
from tests.endpoints.open_loop import OpenLoop
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import serving

SPEC = """\
server: {{access_log: "off"}}
endpoints:
  fraud:
    versions: {{v1: {{model: v1.py}}, v2: {{model: v2.py}}}}
    traffic: {{v1: 100}}
    rollout: {rollout}
"""


class Hook:
    """A webhook that keeps what it was told, and agrees when it is let."""

    def __init__(self) -> None:
        self.agrees = threading.Event()
        self.told: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["content-length"])))
                hook.told.append(said)
                self.send_response(200 if hook.agrees.is_set() or said["when"] == "event" else 409)
                self.end_headers()
                self.wfile.write(b"not yet")

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.slow
def test_it_waits_for_those_who_are_asked(tmp_path: Path, hook: Hook) -> None:
    write_model(tmp_path / "v1.py", 2.0)
    write_model(tmp_path / "v2.py", 2.0)
    rollout = {
        "to": "v2", "steps": [50, 100], "min_seconds": 0.5, "min_samples": 20, "interval": 0.5,
        "guard": {"latency": "off"},
        "gates": {"webhooks": [{"url": hook.url, "when": "pre_promote"}, {"url": hook.url, "when": "event"}]},
    }  # fmt: skip
    path = tmp_path / "turnout.yaml"
    path.write_text(SPEC.format(rollout=json.dumps(rollout)))
    with serving("--spec", str(path)) as server, OpenLoop(server, "fraud", 100.0) as load:
        load.wait_for(50)

        def status() -> dict[str, Any]:
            found: dict[str, Any] = ask_here(server.port, {"do": "rollout", "endpoint": "fraud", "act": "status"})
            return found

        ask_here(server.port, {"do": "rollout", "endpoint": "fraud", "act": "start"})
        server.wait_until(lambda: any(one["when"] == "pre_promote" for one in hook.told), what="the question")
        asked = len(load.seen)
        load.wait_for(asked + 150)
        assert (status()["phase"], status()["weight"]) == ("canary", 50.0), "nobody has agreed"
        hook.agrees.set()
        until = time.monotonic() + 30.0
        while status()["phase"] != "stable":
            assert time.monotonic() < until, status()["text"]
            time.sleep(0.05)
    assert all(one.status == 200 for one in load.seen)
    assert {"pre_promote", "event"} == {one["when"] for one in hook.told}
    assert all(one["endpoint"] == "fraud" for one in hook.told)
