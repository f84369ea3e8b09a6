"""A real MLflow server, one with its login besides, artifacts on a real S3 server, and what is registered there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_server import MlflowServer
from s3_server import S3Server

from turnout.deploy.sources.source import SourceSettings


@dataclass
class Place:
    """The servers, and what was registered: `iris` in two versions, `direct` and `shared` in one."""

    server: MlflowServer
    guarded: MlflowServer
    s3: S3Server
    made: list[dict[str, Any]]
    directory: Path

    def settings(self, **options: str) -> SourceSettings:
        options = {"tracking_uri": self.server.address, **options}
        return SourceSettings(attempts=3, timeout=60.0, retry_wait=0.02, options={"mlflow": options})

    def alias(self, name: str, version: str, model: str = "iris") -> None:
        self.server.call("POST", "registered-models/alias", name=model, alias=name, version=version)

    def register(self, name: str, **version: str) -> None:
        self.server.call("POST", "registered-models/create", name=name)
        self.server.call("POST", "model-versions/create", name=name, **version)


@contextmanager
def mlflow_place(s3_server: S3Server, directory: Path, other: Path, shared: Path) -> Iterator[Place]:
    """Starts both servers and registers."""
    variables = {**s3_server.environment, "MLFLOW_S3_ENDPOINT_URL": s3_server.endpoint}
    arguments = ("--artifacts-destination", f"s3://{s3_server.bucket}/mlflow")
    with (
        MlflowServer(directory, variables, arguments) as server,
        MlflowServer(other, variables, arguments, login=True) as guarded,
    ):
        server.wait()
        made = server.register([{"name": "iris", "C": weight} for weight in (1.0, 0.001)])
        found = Place(server, guarded, s3_server, made, shared)
        for name in ("MLmodel", "data/model.pkl"):
            s3_server.put(f"direct/1/{name}", name.encode())
        found.register("direct", source=f"s3://{s3_server.bucket}/direct/1")
        experiment = server.call("POST", "experiments/create", name="shared", artifact_location=shared.as_uri())
        run = server.call("POST", "runs/create", experiment_id=experiment["experiment_id"])["run"]["info"]
        model = shared / run["run_id"] / "artifacts" / "model"
        model.mkdir(parents=True)
        (model / "MLmodel").write_text("of a directory")
        found.register("shared", source=model.as_uri(), run_id=run["run_id"])
        guarded.wait()
        yield found
