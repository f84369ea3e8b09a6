"""A real MLflow server on this machine: its database in a directory, its artifacts on the S3 server."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.clients.environments import environment

#: 3.18.0 cannot be installed: it asks for a package that was never published.
PACKAGES = ("mlflow[auth]==3.17.2", "scikit-learn==1.9.1", "boto3")
#: Whom the server's own login application knows from the start.
USER, PASSWORD = "admin", "a secret of the tests"
SCRIPTS = Path(__file__).parent / "scripts"
READY_SECONDS = 240.0  # it imports much, and a machine may be busy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """Started by `with`, which does not wait for it. `register` runs MLflow's own client.

    arguments: what `mlflow server` gets besides its address and its database. login: whether one has to log in.
    """

    def __init__(
        self, directory: Path, variables: Mapping[str, str], arguments: tuple[str, ...], *, login: bool = False
    ) -> None:
        self.directory = directory
        self.python = environment("mlflow-server", PACKAGES)
        self.port = free_port()
        self.arguments = ("--app-name", "basic-auth", *arguments) if login else arguments
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))},
            **variables,
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
            "MLFLOW_AUTH_CONFIG_PATH": str(directory / "auth.ini"),
            "GIT_PYTHON_REFRESH": "quiet",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it (anew, with what it knew before) and waits until it answers."""
        self.begin()
        self.wait()

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._process is not None

    def begin(self) -> None:
        """Starts it."""
        login = [
            "[mlflow]",
            "default_permission = NO_PERMISSIONS",
            f"database_uri = sqlite:///{self.directory / 'auth.db'}",
        ]
        login += [f"admin_username = {USER}", f"admin_password = {PASSWORD}"]
        login += ["authorization_function = mlflow.server.auth:authenticate_request_basic_auth"]
        (self.directory / "auth.ini").write_text("\n".join(login) + "\n")
        database = f"sqlite:///{self.directory / 'mlflow.db'}"
        command = [str(self.python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", database, "--workers", "1"]
        command += self.arguments
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                env=self.variables, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Waits until it answers."""
        assert self._process
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass  # not yet
            finally:
                connection.close()
            time.sleep(0.1)
        text = (self.directory / "server.log").read_text(errors="replace")
        self.stop()
        raise RuntimeError(f"MLflow did not start: {text[-3000:]}")

    def stop(self) -> None:
        """Ends it and its children at once, as a machine that loses power does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def register(self, wanted: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """What `scripts/register_models.py` has done, with MLflow's own client."""
        done = subprocess.run(
            [self.python, SCRIPTS / "register_models.py", json.dumps(wanted)],
            capture_output=True, text=True, timeout=400, check=False, env=self.variables, cwd=self.directory,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return found

    def call(self, method: str, path: str, **body: object) -> Any:
        """One request to the REST API, for what is quicker so than by a process."""
        who = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        fields = {"Content-Type": "application/json", "Authorization": f"Basic {who}"}
        url = f"{self.address}/api/2.0/mlflow/{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), fields, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")
