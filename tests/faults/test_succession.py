"""The controller, and the process that starts it, killed at every moment: what serves goes on, and is found again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.load import FOLDER, Load, ask, check
from tests.faults.models import model
from tests.faults.test_workers import settled, zombies
from tests.versions.repository import write_version
from turnout.core.errors import NotReady
from turnout.deploy.home import home
from turnout.entrypoints.cli import main
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Server, alive, command_line, end, family, serving, start

WORDS = (f"m={FOLDER}", "--access-log", "off")
#: In a loaded machine nothing is quick; what is promised is looked at where it is measured.
_PATIENCE = 30.0


def status(server: Server, name: str = "m") -> dict[str, Any]:
    return next(one for one in ask_here(server.port, {"do": "status"})["models"] if one["name"] == name)


def answers(server: Server) -> bool:
    """Whether there is a controller that knows what it serves, with all workers ready."""
    try:
        models = ask_here(server.port, {"do": "status"})["models"]
    except NotReady:
        return False
    versions = [version for one in models for version in one["versions"]]
    workers = [worker for version in versions for worker in version["workers"]]
    return bool(versions) and all(one["state"] == "READY" for one in (*versions, *workers))


def kill(pid: int) -> None:
    assert pid
    os.kill(pid, signal.SIGKILL)


def kill_controller(server: Server) -> int:
    """Kills it, waits for the one after it, and gives that."""
    before = server.controller
    kill(before)
    server.wait_until(lambda: server.controller not in (0, before), _PATIENCE, "another controller")
    return server.controller


@contextmanager
def heir(server: Server, *words: str) -> Iterator[Server]:
    """Another `turnout serve` on the port of one whose first process is gone."""
    with serving(*words, "--port", str(server.port)) as found:
        yield found


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_killed_controller_is_followed_by_another_that_has_the_same_children() -> None:
    with serving(*WORDS, "--replicas", "2", "--routers", "2") as server, Load(server, clients=4) as load:
        load.wait_for(50)
        children = (server.routers(), server.workers())
        controllers = {server.controller}
        for _ in range(3):
            controllers.add(kill_controller(server))
            server.wait_until(lambda: answers(server), _PATIENCE)
            load.wait_for(50)
        assert len(controllers) == 4
        assert (server.routers(), server.workers()) == children
        assert server.is_ready()
        load.stop()
        assert (dict(load.statuses()), load.broken, load.wrong) == ({200: len(load.answers)}, [], [])
        assert server.stop() == 0
        assert server.family() == []
        assert "Traceback" not in server.log


def test_a_worker_that_dies_later_is_still_started_again() -> None:
    with serving(*WORDS, "--replicas", "2") as server, Load(server, clients=4) as load:
        load.wait_for(20)
        kill_controller(server)
        server.wait_until(lambda: answers(server), _PATIENCE)
        for kills in (1, 2):
            kill(server.workers()[0])
            server.wait_until(lambda: settled(server, kills), _PATIENCE)  # noqa: B023  waited for here
        assert zombies(server.process.pid) == zombies(server.controller) == []
        victim = server.routers()[0]
        load.stop()
        assert (dict(load.statuses()), load.broken) == ({200: len(load.answers)}, [])
        kill(victim)
        server.wait_until(lambda: server.routers() not in ([], [victim]) and server.is_ready(), _PATIENCE)
        check(ask(server, 1), 1)


def test_the_killed_server_goes_on_and_the_next_with_the_same_words_takes_it_over() -> None:
    words = (*WORDS, "--replicas", "2", "--routers", "2")
    with serving(*words) as server, Load(server, clients=4) as load:
        load.wait_for(50)
        children = (server.routers(), server.workers())
        for _ in range(2):
            server.process.kill()
            server.process.wait(5)
            server.wait_until(lambda: len(server.family()) == 4, _PATIENCE, "the controller is gone too")
            load.wait_for(50)
            with pytest.raises(NotReady, match="predictions go on without it"):
                ask_here(server.port, {"do": "status"})
        with heir(server, *words) as found:
            found.wait_until(lambda: answers(found), _PATIENCE)
            load.wait_for(50)
            assert (server.routers(), server.workers()) == children, "nothing is started again"
            assert [worker["restarts"] for worker in status(found)["versions"][0]["workers"]] == [0, 0]
            load.stop()
            assert (dict(load.statuses()), load.broken, load.wrong) == ({200: len(load.answers)}, [], [])
            assert found.stop() == 0
            assert server.family() == found.family() == []
            assert list((home() / "run").glob(f"{server.port}.*")) == []


def test_what_dies_while_there_is_no_controller_is_started_again_by_the_next() -> None:
    words = (*WORDS, "--replicas", "2", "--routers", "2")
    with serving(*words) as server:
        server.process.kill()
        server.process.wait(5)
        server.wait_until(lambda: len(server.family()) == 4, _PATIENCE)
        kill(server.workers()[0])
        kill(server.routers()[0])
        stays = (server.workers()[-1], server.routers()[-1])
        with heir(server, *words) as found:
            found.wait_until(lambda: answers(found), _PATIENCE)
            found.wait_until(found.is_ready, _PATIENCE)
            everybody = {*server.family(), *found.family()}
            assert set(stays) <= everybody
            assert len([pid for pid in everybody if "entrypoints.worker" in command_line(pid)]) == 2
            assert len([pid for pid in everybody if "entrypoints.router" in command_line(pid)]) == 2
            for nonce in range(30):
                check(ask(found, nonce), nonce)


def test_a_worker_killed_while_there_is_no_controller_is_noticed_by_nobody() -> None:
    with serving(*WORDS, "--replicas", "2") as server, Load(server, clients=4) as load:
        load.wait_for(50)
        os.kill(server.process.pid, signal.SIGSTOP)  # it starts nothing now
        kill(server.controller)
        server.wait_until(lambda: server.controller == 0, _PATIENCE)
        kill(server.workers()[0])
        load.wait_for(50)
        os.kill(server.process.pid, signal.SIGCONT)
        server.wait_until(lambda: answers(server) and len(server.workers()) == 2, _PATIENCE)
        load.wait_for(50)
        load.stop()
        assert (dict(load.statuses()), load.broken, load.wrong) == ({200: len(load.answers)}, [], [])


def test_a_busy_worker_is_waited_for_and_not_replaced() -> None:
    with serving(*WORDS) as server:
        (worker,) = server.workers()
        found: list = []
        thread = threading.Thread(target=lambda: found.append(ask(server, 7, model.SLOW)))
        thread.start()
        time.sleep(0.1)
        kill_controller(server)
        thread.join(20)
        check(found[0], 7)
        server.wait_until(lambda: answers(server), _PATIENCE)
        assert server.workers() == [worker]


def test_while_there_is_no_controller_questions_end_in_a_refusal_at_once() -> None:
    with serving(*WORDS, "--model-control") as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        kill(server.controller)
        server.wait_until(lambda: server.controller == 0, _PATIENCE)
        server.wait_until(lambda: server.request("POST", "/v2/repository/index").status == 503, 5)
        answer = server.request("POST", "/v2/repository/models/m/load", timeout=5)
        assert answer.status == 503
        assert "control plane is being started again" in answer.json()["error"]
        assert server.request("GET", "/metrics").status == 200
        check(ask(server, 1), 1)
        os.kill(server.process.pid, signal.SIGCONT)
        server.wait_until(lambda: server.request("POST", "/v2/repository/index").status == 200, _PATIENCE)


def test_what_was_changed_since_the_start_stays_changed(tmp_path: Path) -> None:
    for number in (1, 2):
        write_version(tmp_path / "m", number)
    write_version(tmp_path / "other", 1)
    words = (str(tmp_path / "m"), "--versions", "all", "--access-log", "off")
    with serving(*words) as server:
        ask_here(server.port, {"do": "label", "model": "m", "label": "stable", "version": "1"})
        ask_here(server.port, {"do": "load", "model": "other", "artifact": str(tmp_path / "other")})
        write_version(tmp_path / "m", 3)
        ask_here(server.port, {"do": "load", "model": "m"})
        workers = server.workers()
        kill_controller(server)
        server.wait_until(lambda: answers(server), _PATIENCE)
        for _ in range(2):
            assert status(server)["labels"] == {"stable": "1"}
            assert [version["version"] for version in status(server)["versions"]] == ["1", "2", "3"]
            assert [version["version"] for version in status(server, "other")["versions"]] == ["1"]
            assert server.workers() == workers
            ask_here(server.port, {"do": "load", "model": "m"})  # nothing has changed, so nothing is done
        ask_here(server.port, {"do": "unload", "model": "other"})
        assert len(server.workers()) == 3
        assert ask_here(server.port, {"do": "unload", "model": "m", "version": "1"})["unloaded"]["1"]


def test_other_words_change_what_is_served_without_a_gap(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "other", 1)
    with serving(str(tmp_path / "m"), str(tmp_path / "other")) as server:
        server.process.kill()
        server.process.wait(5)
        kept = server.workers()
        write_version(tmp_path / "new", 1)
        with heir(server, str(tmp_path / "m"), str(tmp_path / "new")) as found:
            found.wait_until(lambda: set(_served(found)) == {"m", "new"} and answers(found), _PATIENCE)
            assert len(set(kept) & set(server.workers())) == 1
            assert found.request("POST", "/predict/other", [[1.0]]).status == 404
    with serving(str(tmp_path / "m")) as server:
        server.process.kill()
        server.process.wait(5)
        with heir(server, str(tmp_path / "m"), "--replicas", "2") as found:
            found.wait_until(lambda: answers(found) and len(found.workers()) == 2, _PATIENCE, "otherwise, so anew")
            found.wait_until(lambda: server.workers() == [], _PATIENCE)


def _served(server: Server) -> list[str]:
    models = ask_here(server.port, {"do": "status"})["models"]
    return [one["name"] for one in models if one["versions"]]


def test_doors_that_cannot_be_changed_while_they_are_open_are_said(tmp_path: Path) -> None:
    with serving(*WORDS) as server:
        server.process.kill()
        server.process.wait(5)
        log = tmp_path / "log"
        process = start([*WORDS, "--routers", "2", "--port", str(server.port)], log)
        try:
            assert process.wait(20) == 1
        finally:
            end(process)
        assert "routers was 1 and not 2" in log.read_text()
        assert f"turnout stop --port {server.port}" in log.read_text()
        check(ask(server, 1), 1)
        assert len(server.family()) == 2


def test_nobody_else_gets_the_port_of_a_living_server(tmp_path: Path) -> None:
    with serving(*WORDS) as server:
        children = server.family()
        log = tmp_path / "log"
        process = start([*WORDS, "--port", str(server.port)], log)
        try:
            assert process.wait(20) == 1
        finally:
            end(process)
        assert "in use" in log.read_text()
        assert server.family() == children
        check(ask(server, 1), 1)
        kill_controller(server)
        server.wait_until(lambda: answers(server), _PATIENCE)


_GATED = """
        import os, time
        began, go = {began!r}, {go!r}
        with open(began, "a") as file:
            file.write("x")
        while not os.path.exists(go):
            time.sleep(0.01)
"""


@pytest.mark.parametrize("top", [False, True], ids=["controller", "server"])
def test_killed_while_a_version_loads(tmp_path: Path, top: bool) -> None:
    write_version(tmp_path / "m", 1)
    began, go = tmp_path / "began", tmp_path / "go"
    words = (str(tmp_path / "m"), "--access-log", "off")
    with serving(*words) as server:
        write_version(tmp_path / "m", 2, before=_GATED.format(began=str(began), go=str(go)))
        thread = threading.Thread(target=_ignore, args=(server.port, {"do": "load", "model": "m"}))
        thread.start()
        server.wait_until(began.exists, _PATIENCE)
        old = server.workers()
        if top:
            server.process.kill()
            server.process.wait(5)
        else:
            kill_controller(server)
        thread.join(10)
        assert server.request("POST", "/predict/m", [[1.0]]).status == 200
        go.touch()
        if top:
            with heir(server, *words) as found:
                _loaded(found, old)
        else:
            _loaded(server, old)
        assert began.read_text() == "x", "it was loaded once"


def _ignore(port: int, question: dict[str, Any]) -> None:
    with pytest.raises(NotReady):
        ask_here(port, question)


def _loaded(server: Server, workers: list[int]) -> None:
    server.wait_until(lambda: answers(server) and status(server)["default"] == "2", _PATIENCE)
    server.wait_until(lambda: [v["version"] for v in status(server)["versions"]] == ["2"], _PATIENCE)
    server.wait_until(lambda: not alive(workers[0]), _PATIENCE)
    assert alive(workers[1])


def test_a_version_that_fails_to_load_while_there_is_no_controller(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    began, go = tmp_path / "began", tmp_path / "go"
    gate = _GATED.format(began=str(began), go=str(go)) + "        raise ValueError('never to be')\n"
    with serving(str(tmp_path / "m")) as server:
        write_version(tmp_path / "m", 2, before=gate)
        thread = threading.Thread(target=_ignore, args=(server.port, {"do": "load", "model": "m"}))
        thread.start()
        server.wait_until(began.exists, _PATIENCE)
        os.kill(server.process.pid, signal.SIGSTOP)
        kill(server.controller)
        go.touch()
        thread.join(10)
        time.sleep(0.2)
        os.kill(server.process.pid, signal.SIGCONT)
        server.wait_until(lambda: _reason(server) != "", _PATIENCE)
        assert "never to be" in _reason(server)
        assert status(server)["default"] == "1"
        server.wait_until(lambda: len(server.workers()) == 1, _PATIENCE)


def _reason(server: Server) -> str:
    try:
        return "".join(version["reason"] for version in status(server)["versions"])
    except NotReady:
        return ""


def test_killed_while_a_version_is_unloaded(tmp_path: Path) -> None:
    slow = "import time; time.sleep(2.0 * float(inputs['x'][0, 0]))"
    write_version(tmp_path / "m", 1, predicts=slow)
    write_version(tmp_path / "m", 2)
    with serving(str(tmp_path / "m"), "--versions", "all") as server:
        found: list = []
        thread = threading.Thread(
            target=lambda: found.append(server.request("POST", "/v2/models/m/versions/1/infer", _BODY))
        )
        thread.start()
        time.sleep(0.3)
        asking = threading.Thread(target=_ignore, args=(server.port, {"do": "unload", "model": "m", "version": "1"}))
        asking.start()
        server.wait_until(lambda: any(v["state"] == "DRAINING" for v in status(server)["versions"]), 5)
        kill_controller(server)
        thread.join(20)
        asking.join(10)
        assert found[0].status == 200, "what was in flight is answered"
        server.wait_until(lambda: answers(server) and len(server.workers()) == 1, _PATIENCE)
        assert [version["version"] for version in status(server)["versions"]] == ["2"]


_BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}


@pytest.mark.parametrize("top", [False, True], ids=["controller", "server"])
def test_killed_before_it_is_ready(tmp_path: Path, top: bool) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    write_version(tmp_path / "m", 1, before=_GATED.format(began=str(began), go=str(go)))
    log, port = tmp_path / "log", str(_free_port())
    words = [str(tmp_path / "m"), "--port", port]
    process = start(words, log)
    try:
        _until(began.exists)
        if top:
            process.kill()
            process.wait(5)
            left = family(process)
            go.touch()
            with serving(*words) as found:
                found.wait_until(lambda: answers(found), _PATIENCE)
                assert {pid for pid in left if alive(pid)} >= set(family(process))
                assert began.read_text() == "x"
        else:
            server = Server(process, log)
            kill_controller(server)
            go.touch()
            _until(lambda: "Turnout is ready" in log.read_text())
            assert began.read_text() == "x"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    finally:
        end(process)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_any_moment_of_the_start(tmp_path: Path) -> None:
    """The start takes some hundred milliseconds: a kill every so often on the way."""
    log = tmp_path / "log"
    for moment in range(10):
        process = start([*WORDS], log)
        try:
            server = Server(process, log)
            server.wait_until(lambda: server.controller != 0, _PATIENCE)  # noqa: B023
            time.sleep(0.04 * moment)
            kill_controller(server)
            server.wait_until(lambda: "Turnout is ready" in server.log, _PATIENCE)  # noqa: B023
            # What was only just started ends by itself.
            server.wait_until(lambda: len(server.family()) == 3, _PATIENCE, "nobody else")  # noqa: B023
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, log.read_text()
            assert server.family() == []
        finally:
            end(process)


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_controller_killed_while_it_stops_everything() -> None:
    """What is in flight is answered, and then nothing is left."""
    with serving(*WORDS) as server:
        found: list = []
        thread = threading.Thread(target=lambda: found.append(ask(server, 3, model.SLOW)))
        thread.start()
        time.sleep(0.15)
        controller = server.controller
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: "stopping" in server.log, 5)
        time.sleep(0.05)
        kill(controller)
        thread.join(20)
        check(found[0], 3)
        server.process.wait(20)
        server.wait_until(lambda: server.family() == [], 10)


def test_stop_ends_a_server_and_what_a_killed_one_has_left() -> None:
    with serving(*WORDS, "--replicas", "2") as server:
        assert main(["stop", "--port", str(server.port)]) == 0
        assert server.process.wait(5) == 0
        assert server.family() == []
    with serving(*WORDS, "--replicas", "2") as server:
        server.process.kill()
        server.process.wait(5)
        found: list = []
        thread = threading.Thread(target=lambda: found.append(ask(server, 3, model.SLOW)))
        thread.start()
        time.sleep(0.2)
        assert main(["stop", "--port", str(server.port)]) == 0
        thread.join(10)
        check(found[0], 3)
        assert server.family() == []
        assert main(["stop", "--port", str(server.port)]) == 1


def test_orphans_end_by_themselves() -> None:
    with serving(*WORDS, "--orphan-seconds", "0.5") as server:
        server.process.kill()
        server.process.wait(5)
        check(ask(server, 1), 1)
        server.wait_until(lambda: server.family() == [], _PATIENCE, "all of them have ended")


def test_nothing_leaks_from_controller_to_controller() -> None:
    with serving(*WORDS, "--replicas", "2", "--routers", "2") as server:
        kill_controller(server)
        server.wait_until(lambda: answers(server), _PATIENCE)
        time.sleep(0.2)
        before = [descriptors(pid) for pid in (server.process.pid, server.controller, *server.family()[:4])]
        for _ in range(5):
            kill_controller(server)
            server.wait_until(lambda: answers(server), _PATIENCE)
        server.wait_until(
            lambda: (
                [descriptors(pid) for pid in (server.process.pid, server.controller, *server.family()[:4])] == before
            ),
            10,
        )


SOME = pytest.param(6, marks=[pytest.mark.slow, pytest.mark.timeout(300)])
FIFTY = pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])


@pytest.mark.parametrize("count", [SOME, FIFTY])
def test_killed_controllers_and_servers_under_load_are_noticed_by_nobody(count: int) -> None:
    """R4: no excluded window, requests at their own pace, every one answered, with its own answer."""
    words = (*WORDS, "--replicas", "2")
    resumed: list[float] = []
    taken_over: list[float] = []
    with serving(*words) as server, Load(server, clients=8, rate=200.0) as load:
        load.wait_for(100)
        children = (server.routers(), server.workers())
        for _ in range(count):
            began = time.monotonic()
            kill_controller(server)
            server.wait_until(lambda: answers(server), _PATIENCE)
            resumed.append(time.monotonic() - began)
            load.wait_for(50)
        assert (server.routers(), server.workers()) == children
        tops = [server]
        for _ in range(max(2, count // 5)):
            tops[-1].process.kill()
            tops[-1].process.wait(5)
            load.wait_for(50)
            began = time.monotonic()
            process = start([*words, "--port", str(server.port)], Path(server._log).with_name(f"log{len(tops)}"))
            found = Server(process, Path(server._log).with_name(f"log{len(tops)}"))
            found.host, found.port = server.host, server.port
            tops.append(found)
            found.wait_until(lambda: answers(server), _PATIENCE)
            taken_over.append(time.monotonic() - began)
        load.stop()
        print(f"\n{len(load.answers)} requests; {count} controllers killed, {_said(resumed)}")
        print(f"{len(taken_over)} servers killed, {_said(taken_over)}")
        assert (server.routers(), server.workers()) == children
        assert (dict(load.statuses()), load.broken, load.wrong) == ({200: len(load.answers)}, [], [])
        assert tops[-1].stop() == 0
        assert server.family() == []
        for one in tops[1:]:
            end(one.process)


def _said(seconds: list[float]) -> str:
    return f"back in {sorted(seconds)[len(seconds) // 2]:.2f} s (median), {max(seconds):.2f} s (most)"
