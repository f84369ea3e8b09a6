"""Routers and the controller: killed, told to stop, kept from starting."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.load import FOLDER, Load, ask, check
from tests.faults.models import model
from turnout.testing.server import alive, end, serving, start
from turnout.testing.server import family as family_of

WORDS = (f"m={FOLDER}", "--access-log", "off")


def test_a_killed_router_is_started_again_on_the_same_port() -> None:
    """Connections of the dead router break; the port never refuses, and the other router goes on."""
    with serving(*WORDS, "--routers", "2") as server, Load(server, new_connections=True, pause=0.001) as load:
        load.wait_for(50)
        for _ in range(3):
            victim = server.routers()[0]
            os.kill(victim, signal.SIGKILL)
            server.wait_until(lambda: not alive(victim) and len(server.routers()) == 2, 5)  # noqa: B023  waited for here
            load.wait_for(50)
        load.stop()
        assert load.refused == 0
        assert not load.wrong
        assert set(load.statuses()) <= {200, 503}
        assert load.statuses()[503] <= 24, "a router that starts is not open before it has its workers"
        assert len(load.broken) <= 3 * load.clients, "more broken than one request per client and kill"
        for _ in range(30):  # both routers, by chance of the kernel
            check(ask(server, 1), 1)
        assert server.is_ready()


@pytest.mark.parametrize("routers", ["1", "2"])
def test_a_drain_loses_nothing(routers: str) -> None:
    """R7: SIGTERM under load. What was accepted is answered, newcomers are refused, the exit code is 0."""
    with serving(*WORDS, "--routers", routers, env={"TRIAL_BASE_SECONDS": "0.02"}) as server:
        with Load(server, clients=8) as load:
            load.wait_for(100)
            server.process.send_signal(signal.SIGTERM)
            told = time.monotonic()
            assert server.process.wait(10) == 0
            assert time.monotonic() - told < 5
            time.sleep(0.1)
        assert not load.wrong
        assert dict(load.statuses()) == {200: len(load.answers)}
        assert load.refused > 0
        # The one thing that HTTP cannot keep: a request sent on an idle connection in the instant it is closed.
        assert load.broken == []


def test_slow_requests_are_answered_before_the_end_and_newcomers_refused() -> None:
    with serving(*WORDS) as server:
        found: list = []
        threads = [threading.Thread(target=lambda n=n: found.append((n, ask(server, n, model.SLOW)))) for n in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.15)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port), timeout=2)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.grpc_port), timeout=2)
        for thread in threads:
            thread.join(10)
        assert server.process.wait(5) == 0
        assert len(found) == 4
        for nonce, answer in found:
            check(answer, nonce)


def test_a_second_signal_ends_at_once() -> None:
    with serving(*WORDS) as server:

        def hang() -> None:
            with suppress(OSError):  # its worker may end before its router, which then has a word to say
                assert ask(server, 1, model.HANG).status == 503

        thread = threading.Thread(target=hang)
        thread.start()
        time.sleep(0.3)
        family = server.family()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None, "it did not wait for the request"
        server.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        code = server.process.wait(3)
        assert time.monotonic() - told < 1
        assert code != 0
        server.wait_until(lambda: not any(alive(pid) for pid in family), 3)
        thread.join(5)


def test_a_hung_worker_does_not_hold_up_the_end() -> None:
    """The hung request ends by its deadline, and then nothing keeps the server."""
    with serving(*WORDS, "--deadline", "1") as server:
        answer = ask(server, 1, model.HANG)
        assert answer.status == 504
        server.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        assert server.process.wait(6) == 0
        assert time.monotonic() - told < 3


def test_a_stop_while_models_load_is_quick(tmp_path: Path) -> None:
    slow = tmp_path / "model.py"
    slow.write_text("import time\ntime.sleep(60)\ndef predict(x): return x\n")
    process = start([f"m={slow}"], tmp_path / "log")
    try:
        time.sleep(1.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        end(process)


@pytest.mark.parametrize("words", [("--port",), ("--grpc-port",), ("--routers", "2", "--port")])
def test_a_port_in_use(tmp_path: Path, words: tuple[str, ...]) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(tmp_path, [*WORDS, *words, port], f"127.0.0.1:{port}", "in use", "choose another port")


def refused(folder: Path, words: list[str], *says: str) -> None:
    """The server does not start, says why in a sentence, and leaves nothing behind."""
    log = folder / "log"
    process = start(words, log)
    family: set[int] = set()
    try:
        until = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < until:
            family |= set(family_of(process))
            time.sleep(0.005)
        assert process.wait(1) == 1
    finally:
        end(process)
    until = time.monotonic() + 3
    while any(alive(pid) for pid in family) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in family), "something was left running"
    text = log.read_text()
    assert all(part in text for part in says), text
    assert "Traceback" not in text, text
    assert text.count("\n") <= 3, text


def test_models_that_cannot_load(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name\n")
    refused(tmp_path, [str(broken)], "turnout: broken", "nothing_of_that_name")
    raising = tmp_path / "raising.py"
    raising.write_text("raise RuntimeError('no licence')\n")
    refused(tmp_path, [f"m={raising}", f"other={FOLDER}"], "turnout: m", "no licence")
    dying = tmp_path / "dying.py"
    dying.write_text("import os\nos._exit(3)\n")
    refused(tmp_path, [f"m={dying}"], "turnout: m", "ended early (exit code 3)")
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"\x00" * 100)
    refused(tmp_path, [f"m={junk}"], "turnout: ")
    refused(tmp_path, [f"m={tmp_path / 'missing.onnx'}"], "turnout: ", "missing.onnx")


def test_a_model_that_takes_too_long_to_load(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ntime.sleep(60)\ndef predict(x): return x\n")
    refused(tmp_path, [f"m={slow}", "--load-timeout", "1"], "m@1 did not become ready within 1 s")


@pytest.mark.parametrize(
    "words",
    [
        ["--replicas", "many"],
        ["--nonsense"],
        ["--replicas", "0"],
        ["--routers", "0"],
        ["--port", "99999"],
        ["--port", "8123", "--grpc-port", "8123"],
        ["--deadline", "0"],
        ["--deadline", "nan"],
        ["--drain-timeout", "-1"],
        ["--max-batch-rows", "0"],
        ["--max-batch-wait", "-1"],
        ["--queue-rows", "0"],
        ["--max-body-mb", "0"],
        [f"m={FOLDER}"],
        [f"a b={FOLDER}"],
        ["--place", "inline", "--replicas", "2"],
    ],
    ids=" ".join,
)
def test_words_that_are_wrong(tmp_path: Path, words: list[str]) -> None:
    """Refused before anything is started, with a sentence and the right exit code."""
    log = tmp_path / "log"
    process = start([f"m={FOLDER}", *words], log)
    try:
        assert process.wait(20) in (1, 2)
    finally:
        end(process)
    text = log.read_text()
    assert "Traceback" not in text, text
    assert "turnout" in text
