"""The socket of the administrator: garbage, crowds, what a killed server left, two servers, a path too long."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.versions.repository import answer, status, turnout, write_version
from turnout.deploy.home import socket_path
from turnout.entrypoints import cli
from turnout.testing.server import Server, serving

GARBAGE = [
    b"5",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b"{}",
    b'{"do": ["load"]}',
    b'{"do": "load"}',
    b'{"do": "load", "model": {"a": 1}}',
    b'{"do": "load", "model": "new", "artifact": "%s"}' % (b"a" * 5000),
    b'{"do": "load", "model": "m", "artifact": "/a\\u0000b"}',
    b'{"do": "load", "model": "m", "version": "\\ud800"}',
    b'{"do": "load", "model": "m", "version": 1}',
    b'{"do": "unload"}',
    b'{"do": "label", "model": "m"}',
    b'{"do": "apply", "model": "nobody"}',
]


def connected(server: Server) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(socket_path(server.port)))
    sock.settimeout(10.0)
    return sock


def said(server: Server, line: bytes) -> dict[str, Any]:
    with connected(server) as sock:
        sock.sendall(line + b"\n")
        found: dict[str, Any] = json.loads(sock.makefile("rb").readline())
        return found


def test_garbage_gets_an_answer_and_changes_nothing(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m")) as server:
        before = status(server)["versions"][0]
        for line in GARBAGE:
            assert said(server, line)["message"], line[:60]
        with connected(server) as sock:
            for _ in range(160):  # ten MiB, and no end
                sock.sendall(b"x" * (1 << 16))
            sock.sendall(b"\n")
            assert "at most" in json.loads(sock.makefile("rb").readline())["message"]
        with connected(server) as sock:
            sock.sendall(b'{"do": "sta')  # and goes away
        long = server.request("POST", "/v2/repository/index", {"ready": "yes"})
        assert long.status == 400
        after = status(server)["versions"][0]
        assert before["generation"] == after["generation"]
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_a_crowd_is_answered_and_leaves_nothing_open(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m")) as server:
        descriptors = Path(f"/proc/{server.controller}/fd")
        before = len(list(descriptors.iterdir()))
        crowd = [connected(server) for _ in range(150)]
        for sock in crowd:
            sock.sendall(b'{"do": "status"}\n')
        for sock in crowd:
            assert b'"READY"' in sock.makefile("rb").readline()
            sock.close()
        server.wait_until(lambda: len(list(descriptors.iterdir())) <= before)
        waiting = connected(server)  # asks nothing, and is there when the server ends
        assert server.stop() == 0
        assert waiting.recv(1) == b""
        waiting.close()
        assert not socket_path(server.port).exists()
        assert "Traceback" not in server.log


def test_the_heir_of_a_port_is_asked_while_the_one_before_drains(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1, predicts="import time; time.sleep(2.0 * float(inputs['x'][0, 0]))")
    with serving(str(tmp_path / "m")) as old:
        slow = socket.create_connection((old.host, old.port))
        body = b"[[1.0]]"
        slow.sendall(b"POST /predict/m HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
        slow.sendall(b"content-length: %d\r\n\r\n%s" % (len(body), body))
        old.wait_until(lambda: b"turnout_batch" in old.request("GET", "/metrics").body)
        time.sleep(0.1)
        old.process.send_signal(signal.SIGTERM)
        old.wait_until(lambda: not old.is_ready())
        with serving(str(tmp_path / "m"), "--port", str(old.port)) as heir:
            assert b" 200 OK" in slow.recv(100)
            assert old.process.wait(20.0) == 0
            assert status(heir)["default"] == "1"
        slow.close()


def test_what_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m")) as server:
        port = server.port
        server.process.kill()
        server.process.wait()
        assert socket_path(port).exists()
        assert turnout(server, "status")[0] == 1
    with serving(str(tmp_path / "m"), "--port", str(port)) as server:
        assert status(server)["default"] == "1"


def test_a_path_too_long_for_a_socket_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(tmp_path / "m", 1)
    home = str(tmp_path / ("long" * 30))
    monkeypatch.setenv("TURNOUT_HOME", home)
    with serving(str(tmp_path / "m")) as server:
        assert answer(server) == 1
        assert "cannot reach this server" in server.log
        assert cli.main(["status", "--url", f"http://127.0.0.1:{server.port}"]) == 1
        assert "too long" in capfd.readouterr().err


def test_the_repository_api_takes_no_nonsense_and_names_a_version_once(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m"), "--model-control", "--keep", "1") as server:
        for version in ({"a": 1}, [1], True, 1.5):
            got = server.request("POST", "/v2/repository/models/m/load", {"parameters": {"version": version}})
            assert (got.status, b"parameters.version: must be text" in got.body) == (400, True)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            for method in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"):
                call = channel.stream_stream(f"/inference.GRPCInferenceService/{method}")
                with pytest.raises(grpc.RpcError) as refused:
                    list(call(iter(()), timeout=10.0))
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        write_version(tmp_path / "m", 1, says=11)
        assert server.request("POST", "/v2/repository/models/m/load").status == 200
        assert [one["state"] for one in status(server)["versions"]] == ["KEPT", "READY"]
        index = server.request("POST", "/v2/repository/index").json()
        assert index == [{"name": "m", "version": "1", "state": "READY"}]
        assert "Traceback" not in server.log
