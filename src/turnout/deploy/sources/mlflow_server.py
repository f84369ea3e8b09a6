"""What an MLflow server is asked, and how: its REST API, version 2.0. The only file that speaks to MLflow."""

from __future__ import annotations

import base64
import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.download import WebFile, size_said
from turnout.deploy.sources.http_words import shown
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.sources.web import Web, said

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_MAX_FILES = 50_000
_MAX_DEPTH = 40
#: A server that hands artifacts through brings a file to itself first; so many bytes a second are taken for granted.
_HANDED_THROUGH_PACE = 10 << 20
_DENIED = (
    "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, to an account that may read"
)


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version: its number, what it was made from, and where its artifacts are."""

    name: str
    number: str
    run_id: str
    source: str
    created: str


class MlflowServer:
    """An MLflow tracking server or registry by its address, which may carry user and password."""

    def __init__(self, address: str, settings: SourceSettings) -> None:
        credentials = _credentials(address)
        self.web = Web(
            "the MLflow server",
            _http(address),
            settings,
            authorize=lambda _: credentials,
            denied=_DENIED,
            ca_file=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"),
        )

    def version(self, name: str, number: str) -> Version:
        """A version by its number. Raises SourceFailed naming the versions there are."""
        found = self._get("model-versions/get", "model_version", name=name, version=number)
        if found is None:
            known = ", ".join(self._versions(name)) or "none"
            raise SourceFailed(f"{self._at()} has no version {number} of the model {name!r}; there are: {known}")
        return _version(found)

    def alias(self, name: str, alias: str) -> Version:
        """The version an alias means now. Raises SourceFailed naming the aliases there are."""
        found = self._get("registered-models/alias", "model_version", name=name, alias=alias)
        if found is None:
            aliases = [
                f"@{one.get('alias')} (version {one.get('version')})" for one in self._model(name).get("aliases", [])
            ]
            known = ", ".join(aliases) or "none"
            raise SourceFailed(f"the model {name!r} on {self._at()} has no alias @{alias}; there are: {known}")
        return _version(found)

    def latest(self, name: str, stage: str = "") -> Version:
        """The version with the highest number, of all or of a stage. Raises SourceFailed where there is none."""
        query = {"name": name} | ({"stages": stage} if stage else {})
        status, found = self.web.json(f"{_API}/registered-models/get-latest-versions?{urlencode(query)}")
        versions = found.get("model_versions", []) if status == 200 and isinstance(found, dict) else []
        if not versions:
            self._model(name)
            where = f"in the stage {stage!r}; aliases are written models:/{name}@{stage}" if stage else "at all"
            raise SourceFailed(f"the model {name!r} on {self._at()} has no version {where}")
        return _version(max(versions, key=lambda one: int(one.get("version", "0"))))

    def download_uri(self, version: Version) -> str:
        """Where a version's artifacts are."""
        found = self._get("model-versions/get-download-uri", "artifact_uri", name=version.name, version=version.number)
        if not isinstance(found, str) or not found:
            raise SourceFailed(f"{self._at()} does not say where version {version.number} of {version.name!r} is kept")
        return found

    def logged_model(self, model_id: str) -> str:
        """Where a logged model's artifacts are. Raises SourceFailed where it is unknown or was never finished."""
        found = self._get(f"logged-models/{quote(model_id, safe='')}", "model")
        if not isinstance(found, dict):
            raise SourceFailed(f"{self._at()} has no logged model {model_id!r}")
        info = found.get("info", {})
        if str(info.get("status", "LOGGED_MODEL_READY")).rpartition("_")[2] != "READY":
            raise SourceFailed(f"the logged model {model_id!r} on {self._at()} is not ready: {info.get('status')}")
        return str(info.get("artifact_uri", ""))

    def run(self, run_id: str) -> tuple[str, str]:
        """A run's experiment, and where its artifacts are. Raises SourceFailed where it is unknown or deleted."""
        found = self._get("runs/get", "run", run_id=run_id)
        info = found.get("info", {}) if isinstance(found, dict) else {}
        if not info or info.get("lifecycle_stage") == "deleted":
            raise SourceFailed(f"{self._at()} {'has deleted the' if info else 'has no'} run {run_id!r}")
        return str(info.get("experiment_id", "")), str(info.get("artifact_uri", ""))

    def logged_model_of_run(self, experiment: str, run_id: str, name: str) -> str:
        """The id of the newest model of that name that a run has logged; "" where there is none."""
        quoted = name.replace("\\", "\\\\").replace("'", "\\'")
        wanted = {"experiment_ids": [experiment], "filter": f"name = '{quoted}' AND source_run_id = '{run_id}'"}
        body = json.dumps(wanted | {"max_results": 50}).encode()
        answer = self.web.ask(
            f"{_API}/logged-models/search", method="POST", body=body, headers={"Content-Type": "application/json"}
        )
        if answer.status != 200:  # servers before 3.0 have no logged models
            return ""
        found = answer.json("the search for logged models")
        infos = [one.get("info", {}) for one in found.get("models", [])]
        mine = [info for info in infos if info.get("source_run_id") == run_id and info.get("name") == name]
        newest: Mapping[str, Any] = max(mine, key=lambda info: int(info.get("creation_timestamp_ms", 0)), default={})
        return str(newest.get("model_id", ""))

    def files(self, root: str) -> list[WebFile]:
        """All files under a path of the artifact store that the server hands through; none if there is no such path.

        Where the path is a file, that one under its own name.
        """
        if entry := self._file(root):
            return [self._remote(root.rpartition("/")[2], root, entry)]
        return self._walk(root)

    def is_file(self, root: str) -> bool:
        """Whether a path of the artifact store is a file, and not a directory of them."""
        return self._file(root) is not None

    def _file(self, root: str) -> dict[str, Any] | None:
        """How the server lists a path, if that is a file."""
        parent, _, name = root.rpartition("/")
        return next((one for one in self._list(parent) if one["path"] == name and not one.get("is_dir")), None)

    def _walk(self, root: str) -> list[WebFile]:
        found: list[WebFile] = []
        waiting = [("", 0)]
        while waiting:
            below, depth = waiting.pop()
            for one in self._list(f"{root}/{below}".rstrip("/")):
                name = f"{below}/{one['path']}".lstrip("/")
                if not one.get("is_dir"):
                    found.append(self._remote(name, f"{root}/{name}", one))
                elif depth < _MAX_DEPTH:
                    waiting.append((name, depth + 1))
                if len(found) > _MAX_FILES or len(waiting) > _MAX_FILES or depth >= _MAX_DEPTH:
                    raise SourceFailed(f"there are more than {_MAX_FILES} files, or {_MAX_DEPTH} levels, in {root!r}")
        return sorted(found, key=lambda one: one.name)

    def _list(self, path: str) -> list[dict[str, Any]]:
        answer = self.web.ask(f"{_ARTIFACTS}?{urlencode({'path': path})}")
        if answer.status != 200:
            raise SourceFailed(f"{self._at()} does not list the artifacts in {path!r}: {answer.status}{said(answer)}")
        found = answer.json(self._at()).get("files", [])
        for one in found:
            if not isinstance(one.get("path"), str) or "/" in one["path"] or one["path"] in {"", ".", ".."}:
                raise SourceFailed(f"{self._at()} lists {str(one.get('path'))[:120]!r} in {path!r}: no name of a file")
        return list(found)

    def _remote(self, name: str, path: str, entry: Mapping[str, object]) -> WebFile:
        size = size_said(entry, "file_size")
        return WebFile(name, f"{_ARTIFACTS}/{quote(path)}", size, patience=max(size, 0) / _HANDED_THROUGH_PACE)

    def _model(self, name: str) -> Mapping[str, Any]:
        """A registered model. Raises SourceFailed naming those with a name like it."""
        found = self._get("registered-models/get", "registered_model", name=name)
        if isinstance(found, dict):
            return found
        status, some = self.web.json(f"{_API}/registered-models/search?{urlencode({'max_results': 500})}")
        names = [str(one.get("name")) for one in some.get("registered_models", [])] if status == 200 else []
        like = difflib.get_close_matches(name, names) or sorted(names)[:10]
        known = ", ".join(map(repr, like)) or "none"
        raise SourceFailed(f"{self._at()} has no registered model {name!r}; there are: {known}")

    def _versions(self, name: str) -> list[str]:
        self._model(name)
        quoted = name.replace("'", "''")
        query = urlencode({"filter": f"name='{quoted}'", "order_by": "version_number DESC", "max_results": 10})
        status, found = self.web.json(f"{_API}/model-versions/search?{query}")
        return [str(one.get("version")) for one in found.get("model_versions", [])] if status == 200 else []

    def _get(self, path: str, key: str, **query: str) -> Any:
        """One field of an answer; None where the server says that there is no such thing."""
        answer = self.web.ask(f"{_API}/{path}" + (f"?{urlencode(query)}" if query else ""))
        if answer.status == 200:
            found = answer.json(self._at())
            return found.get(key) if isinstance(found, dict) else None
        why = said(answer)
        if "RESOURCE_DOES_NOT_EXIST" in why or "INVALID_PARAMETER_VALUE" in why:
            return None
        hint = "" if why else "; is this the address of an MLflow server?"
        raise SourceFailed(f"{self._at()} answered {answer.status} to {shown(answer.url)}{why}{hint}")

    def _at(self) -> str:
        return f"the MLflow server at {self.web.address}"


def of(settings: SourceSettings, which: str = "tracking") -> MlflowServer:
    """The "tracking" server or the "registry" that the operator names (or the environment); mostly they are one."""
    options = settings.options.get("mlflow", {})
    address = options.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI", "")
    if which == "registry":
        address = options.get("registry_uri") or os.environ.get("MLFLOW_REGISTRY_URI", "") or address
    return MlflowServer(address, settings)


def _version(found: Mapping[str, Any]) -> Version:
    """Raises SourceFailed where the version is a prompt, or was never finished."""
    name, number = str(found.get("name", "")), str(found.get("version", ""))
    if any(tag.get("key") == "mlflow.prompt.is_prompt" for tag in found.get("tags", [])):
        raise SourceFailed(f"{name!r} is a prompt, not a model")
    status = str(found.get("status", "READY"))
    if status != "READY":
        text = found.get("status_message") or "it is being registered, or that failed"
        raise SourceFailed(f"version {number} of {name!r} is {status}: {text}", retryable=status.startswith("PENDING"))
    ids = (str(found.get(key) or "") for key in ("run_id", "source", "creation_timestamp"))
    return Version(name, number, *ids)


def _http(address: str) -> str:
    """The address, if it is a server's. Raises SourceFailed for none, and for those of stores without a server."""
    scheme = urlsplit(address).scheme
    if not address:
        raise SourceFailed(
            "no MLflow server is named: set MLFLOW_TRACKING_URI, or tracking_uri in the options of mlflow"
        )
    if scheme not in {"http", "https"}:
        raise SourceFailed(
            f"models are fetched from an MLflow server; {scheme or 'a path'}: is a store without one. Start it with "
            "`mlflow server --backend-store-uri ...` and set MLFLOW_TRACKING_URI to its address"
        )
    return address


def _credentials(address: str) -> str:
    """The Authorization field, from the address itself or from the variables that MLflow's own clients read."""
    parts = urlsplit(address)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not user:
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN", ""):
            return f"Bearer {token}"
        user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
