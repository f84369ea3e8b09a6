"""Starts each server of the battery on free loopback ports, waits for it, and ends it for sure.

The oracles live in environments of their own under `.venvs/`, because their libraries cannot share a process:
several of them register the same protobuf package. `ensure_environment` builds them from `environments/`.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .models.build import build_mlserver, build_triton, build_turnout
from .models.catalog import CATALOG

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(__file__).parent / "environments"
MODELS = Path(__file__).parent / "models"
START_SECONDS = 90.0


class Running(NamedTuple):
    """A server that answers: its ports on 127.0.0.1 (gRPC is 0 where it has none)."""

    name: str
    http_port: int
    grpc_port: int
    log: Path


class Command(NamedTuple):
    """How a server is started, and the path that answers 200 once every model is ready."""

    argv: list[str]
    environment: dict[str, str]
    ready_path: str
    cwd: Path


class ServerDidNotStart(RuntimeError):
    """The process ended or was not ready in time; the text has the end of its log."""


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ensure_environment(name: str) -> Path:
    """The oracle's own virtual environment, with every library at the version it was recorded with."""
    place = ROOT / ".venvs" / f"oracle-{name}"
    pinned = ENVIRONMENTS / f"{name}.txt"
    stamp = place / "pinned.txt"
    if stamp.exists() and stamp.read_text() == pinned.read_text():
        return place
    uv = Path(sys.executable).with_name("uv")
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, place], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "-r", pinned], check=True)
    stamp.write_text(pinned.read_text())
    return place


@contextlib.contextmanager
def serve(name: str, work: Path) -> Iterator[Running]:
    """Runs the server until the block ends. `work` is an empty directory for its models and its log."""
    http_port, grpc_port = free_port(), free_port()
    command = _COMMANDS[name](work, http_port, grpc_port)
    log = work / f"{name}.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLSERVER_", "MLFLOW_", "AIP_"))}
    environment |= {"ORACLE_MODELS": str(MODELS), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"} | command.environment
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command.argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=environment,
            cwd=command.cwd, start_new_session=True, preexec_fn=_die_with_parent,  # noqa: PLW1509  no threads yet
        )  # fmt: skip
    try:
        _await_ready(process, http_port, command.ready_path, log)
        yield Running(name, http_port, 0 if name == "mlflow" else grpc_port, log)
    finally:
        _end(process)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _await_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit:
        if process.poll() is not None:
            break
        if _answers(port, path):
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-3000:]
    raise ServerDidNotStart(f"{process.args!r} is not ready (exit code {process.poll()}):\n{tail}")


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the whole process group to end, and kills what is left of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(8.0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(8.0)


def _triton(work: Path, http_port: int, grpc_port: int) -> Command:
    place = ensure_environment("triton")
    home = next(place.glob("lib/python3*/site-packages/pytriton/tritonserver"))
    backends = home / "backends"
    stub = backends / "python" / "triton_python_backend_stub"
    if not stub.exists():
        minor = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(home / "python_backend_stubs" / minor / stub.name, stub)
    argv = [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={build_triton(work / 'models')}",
        f"--backend-directory={backends}",
        *(f"--{door}-address=127.0.0.1" for door in ("http", "grpc", "metrics")),
        f"--http-port={http_port}", f"--grpc-port={grpc_port}", f"--metrics-port={free_port()}",
        "--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false",
        "--grpc-infer-allocation-pool-size=1", "--http-thread-count=2", "--allow-cpu-metrics=false",
    ]  # fmt: skip
    environment = {
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),  # else the stub finds the system's libpython
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(place),
    }
    return Command(argv, environment, "/v2/health/ready", work)


def _mlserver(work: Path, http_port: int, grpc_port: int) -> Command:
    place = ensure_environment("mlserver")
    environment = {
        "PYTHONPATH": str(MODELS),
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(http_port),
        "MLSERVER_GRPC_PORT": str(grpc_port),
        "MLSERVER_METRICS_PORT": str(free_port()),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_DEBUG": "false",
    }
    root = build_mlserver(work / "models")
    return Command([str(place / "bin" / "mlserver"), "start", str(root)], environment, "/v2/health/ready", root)


def _kserve(work: Path, http_port: int, grpc_port: int) -> Command:
    place = ensure_environment("kserve")
    argv = [
        str(place / "bin" / "python"), str(MODELS / "kserve_server.py"),
        f"--http_port={http_port}", f"--grpc_port={grpc_port}",
    ]  # fmt: skip
    return Command(argv, {}, "/v2/health/ready", work)


def _mlflow(work: Path, http_port: int, _grpc_port: int) -> Command:
    place = ensure_environment("mlflow")
    environment = {"ORACLE_MODELS": str(MODELS), "MLFLOW_TRACKING_URI": f"sqlite:///{work / 'mlflow.db'}"}
    saved = work / "model"
    subprocess.run(
        [place / "bin" / "python", MODELS / "mlflow_model.py", saved],
        check=True, cwd=work, env=os.environ | environment, capture_output=True,
    )  # fmt: skip
    argv = [
        str(place / "bin" / "uvicorn"), "mlflow.pyfunc.scoring_server.app:app",
        "--host", "127.0.0.1", "--port", str(http_port),
    ]  # fmt: skip
    return Command(argv, environment | {"__pyfunc_model_path__": str(saved)}, "/ping", work)


def _turnout(work: Path, http_port: int, grpc_port: int, only: str = "") -> Command:
    specs = build_turnout(work / "models")
    argv = [
        str(Path(sys.executable).with_name("turnout")), "serve",
        *(f"{entry.name}={specs[entry.name]}" for entry in CATALOG if only in ("", entry.name)),
        "--port", str(http_port), "--grpc-port", str(grpc_port),
    ]  # fmt: skip
    return Command(argv, {}, "/v2/health/ready", work)


def _turnout_linear(work: Path, http_port: int, grpc_port: int) -> Command:
    return _turnout(work, http_port, grpc_port, only="linear")


_COMMANDS = {
    "triton": _triton,
    "mlserver": _mlserver,
    "kserve": _kserve,
    "mlflow": _mlflow,
    "turnout": _turnout,
    "turnout-linear": _turnout_linear,  # MLflow's /invocations names no model, so there is one
}
