"""Versions come, go, return and fail while a real server serves them."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc
import tritonclient.http

from tests.versions.repository import Asking, answer, states, status, turnout, write_version
from turnout.testing.server import serving


def test_a_newer_version_takes_over_without_a_lost_request(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m"), "--watch", "0.1", "--access-log", "off") as server:
        assert answer(server) == 1
        with Asking(server) as asking:
            write_version(tmp_path / "m", 2, floats=1 << 20)
            server.wait_until(lambda: states(server) == {"2": "READY"}, what="version 2 alone")
            server.wait_until(lambda: asking.seen[-1] == 2)
        assert asking.problems == []
        assert set(asking.seen) == {1, 2}
        assert all(seen == sorted(seen) for seen in asking.each), "from one to the other, and never back"
        assert "m@1 is unloaded" in server.log
        assert "MiB given back" in server.log
        assert len(server.workers()) == 1


def test_new_content_under_the_same_number_is_a_new_generation(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m")) as server:
        before = status(server)["versions"][0]
        write_version(tmp_path / "m", 1, says=11)
        assert answer(server) == 1, "nobody looks unless told"
        with Asking(server) as asking:
            assert turnout(server, "load", "m") == (0, "m: serves 1; 1 by default\n")
        assert asking.problems == []
        assert answer(server) == 11
        after = status(server)["versions"][0]
        assert (before["generation"], after["generation"]) == (1, 2)
        assert before["digest"].startswith("sha256:")
        assert before["digest"] != after["digest"]


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m")) as server:
        write_version(tmp_path / "m", 2, before="raise ValueError('no weights')")
        code, text = turnout(server, "load", "m")
        assert code == 1
        assert "failed to load 'm'" in text
        assert "no weights" in text
        assert answer(server) == 1
        assert states(server) == {"1": "READY", "2": "FAILED"}
        assert "no weights" in turnout(server, "status")[1]
        write_version(tmp_path / "m", 2)
        assert turnout(server, "load", "m")[0] == 0
        assert (answer(server), states(server)) == (2, {"2": "READY"})


def test_labels_move_only_to_what_is_loaded(tmp_path: Path) -> None:
    for number in (1, 2):
        write_version(tmp_path / "m", number)
    spec = tmp_path / "turnout.yaml"
    spec.write_text(
        "models: [{name: m, artifact: m, versions: {latest: 2}, labels: {stable: 1, canary: 2, next: 7}}]\n"
    )
    with serving("--spec", str(spec)) as server:
        waiting = "m: the label next is for version 7, which is not loaded"
        assert waiting in server.log
        assert waiting in turnout(server, "status", "m")[1]
        assert [answer(server, label) for label in ("stable", "canary")] == [1, 2]
        v1 = server.request("POST", "/v1/models/m/labels/stable:predict", {"instances": [[0.0]]})
        assert (v1.status, v1.json()) == (200, {"predictions": [1]})
        assert server.request("GET", "/v1/models/m/labels/stable").json()["model_version_status"][0]["version"] == "1"
        code, text = turnout(server, "label", "m", "stable=3")
        assert (code, "only moved to a version that is loaded" in text) == (1, True)
        assert turnout(server, "label", "m", "stable=2") == (0, "m: canary=2, next=7, stable=2\n")
        assert answer(server, "stable") == 2
        assert turnout(server, "label", "m", "stable")[0] == 0
        assert server.request("GET", "/v2/models/m/versions/stable").status == 404
        assert "canary" in turnout(server, "versions", "m")[1]


def test_a_kept_version_returns_at_once_and_gives_its_memory_back_in_the_end(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m"), "--keep", "1", "--watch", "0.1") as server:
        worker = server.workers()
        write_version(tmp_path / "m", 2)
        server.wait_until(lambda: states(server) == {"1": "KEPT", "2": "READY"})
        assert server.request("GET", "/v2/models/m/versions/1").status == 404, "kept is not shown"
        shutil.rmtree(tmp_path / "m" / "2")
        server.wait_until(lambda: states(server) == {"1": "READY", "2": "KEPT"})
        assert answer(server) == 1
        assert worker[0] in server.workers(), "the very process that was kept"


def test_with_swap_resources_the_old_goes_before_the_new_comes(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m"), "--swap", "resources") as server:
        write_version(tmp_path / "m", 2)
        assert turnout(server, "load", "m")[0] == 0
        assert answer(server) == 2
        gone, ready = server.log.index("m@1 is unloaded"), server.log.index("m@2 is ready")
        assert gone < ready


def test_a_change_is_only_planned_where_the_spec_says_so(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path / "m"), "--watch", "0.1", "--on-change", "plan") as server:
        assert turnout(server, "apply", "m") == (0, "m: nothing was planned\n")
        write_version(tmp_path / "m", 2)
        server.wait_until(lambda: status(server)["watch"]["pending"] == ["2"])
        assert answer(server) == 1
        assert "turnout apply m" in turnout(server, "status")[1]
        assert turnout(server, "apply", "m") == (0, "m: serves 2\n")
        assert answer(server) == 2


def test_callers_load_and_unload_only_where_they_are_allowed_to(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    with serving(str(tmp_path)) as server:
        refused = server.request("POST", "/v2/repository/models/m/unload")
        assert (refused.status, "--model-control" in refused.json()["error"]) == (501, True)
        with pytest.raises(tritonclient.grpc.InferenceServerException, match="failed to load 'm'"):
            grpc_client(server.grpc_port).load_model("m")


def grpc_client(port: int) -> tritonclient.grpc.InferenceServerClient:
    return tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}")


def test_the_repository_api_as_its_clients_use_it(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 1)
    with serving(str(tmp_path), "--model-control") as server, grpc_client(server.grpc_port) as grpc:
        http = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}")
        ready = {"name": "m", "version": "1", "state": "READY"}
        assert ready in http.get_model_repository_index()
        http.unload_model("m")
        assert (http.is_model_ready("m"), http.is_model_ready("n")) == (False, True)
        gone = next(one for one in http.get_model_repository_index() if one["name"] == "m")
        assert (gone["state"], gone["reason"].startswith("unloaded")) == ("UNAVAILABLE", True)
        assert server.request("GET", "/v2/models/m").status == 404
        assert server.is_ready(), "what was unloaded on purpose is not missing"
        with pytest.raises(tritonclient.http.InferenceServerException, match="failed to load 'x'"):
            http.load_model("x")
        for name in ("m", "evil"):
            body = {"parameters": {"artifact": "os:system"}}
            refused = server.request("POST", f"/v2/repository/models/{name}/load", body)
            assert (refused.status, "parameters.artifact" in refused.json()["error"]) == (400, True)
        grpc.load_model("m")
        assert grpc.is_model_ready("m")
        assert answer(server) == 1
        grpc.unload_model("m")
        index = {one.name: one.state for one in grpc.get_model_repository_index().models}
        assert index == {"m": "UNAVAILABLE", "n": "READY"}
        http.close()


def test_a_new_model_is_loaded_beside_those_that_serve(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 7)
    with serving(f"m={tmp_path / 'm'}") as server:
        assert turnout(server, "load", "n")[0] == 1
        assert turnout(server, "load", f"n={tmp_path / 'n'}") == (0, "n: serves 7; 7 by default\n")
        assert (answer(server), answer(server, name="n")) == (1, 7)
        code, text = turnout(server, "unload", "n")
        assert (code, text.startswith("n@7: unloaded; ")) == (0, True)
        assert turnout(server, "unload", "nobody")[0] == 1


def test_a_directory_of_models_with_one_that_is_broken(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 1, before="raise RuntimeError('broken')")
    with pytest.raises(RuntimeError, match=r"n: .*broken"), serving(str(tmp_path)):
        pass
    with serving(str(tmp_path), "--keep-going") as server:
        assert answer(server) == 1
        assert states(server, "n") == {"1": "FAILED"}
        assert not server.is_ready()


def test_no_server_runs_there() -> None:
    from turnout.entrypoints import cli

    assert cli.main(["status", "--url", "http://127.0.0.1:1"]) == 1


@pytest.mark.slow
def test_a_hundred_cycles_leave_the_server_where_it_began(tmp_path: Path) -> None:
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 1, floats=1 << 22)

    def resident(pid: int) -> int:
        pages = int((Path("/proc") / str(pid) / "statm").read_text().split()[1])
        return pages * 4096

    with serving(str(tmp_path), "--model-control", "--access-log", "off") as server:
        client = server.client()

        def cycle() -> None:
            for verb in ("unload", "load"):
                got = client.request("POST", f"/v2/repository/models/n/{verb}")
                assert got.status == 200, got.body
            assert answer(server, name="n") == 1

        for _ in range(5):
            cycle()
        pids = [server.controller, *server.routers()]
        before = sum(map(resident, pids))
        for _ in range(100):
            cycle()
        grown = (sum(map(resident, pids)) - before) / 2**20
        print(f"\n100 load/unload cycles: {grown:+.2f} MiB")
        assert grown < 20
        assert len(server.workers()) == 2
        client.close()


_FICKLE = """
import os
import time
import numpy as np
from turnout.core.signature import Signature, TensorSpec

class Model:
    def __init__(self):
        try:
            os.close(os.open(os.path.join(os.path.dirname(__file__), "first"), os.O_CREAT | os.O_EXCL))
            names = ["low", "high"]
        except FileExistsError:
            names = ["high", "low"]
        outputs = tuple(TensorSpec(name, "FP64", (-1,)) for name in names)
        self.signature = Signature((TensorSpec("x", "FP64", (-1, 1)),), outputs)

    def predict(self, inputs):
        rows = inputs["x"][:, 0]
        time.sleep(0.01)  # so that the others get some
        return {"low": rows - 1, "high": rows + 1}
"""


def test_workers_may_find_their_outputs_in_different_orders(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(_FICKLE)
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [5.0]}]}
    with serving(f"m={tmp_path / 'model.py'}", "--replicas", "4", "--access-log", "off") as server:
        server.wait_until(lambda: len(server.workers()) == 4)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: server.request("POST", "/v2/models/m/infer", body), range(80)))
        for got in answers:
            outputs = {one["name"]: one["data"] for one in got.json()["outputs"]}
            assert outputs == {"low": [4.0], "high": [6.0]}
        assert "another signature" not in server.log
