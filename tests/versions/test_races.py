"""Versions are loaded, unloaded, moved and killed at the same time, while callers ask for them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.versions.repository import Asking, answer, states, status, write_version
from turnout.core.errors import Failure
from turnout.entrypoints.remote import ask_here as ask
from turnout.testing.server import Server, end, serving, start


def do(server: Server, what: str, model: str = "m", **words: str) -> str:
    """What an act at the server comes to: "" or why it failed."""
    try:
        ask(server.port, {"do": what, "model": model, **words})
    except Failure as failure:
        return failure.message
    return ""


def descriptors(server: Server) -> Counter[str]:
    """What the controller and its routers hold open for the sake of children and their versions."""
    found: Counter[str] = Counter()
    for pid in [server.controller, *server.routers()]:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                kind = str(entry.readlink())
            except OSError:
                continue
            if "memfd" in kind or "eventfd" in kind or "pidfd" in kind:
                found[kind] += 1
    return found


def test_what_failed_is_loaded_once_when_it_is_asked_for_again(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    allowed = tmp_path / "allowed"
    with serving(str(tmp_path / "m")) as server:
        broken = f"import os; os.stat({str(allowed)!r})"
        write_version(tmp_path / "m", 2, before=broken)
        assert "FileNotFoundError" in do(server, "load")
        assert "FileNotFoundError" in do(server, "load")
        allowed.touch()
        assert do(server, "load") == "", "the same files, and another try"
        write_version(tmp_path / "m", 3, before="raise ValueError('broken')")
        assert "broken" in do(server, "load")
        write_version(tmp_path / "m", 3)
        assert do(server, "load") == ""
        assert [one["version"] for one in status(server)["versions"]] == ["3"], "and no twin of it"
        assert len(server.workers()) == 1
        assert "Traceback" not in server.log.replace("Model() failed", "")


def test_what_is_unloaded_while_it_loads_leaves_nothing_behind(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 1, before="import time; time.sleep(60)")
    with serving(str(tmp_path / "m")) as server:
        before = descriptors(server)
        with ThreadPoolExecutor(1) as threads:
            loading = threads.submit(do, server, "load", "n", artifact=str(tmp_path / "n"))
            server.wait_until(lambda: "n" in _models(server) and states(server, "n") == {"1": "LOADING"})
            started = time.monotonic()
            assert do(server, "unload", "n") == ""
            assert "in the meantime" in loading.result()
            assert time.monotonic() - started < 5.0
        assert len(server.workers()) == 1
        assert descriptors(server) == before
        assert do(server, "unload", "n", version="1") != "", "it is gone already"
        assert states(server, "n") == {}


def _models(server: Server) -> list[str]:
    return [one["name"] for one in ask(server.port, {"do": "status"})["models"]]


def test_a_load_that_hangs_is_given_up_and_what_serves_goes_on(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m"), "--load-timeout", "3") as server:
        write_version(tmp_path / "m", 2, before="import time; time.sleep(60)")
        assert "within 3 s" in do(server, "load")
        assert (answer(server), states(server)) == (1, {"1": "READY", "2": "FAILED"})
        assert len(server.workers()) == 1


def test_several_versions_asked_for_at_once_are_all_served(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        write_version(tmp_path / "m", number)
    with serving(str(tmp_path / "m")) as server, ThreadPoolExecutor(3) as threads:
        assert set(threads.map(lambda v: do(server, "load", version=v), ("1", "2", "3"))) == {""}
        assert states(server) == dict.fromkeys(("1", "2", "3", "4"), "READY")
        for version in ("1", "2", "3", "4"):
            assert do(server, "unload", version=version) == ""
        assert server.is_ready(), "what was unloaded on purpose is not missing"
        assert "not served" in do(server, "unload", version="1")
        assert states(server) == {}, "and nothing came back for that"


def test_a_label_stays_where_it_was_moved_to_and_waits_for_nobody(tmp_path: Path) -> None:
    for number in (1, 2):
        write_version(tmp_path / "m", number)
    spec = tmp_path / "turnout.yaml"
    spec.write_text("models: [{name: m, artifact: m, versions: {latest: 2}, labels: {stable: 1}}]\n")
    with serving("--spec", str(spec)) as server:
        write_version(tmp_path / "m", 3, before="import time; time.sleep(2)")
        with ThreadPoolExecutor(1) as threads:
            loading = threads.submit(do, server, "load")
            server.wait_until(lambda: states(server).get("3") == "LOADING")
            started = time.monotonic()
            assert do(server, "label", label="stable", version="2") == ""
            assert time.monotonic() - started < 1.0
            assert loading.result() == ""
        assert answer(server, "stable") == 2


@pytest.mark.parametrize("place", ["worker", "inline"])
def test_one_of_two_that_fails_leaves_nothing_behind(tmp_path: Path, place: str) -> None:
    write_version(tmp_path / "m", 1)
    first = f"import os; os.close(os.open({str(tmp_path / 'first')!r}, os.O_CREAT | os.O_EXCL))"
    words = ["--replicas", "2"] if place == "worker" else ["--place", "inline", "--routers", "2"]
    with serving(str(tmp_path / "m"), *words, "--access-log", "off") as server:
        before, workers = descriptors(server), len(server.workers())
        write_version(tmp_path / "m", 2, before=first)
        with Asking(server) as asking:
            assert "FileExistsError" in do(server, "load")
        assert (asking.problems, set(asking.seen)) == ([], {1})
        assert states(server) == {"1": "READY", "2": "FAILED"}
        server.wait_until(lambda: descriptors(server) == before and len(server.workers()) == workers)
        assert b'turnout_model_ready{model="m",version="2"}' not in server.request("GET", "/metrics").body


def test_the_index_says_when_nobody_is_there_to_answer(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m")) as server:
        for _ in range(3):  # so that the next start waits for a moment
            _kill_worker(server)
        index = server.request("POST", "/v2/repository/index").json()
        ready = server.request("GET", "/v2/models/m/ready").status == 200
        assert (index[0]["state"] == "READY") == ready == server.is_ready() == False  # noqa: E712
        server.wait_until(server.is_ready)
        assert server.request("POST", "/v2/repository/index").json()[0]["state"] == "READY"


def _kill_worker(server: Server) -> None:
    server.wait_until(lambda: server.is_ready() and server.workers())
    worker = server.workers()[0]
    os.kill(worker, signal.SIGKILL)
    server.wait_until(lambda: not server.is_ready() or server.workers() not in ([], [worker]))


def test_a_repository_that_goes_away_and_comes_back_changes_nothing(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m"), "--watch", "0.05", "--access-log", "off") as server:
        worker = server.workers()
        with Asking(server) as asking:
            (tmp_path / "m").rename(tmp_path / "away")
            server.wait_until(lambda: "no file or directory" in status(server)["problem"])
            (tmp_path / "m").mkdir()
            server.wait_until(lambda: "empty" in status(server)["problem"])
            (tmp_path / "m").rmdir()
            (tmp_path / "away").rename(tmp_path / "m")
            server.wait_until(lambda: status(server)["problem"] == "")
        assert asking.problems == []
        assert (server.workers(), states(server)) == (worker, {"1": "READY"})
        assert "Traceback" not in server.log


def test_a_router_that_is_started_again_refuses_nobody_and_costs_the_others_nothing(tmp_path: Path) -> None:
    for number in (1, 2):
        write_version(tmp_path / "m", number)
    with serving(str(tmp_path / "m"), "--versions", "all", "--routers", "2", "--access-log", "off") as server:
        before = descriptors(server)
        for _ in range(2):
            victim = server.routers()[-1]
            os.kill(victim, signal.SIGKILL)
            refused = set()
            server.wait_until(lambda gone=victim: gone not in server.routers())
            for _ in range(20):  # half of them wait in the port of the one that is not there
                refused |= {version for version in ("1", "2") if answer(server, version) != int(version)}
            assert refused == set()
            server.wait_until(lambda: descriptors(server) == before, what="one link to each worker from each router")
        assert server.stop() == 0


def test_it_ends_at_once_while_it_still_looks_for_its_models(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1, before="import time; time.sleep(60)")
    write_version(tmp_path / "n", 1)
    with serving(str(tmp_path / "n")) as server:
        loading = threading.Thread(target=lambda: do(server, "load", "m", artifact=str(tmp_path / "m")))
        loading.start()
        server.wait_until(lambda: "m" in _models(server))
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5.0
        loading.join()
        assert "Traceback" not in server.log


def test_it_ends_at_once_while_a_registry_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mute.getsockname()[1]}"}
        log = tmp_path / "log"
        process = start(["models:/m@champion"], log, env=env)
        try:
            mute.settimeout(30.0)
            asked, _ = mute.accept()
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20.0) == 0
            assert time.monotonic() - started < 5.0
            asked.close()
        finally:
            end(process)
        assert "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("routers", ["1", "2"])
def test_a_storm_of_changes_loses_no_request_and_leaves_nothing_behind(tmp_path: Path, routers: str) -> None:
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 1)
    models = (str(tmp_path / "m"), f"n={tmp_path / 'n'}")
    words = ("--access-log", "off", "--model-control", "--watch", "0.2", "--routers", routers)
    with serving(*models, *words) as server:
        before = sum(descriptors(server).values())
        until = time.monotonic() + 10.0

        def storm(seed: int) -> None:
            chance = random.Random(seed)
            while time.monotonic() < until:
                _change(server, tmp_path / "m", chance)

        with Asking(server) as asking, ThreadPoolExecutor(4) as threads:
            list(threads.map(storm, range(4)))
        assert asking.problems == []
        assert do(server, "load", "n") == ""
        server.wait_until(lambda: set(states(server).values()) == {"READY"}, what="all is settled")
        server.wait_until(lambda: len(server.workers()) == 2)
        server.wait_until(lambda: sum(descriptors(server).values()) <= before + 2 * int(routers))
        assert server.stop() == 0
        assert "Traceback" not in server.log


def _change(server: Server, model: Path, chance: random.Random) -> Any:
    number = chance.randrange(1, 5)
    match chance.randrange(7):
        case 0:
            try:
                write_version(model, number, says=chance.randrange(1, 5))
            except OSError:
                return None  # another thread does the same
        case 1 if number > 1:
            shutil.rmtree(model / str(number), ignore_errors=True)
        case 2:
            return do(server, "label", label="stable", version=str(number))
        case 3:
            return do(server, "load")
        case 4:
            return do(server, chance.choice(("load", "unload")), "n")
        case 5:
            return server.request("POST", f"/v2/repository/models/n/{chance.choice(('load', 'unload'))}")
        case _:
            return server.request("POST", "/v2/repository/index")
    return None
