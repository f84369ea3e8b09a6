"""Models of an MLflow server: registered versions, aliases, logged models, and what runs have left."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.download import Tally, download, sizes
from turnout.deploy.sources.file import FileSource
from turnout.deploy.sources.http_words import shown
from turnout.deploy.sources.mlflow_server import MlflowServer, Version, of
from turnout.deploy.sources.object_store import ObjectStoreSource
from turnout.deploy.sources.retry import retrying
from turnout.deploy.sources.source import Pinned, Progress, SourceSettings, check_size

_VERSION = re.compile(r"models:/([^/]+)/(\d+)(?:#([\w.-]+))?")
_SUFFIX = re.compile(r"models:/([^/]+)/([^/#]+)")
_ALIAS = re.compile(r"models:/([^/]+)@([^/@]+)")
_LOGGED = re.compile(r"models:/(m-[\w-]+)")
_RUN = re.compile(r"runs:/([\w-]+)/([^#]*[^/#])/?")
_FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/NAME/latest, models:/m-ID or runs:/RUN/PATH"
_OBJECT_STORES = frozenset({"s3", "gs", "az"})


class MlflowSource:
    """models:/NAME/VERSION, models:/NAME@ALIAS, models:/NAME/latest, models:/m-ID, runs:/RUN/PATH.

    Everything becomes a version or a logged model, which MLflow does not change: `models:/iris/3#m-ID`. The part
    after # says which model version 3 was, because a registered model that is deleted and made anew begins at
    version 1 again.
    """

    name = "mlflow"
    schemes = ("models", "runs", "mlflow-artifacts")
    extra = ""
    resumes = False
    retries = True

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        if uri.startswith("mlflow-artifacts:"):
            return Pinned(uri, uri, facts={"artifacts": uri})
        if uri.startswith("runs:"):
            return _of_run(uri, settings)
        if found := _LOGGED.fullmatch(uri):
            artifacts = of(settings).logged_model(found[1])
            return Pinned(uri, uri, facts={"artifacts": artifacts, "model_id": found[1]})
        registry = of(settings, "registry") if uri.startswith("models:/") else None
        wanted = ""
        if registry and (found := _VERSION.fullmatch(uri)):
            version, wanted = registry.version(found[1], found[2]), found[3] or ""
        elif registry and (found := _SUFFIX.fullmatch(uri)):
            version = registry.latest(found[1], "" if found[2].lower() == "latest" else found[2])
        elif registry and (found := _ALIAS.fullmatch(uri)):
            version = registry.alias(found[1], found[2])
        else:
            raise SourceFailed(f"{shown(uri)!r} is no URI of an MLflow model; those are {_FORMS}")
        return _of_version(uri, version, wanted, registry, settings)

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        place = str(pinned.facts.get("artifacts", ""))
        scheme = urlsplit(place).scheme
        if scheme == "mlflow-artifacts":
            _handed_through(pinned, place, into, settings, progress)
        elif scheme in _OBJECT_STORES:
            _from_object_store(pinned, place, into, settings, progress)
        elif scheme in {"", "file"}:
            _from_directory(pinned, place, into, settings, progress)
        else:
            raise SourceFailed(
                f"the artifacts of {pinned.uri} are kept at {shown(place)}, a kind of place Turnout does not read. "
                "Start the MLflow server with --artifacts-destination, so that it hands them through"
            )


def _of_version(uri: str, version: Version, wanted: str, registry: MlflowServer, settings: SourceSettings) -> Pinned:
    logged = _LOGGED.fullmatch(version.source)
    mark = logged[1] if logged else _mark(version)
    if wanted and wanted != mark:
        raise SourceFailed(
            f"version {version.number} of {version.name!r} was deleted, and its number given away again: "
            f"it was {wanted}, it is {mark}. Resolve the model anew"
        )
    artifacts = registry.download_uri(version)
    if found := _LOGGED.fullmatch(artifacts):
        artifacts = of(settings).logged_model(found[1])
    facts = {"artifacts": artifacts, "model_id": logged[1] if logged else "", "run_id": version.run_id}
    return Pinned(uri, f"models:/{version.name}/{version.number}#{mark}", version.number, facts)


def _of_run(uri: str, settings: SourceSettings) -> Pinned:
    """What a run has left: a model that it logged (MLflow 3), or files among its artifacts."""
    found = _RUN.fullmatch(uri)
    if not found:
        raise SourceFailed(f"{shown(uri)!r} is no URI of an MLflow model; those are {_FORMS}")
    tracking = of(settings)
    experiment, artifacts = tracking.run(found[1])
    if "/" not in found[2] and (model_id := tracking.logged_model_of_run(experiment, found[1], found[2])):
        facts = {"artifacts": tracking.logged_model(model_id), "model_id": model_id, "run_id": found[1]}
        return Pinned(uri, f"models:/{model_id}", facts=facts)
    place = f"{artifacts.rstrip('/')}/{found[2]}"
    parts = urlsplit(place)
    is_file = parts.scheme == "mlflow-artifacts" and tracking.is_file(unquote(parts.path).strip("/"))
    file = found[2].rpartition("/")[2] if is_file else ""
    return Pinned(uri, f"runs:/{found[1]}/{found[2]}", facts={"artifacts": place}, file=file)


def _mark(version: Version) -> str:
    """Tells a version from another one that had its number, where servers before MLflow 3 have no id for it."""
    made = f"{version.source}\n{version.run_id}\n{version.created}"
    return "source-" + hashlib.sha256(made.encode()).hexdigest()[:16]


def _handed_through(pinned: Pinned, place: str, into: Path, settings: SourceSettings, progress: Progress) -> None:
    """Artifacts that the MLflow server reads from its store and passes on."""
    parts = urlsplit(place)
    server = of(settings)
    other = settings.options.get("mlflow", {}).get("artifacts_uri", "")
    if parts.netloc and parts.netloc.rpartition("@")[2] not in {
        urlsplit(server.web.address).netloc,
        urlsplit(other).netloc,
    }:
        raise SourceFailed(
            f"the artifacts of {pinned.uri} are with another server, {parts.hostname}. To let it be asked, with the "
            "same credentials, name its address as artifacts_uri in the options of mlflow"
        )
    if parts.netloc and parts.netloc == urlsplit(other).netloc:
        server = MlflowServer(other, settings)
    root = unquote(parts.path).strip("/")
    files = server.files(root)
    if not files:
        raise SourceFailed(
            f"{pinned.uri} is registered, but the MLflow server finds no artifacts for it at {shown(place)}: they "
            "were deleted from its store, or never written"
        )
    tally = Tally(sizes(files), settings.max_artifact_bytes, progress)
    download(server.web, files, into, tally)


def _from_object_store(pinned: Pinned, place: str, into: Path, settings: SourceSettings, progress: Progress) -> None:
    """Artifacts that the server only knows the address of; read with the operator's own credentials."""
    store = ObjectStoreSource(urlsplit(place).scheme)

    def attempt() -> None:
        found = store.resolve(place, settings)
        check_size(found.nbytes, settings.max_artifact_bytes)
        store.fetch(found, into, settings, progress)

    try:
        retrying(attempt, settings, tell=lambda what: progress(what, 0, 0))
    except SourceFailed as problem:
        text = f"{pinned.uri} is registered, but its artifacts at {shown(place)} cannot be had: {problem.message}"
        raise SourceFailed(text, retryable=problem.retryable) from None


def _from_directory(pinned: Pinned, place: str, into: Path, settings: SourceSettings, progress: Progress) -> None:
    """Artifacts on a disk that both share. Only below the directory that the operator names: a server that says
    where a model is must not be able to name any file of this machine.
    """
    parts = urlsplit(place)
    root = settings.options.get("mlflow", {}).get("file_root", "")
    if not root or parts.netloc:
        raise SourceFailed(
            f"the artifacts of {pinned.uri} are in a directory of the MLflow server, {shown(place)}. Start that server "
            "with --artifacts-destination, so that it hands them through; or, where this machine has the same "
            "directory, name it as file_root in the options of mlflow"
        )
    allowed = Path(root).resolve()
    path = Path(unquote(parts.path)).resolve()
    if not path.is_relative_to(allowed):
        raise SourceFailed(f"the artifacts of {pinned.uri} are at {path}, which is not below file_root, {allowed}")
    source = FileSource()
    found = source.resolve(path.as_uri(), settings)
    check_size(found.nbytes, settings.max_artifact_bytes)
    source.fetch(found, into, settings, progress)
