"""The servers that are compared: how each is started, which form of request it takes, what was set for it and why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cells import Cell
from benchmarks.environments import prepare, python_of
from benchmarks.forest import COMPILED, FOREST, PICKLE, write_forest, write_mlserver_forest
from benchmarks.models import MODELS
from benchmarks.places import MODEL_FILES, ROOT, SERVERS, WORK


@dataclass(frozen=True)
class Start:
    """What a peer needs to know to start: its ports, and the one model it serves where it serves only one."""

    port: int
    grpc_port: int
    model: str | None


@dataclass(frozen=True)
class Peer:
    """One server. `forms` says how a cell's kind is asked for (see `requests.FORMS`); a missing kind is not measured.

    `one_model`: it is started once for each model. `only`: the cells that say something about it, all by default.
    `models`: those it serves.
    """

    name: str
    title: str
    command: Callable[[Start], list[str]]
    forms: Mapping[str, str]
    environment: str | None = None
    one_model: bool = False
    only: tuple[str, ...] = ()
    overload: bool = True
    note: str = ""
    models: tuple[str, ...] = tuple(MODELS)
    variables: Mapping[str, str] = field(default_factory=dict)

    def takes(self, cell: Cell) -> bool:
        """Whether the cell is measured with this server."""
        return cell.model in self.models and cell.kind in self.forms and (not self.only or cell.name in self.only)

    def prepare(self) -> None:
        """Makes what the server needs before its first start."""
        if self.environment:
            prepare(self.environment)
        if self.name == "mlflow":
            _save_mlflow_models()
        if self.name == "triton":
            _write_triton_repository()
        if self.name == "mlserver":
            _write_mlserver_settings()
        if FOREST in self.models:
            write_forest()


V2 = {"json": "v2", "binary": "v2-binary"}
GRPC = {"grpc": "grpc"}


def _turnout(*extra: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        names = [start.model] if start.model else list(MODELS)
        served = [f"{name}={MODEL_FILES / name}.onnx" for name in names]
        program = str(ROOT / ".venv" / "bin" / "turnout")
        return [program, "serve", *served, "--port", str(start.port), "--grpc-port", str(start.grpc_port), *extra]

    return command


def _python(environment: str, *arguments: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        words = {"PORT": str(start.port), "GRPC_PORT": str(start.grpc_port), "MODEL": start.model or ""}
        return [str(python_of(environment)), *(words.get(argument, argument) for argument in arguments)]

    return command


def _script(environment: str, file: str, *arguments: str) -> Callable[[Start], list[str]]:
    return _python(environment, str(SERVERS / file), *arguments)


def _granian(start: Start) -> list[str]:
    program = str(python_of("fastapi").parent / "granian")
    options = ["--interface", "rsgi", "--workers", "1", "--runtime-mode", "st", "--loop", "uvloop", "--no-ws",
               "--http", "1", "--no-access-log", "--log-level", "warning", "--backlog", "16384"]  # fmt: skip
    return [program, *options, "--host", "127.0.0.1", "--port", str(start.port), "granian_app:app"]


def _bentoml(start: Start) -> list[str]:
    program = str(python_of("bentoml").parent / "bentoml")
    return [program, "serve", "bentoml_service:Onnx", "--host", "127.0.0.1", "--port", str(start.port), "-q"]


def _mlflow(start: Start) -> list[str]:
    program = str(python_of("mlflow").parent / "mlflow")
    model = str(WORK / "mlflow" / str(start.model))
    return [program, "models", "serve", "-m", model, "-p", str(start.port), "--workers", "1", "--env-manager", "local"]


def _save_mlflow_models() -> None:
    for name in MODELS:
        directory = WORK / "mlflow" / name
        if not directory.exists():
            script = [str(python_of("mlflow")), str(SERVERS / "mlflow_model.py"), name, str(directory)]
            subprocess.run(script, check=True, capture_output=True, env=environment_variables({}))


def _mlserver(start: Start) -> list[str]:
    return [str(python_of("mlserver").parent / "mlserver"), "start", str(WORK / "mlserver")]


def _write_mlserver_settings() -> None:
    for name in MODELS:
        directory = WORK / "mlserver" / name
        directory.mkdir(parents=True, exist_ok=True)
        text = f'{{"name": "{name}", "implementation": "mlserver_runtime.OnnxModel"}}'
        (directory / "model-settings.json").write_text(text)


TRITON_CONFIG = """backend: "python"
max_batch_size: 2048
input [{ name: "x" data_type: TYPE_FP32 dims: [%d] }]
output [{ name: "probabilities" data_type: TYPE_FP32 dims: [%d] }]
dynamic_batching { max_queue_delay_microseconds: 0 }
instance_group [{ kind: KIND_CPU count: 1 }]
"""


def _write_triton_repository() -> None:
    for name, (features, classes) in {"tiny": (4, 3), "mlp": (784, 10), "heavy": (784, 10)}.items():
        directory = WORK / "triton" / name
        (directory / "1").mkdir(parents=True, exist_ok=True)
        (directory / "config.pbtxt").write_text(TRITON_CONFIG % (features, classes))
        shutil.copy(SERVERS / "triton_model.py", directory / "1" / "model.py")
    home = _triton_home()
    stub = "triton_python_backend_stub"
    shutil.copy(home / "python_backend_stubs" / _python_version() / stub, home / "backends" / "python" / stub)


def _python_version() -> str:
    return sysconfig.get_python_version()


def _triton_home() -> Path:
    packages = python_of("triton").parent.parent / "lib" / f"python{_python_version()}" / "site-packages"
    return packages / "pytriton" / "tritonserver"


def _triton(start: Start) -> list[str]:
    home = _triton_home()
    addresses = [f"--{door}-address=127.0.0.1" for door in ("http", "grpc")]
    return [
        str(home / "bin" / "tritonserver"), f"--model-repository={WORK / 'triton'}",
        f"--backend-directory={home / 'backends'}", *addresses, f"--http-port={start.port}",
        f"--grpc-port={start.grpc_port}", "--allow-metrics=false", "--http-thread-count=2", "--log-verbose=0",
    ]  # fmt: skip


def _turnout_forest(artifact: Path) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        program = str(ROOT / ".venv" / "bin" / "turnout")
        doors = ["--port", str(start.port), "--grpc-port", str(start.grpc_port)]
        return [program, "serve", f"{FOREST}={artifact}", "--trust-pickle", *doors]

    return command


def _mlserver_forest(start: Start) -> list[str]:
    directory = WORK / "mlserver-forest"
    write_mlserver_forest(directory, start.port, start.grpc_port)
    return [str(python_of("mlserver-forest").parent / "mlserver"), "start", str(directory)]


def _nginx(start: Start) -> list[str]:
    text = (SERVERS / "nginx.conf").read_text().replace("@PORT@", str(start.port)).replace("@WORK@", str(WORK))
    config = WORK / f"nginx-{start.port}.conf"
    config.write_text(text)
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(config), "-e", str(WORK / "nginx-error.log")]


def environment_variables(more: Mapping[str, str], environment: str | None = None) -> dict[str, str]:
    """What a server finds in its environment: its own virtual environment's programs first, nothing of ours."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "USER") if key in os.environ}
    if environment:
        kept["PATH"] = f"{python_of(environment).parent}:{kept['PATH']}"
    return {**kept, "BENCHMARK_MODELS": str(MODEL_FILES), "PYTHONPATH": str(SERVERS), "NO_COLOR": "1", **more}


def _triton_variables() -> dict[str, str]:
    venv = python_of("triton").parent.parent
    libraries = sysconfig.get_config_var("LIBDIR") or ""
    return {"LD_LIBRARY_PATH": libraries, "VIRTUAL_ENV": str(venv)}


PEERS: tuple[Peer, ...] = (
    Peer("turnout", "Turnout", _turnout(), V2 | GRPC, note="as it comes: the model in a worker process"),
    Peer(
        "turnout-inline", "Turnout, place: inline", _turnout("--place", "inline"), V2 | GRPC, overload=False,
        note="the model in the router's process",
    ),
    Peer(
        "fastapi", "FastAPI + uvicorn", _script("fastapi", "fastapi_app.py", "PORT"), V2, "fastapi",
        note="hand-written, model inline, orjson, uvloop, httptools",
    ),
    Peer("granian", "Granian (RSGI)", _granian, V2, "fastapi", note="hand-written, model inline, orjson, uvloop"),
    Peer(
        "grpcio", "grpcio.aio", _script("fastapi", "grpcio_aio.py", "GRPC_PORT"), GRPC, "fastapi",
        note="hand-written, model inline, uvloop, protobuf's C parser",
    ),
    Peer(
        "triton", "Triton, python back end", _triton, V2 | GRPC, "triton",
        note="dynamic batching without delay; the models in its stub processes",
        variables=_triton_variables(),
    ),
    Peer(
        "mlserver", "MLServer", _mlserver, {"json": "v2", "binary": "v2", "grpc": "grpc"}, "mlserver",
        note="no parallel workers (faster here); REST has no binary tensors: JSON",
    ),
    Peer(
        "kserve", "KServe", _script("kserve", "kserve_server.py", "PORT", "GRPC_PORT"), V2 | GRPC, "kserve",
        note="its Python model server, uvloop",
    ),
    Peer(
        "bentoml", "BentoML", _bentoml, {"json": "bentoml", "binary": "bentoml"}, "bentoml",
        note="adaptive batching on; no binary tensors: JSON", variables={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Peer(
        "litserve", "LitServe", _script("litserve", "litserve_server.py", "PORT", "MODEL", "64"),
        {"json": "litserve", "binary": "litserve"}, "litserve", one_model=True,
        note="batching on (64, no delay); no binary tensors: JSON",
    ),
    Peer(
        "mlflow", "mlflow models serve", _mlflow, {"json": "mlflow", "binary": "mlflow"}, "mlflow", one_model=True,
        note="no binary tensors: JSON",
    ),
    Peer(
        "nginx", "nginx, fixed answer", _nginx, {"json": "fixed"}, overload=False,
        only=("tiny-json-1", "tiny-json-8", "tiny-json-64"), note="limit: an HTTP server in C without a model",
    ),
    Peer(
        "uvloop", "uvloop, fixed answer", _script("fastapi", "uvloop_echo.py", "PORT"), {"json": "fixed"}, "fastapi",
        overload=False, only=("tiny-json-1", "tiny-json-8", "tiny-json-64"),
        note="limit: a bare asyncio protocol on uvloop that parses nothing",
    ),
    Peer(
        "turnout-compiled", "Turnout, compiled", _turnout_forest(COMPILED), {"json": "forest"}, one_model=True,
        overload=False, models=(FOREST,), note="what `turnout compile` made of the pickle: all answers equal",
    ),
    Peer(
        "turnout-pickle", "Turnout, the pickle", _turnout_forest(PICKLE), {"json": "forest"}, one_model=True,
        overload=False, models=(FOREST,), note="the pickle as it is, its price shared by the rows of a batch",
    ),
    Peer(
        "mlserver-forest", "MLServer, the pickle", _mlserver_forest, {"json": "forest-mlserver"}, "mlserver-forest",
        one_model=True, overload=False, models=(FOREST,), note="its own scikit-learn runtime; no parallel workers",
    ),
)  # fmt: skip
IN_PROCESS = "in-process"


def choose(names: list[str] | None) -> list[Peer]:
    """The servers asked for, by default all."""
    known = {peer.name: peer for peer in PEERS}
    unknown = set(names or ()) - set(known) - {IN_PROCESS}
    if unknown:
        raise SystemExit(f"unknown servers: {', '.join(sorted(unknown))}; there are {', '.join(known)}, {IN_PROCESS}")
    return [peer for peer in PEERS if not names or peer.name in names]
