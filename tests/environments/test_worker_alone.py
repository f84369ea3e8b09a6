"""A worker in an environment of its own finds Turnout and nothing else of the server's, and serves over the wire."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnout
from tests.runtime.places import Closing
from turnout.core.errors import EnvironmentFailed
from turnout.core.signature import Signature
from turnout.deploy.environments.environment import Environment, Requirements
from turnout.deploy.environments.store import Environments
from turnout.deploy.environments.worker_path import worker_path
from turnout.deploy.version import VersionSpec
from turnout.runtime.replica import Done, Lost, Place, Replica
from turnout.runtime.wire import Wire, pair
from turnout.testing.places import Bench

MODEL = """
import numpy as np
import sys

class Model:
    example = {"x": np.array([1.0])}

    def predict(self, inputs):
        rows = len(inputs["x"])
        said = {"numpy": np.array([np.__version__] * rows), "prefix": np.array([sys.prefix] * rows)}
        return {"double": inputs["x"] * 2, **said}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_directory_for_workers_holds_this_package_and_no_other(home: Path) -> None:
    folder = worker_path()
    assert worker_path() == folder
    assert folder.is_relative_to(home)
    assert [entry.name for entry in folder.iterdir()] == ["turnout"]
    assert (folder / "turnout").resolve() == Path(turnout.__file__).resolve().parent


def test_a_link_that_points_elsewhere_is_set_right() -> None:
    link = worker_path() / "turnout"
    link.unlink()
    link.symlink_to("/nowhere")
    assert (worker_path() / "turnout").resolve() == Path(turnout.__file__).resolve().parent


def test_a_home_that_cannot_be_written_says_which_variable_helps(home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(EnvironmentFailed, match="say with TURNOUT_HOME"):
        worker_path()


def test_only_turnout_comes_along(environments: Environments) -> None:
    """The server's own packages are not to be seen from there."""
    python = environments.ensure(Requirements(("numpy<2",))).python
    script = (
        "import importlib.util as u, numpy, turnout; print(numpy.__version__, turnout.__version__, "
        "[n for n in ('orjson', 'uvloop', 'yaml', 'pytest', 'google') if u.find_spec(n)])"
    )
    found = {**os.environ, "PYTHONPATH": str(worker_path())}
    ended = subprocess.run([python, "-c", script], env=found, capture_output=True, text=True, check=True)
    assert ended.stdout == f"1.23.5 {turnout.__version__} []\n"


@pytest.mark.formats
@pytest.mark.parametrize(("wanted", "version"), [("numpy==1.23.5", "1.23.5"), ("numpy>=2", "2.")])
def test_a_worker_with_nothing_but_numpy_serves_over_the_wire(wanted: str, version: str, tmp_path: Path) -> None:
    """From the host's own index: real numpy, an old one and a new one, each in its environment."""
    built = Environments(tmp_path / "environments").ensure(Requirements((wanted,)))
    assert list(built.packages) == ["numpy"]
    (tmp_path / "model.py").write_text(MODEL)

    async def ask() -> dict[str, list[Any]]:
        async with Bench(in_environment(built, tmp_path / "model.py"), object) as bench:
            outcome = await bench.run({"x": np.array([1.0, 2.5])}, {"x": np.array([4.0])})
            assert not any(outcome.failures), outcome.failures
            return {name: array.tolist() for name, array in outcome.outputs.items()}

    answer = asyncio.run(ask())
    assert answer["double"] == [2.0, 5.0, 8.0]
    assert answer["numpy"][0].decode().startswith(version)
    assert answer["prefix"][0].decode() == str(built.path)


def in_environment(built: Environment, model: Path) -> Callable[[Any, Done, Lost], Awaitable[Place]]:
    """A place as the router has it, whose worker runs in that environment."""

    async def make(_: Any, done: Done, lost: Lost) -> Place:
        ours, theirs = pair()
        command = [str(built.python), "-m", "turnout.entrypoints.worker", str(theirs.fileno())]
        found = {**os.environ, "PYTHONPATH": str(worker_path())}
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=found, cwd=built.path)  # noqa: ASYNC220
        theirs.close()
        wire = Wire(ours)
        wire.send({"op": "load", "spec": VersionSpec("trial", str(model)).to_json()})
        ready, _ = await asyncio.to_thread(wire.receive)
        assert ready["event"] == "ready", ready
        near, far = pair()
        wire.send({"op": "link"}, [far.fileno()])
        far.close()
        place = Replica("process", Signature.from_json(ready["signature"]), near, done, lost)
        return Closing(place, wire, process.wait, process)

    return make
