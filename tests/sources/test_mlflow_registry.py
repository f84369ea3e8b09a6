"""Models out of a real MLflow server with its login, whose artifacts are on a real S3 server."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from cutting import CuttingProxy
from mlflow_server import PASSWORD, USER, MlflowServer
from s3_server import S3Server
from sklearn.datasets import load_iris

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.cache import ArtifactCache
from turnout.deploy.sources.mlflow import MlflowSource
from turnout.deploy.sources.source import Pinned, SourceSettings

pytestmark = [pytest.mark.registry, pytest.mark.timeout(600)]  # the first one starts the servers
QUICK = {"attempts": 3, "timeout": 20.0, "retry_wait": 0.02}
BLOB = bytes(range(256)) * 4096


@dataclass
class Place:
    """The servers, and what was registered: `iris` in two versions, `direct` and `shared` in one."""

    server: MlflowServer
    s3: S3Server
    made: list[dict[str, Any]]
    directory: Path

    def settings(self, **options: str) -> SourceSettings:
        return SourceSettings(**QUICK, options={"mlflow": {"tracking_uri": self.server.address, **options}})  # type: ignore[arg-type]

    def alias(self, name: str, version: str, model: str = "iris") -> None:
        self.server.call("POST", "registered-models/alias", name=model, alias=name, version=version)


@pytest.fixture(scope="module")
def place(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("mlflow")
    shared = tmp_path_factory.mktemp("shared")
    variables = {**s3_server.environment, "MLFLOW_S3_ENDPOINT_URL": s3_server.endpoint}
    arguments = ("--artifacts-destination", f"s3://{s3_server.bucket}/mlflow")
    with MlflowServer(directory, variables, arguments) as server:
        wanted = [{"name": "iris", "location": "", "C": weight} for weight in (1.0, 0.001)]
        wanted += [{"name": "direct", "location": f"s3://{s3_server.bucket}/direct", "C": 1.0}]
        wanted += [{"name": "shared", "location": shared.as_uri(), "C": 1.0}]
        yield Place(server, s3_server, server.register(wanted), shared)


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


def fetched(pinned: Pinned, into: Path, settings: SourceSettings) -> dict[str, bytes]:
    into.mkdir()
    MlflowSource().fetch(pinned, into, settings, lambda *_: None)
    return {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}


def test_a_version_is_the_model_that_was_registered(place: Place, tmp_path: Path) -> None:
    for number, made in zip("12", place.made, strict=False):
        pinned = MlflowSource().resolve(f"models:/iris/{number}", place.settings())
        assert (pinned.version, pinned.pinned) == (number, f"models:/iris/{number}#{made['model_id']}")
        assert MlflowSource().resolve(pinned.pinned, place.settings()).pinned == pinned.pinned
        files = fetched(pinned, tmp_path / number, place.settings())
        assert {"MLmodel", "model.pkl", "requirements.txt", "input_example.json"} <= set(files)
        model = pickle.loads(files["model.pkl"])
        np.testing.assert_array_equal(model.coef_, made["coefficients"])
        np.testing.assert_array_equal(model.predict(load_iris().data), made["predicted"])


def test_an_alias_is_pinned_to_the_version_it_means_now(place: Place) -> None:
    for number in "12":
        place.alias("champion", number)
        pinned = MlflowSource().resolve("models:/iris@champion", place.settings())
        assert pinned.pinned == f"models:/iris/{number}#{place.made[int(number) - 1]['model_id']}"
        assert pinned.version == number
    assert MlflowSource().resolve("models:/iris/latest", place.settings()).version == "2"


def test_the_cache_knows_the_same_model_by_every_name(place: Place, cache: ArtifactCache) -> None:
    place.alias("same", "2")
    made = place.made[1]
    uris = ["models:/iris/2", "models:/iris@same", f"models:/{made['model_id']}", f"runs:/{made['run']}/model"]
    digests = {cache.fetch(uri, place.settings()).digest for uri in uris}
    assert len(digests) == 1
    assert cache.fetch("models:/iris/2", place.settings()).from_cache


def test_what_a_run_has_left_is_files(place: Place, tmp_path: Path, cache: ArtifactCache) -> None:
    run = place.made[0]["run"]
    pinned = MlflowSource().resolve(f"runs:/{run}/extra", place.settings())
    assert fetched(pinned, tmp_path / "a", place.settings()) == {"blob.bin": BLOB, "deep/notes.txt": b"notes"}
    assert cache.fetch(f"runs:/{run}/extra/blob.bin", place.settings()).path.read_bytes() == BLOB
    bare = MlflowSource().resolve(str(pinned.facts["artifacts"]), place.settings())
    assert set(fetched(bare, tmp_path / "b", place.settings())) == {"blob.bin", "deep/notes.txt"}


def test_artifacts_that_the_server_does_not_hand_through_come_from_s3(
    place: Place, s3: S3Server, cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cache.fetch("models:/direct/1", place.settings())
    assert str(found.pinned.facts["artifacts"]).startswith("s3://models/direct/")
    names = {file.name: file.sha256 for file in found.manifest.files}
    assert names["model.pkl"] == hashlib.sha256((found.path / "model.pkl").read_bytes()).hexdigest()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    pinned = MlflowSource().resolve("models:/direct/1", place.settings())
    with pytest.raises(SourceFailed, match="models:/direct/1 is registered, but its artifacts at s3://models/direct"):
        MlflowSource().fetch(pinned, cache.root, place.settings(), lambda *_: None)


def test_a_directory_is_read_only_where_the_operator_says_so(place: Place, tmp_path: Path) -> None:
    pinned = MlflowSource().resolve("models:/shared/1", place.settings())
    with pytest.raises(SourceFailed, match=r"start|Start that server with --artifacts-destination"):
        fetched(pinned, tmp_path / "a", place.settings())
    with pytest.raises(SourceFailed, match="not below file_root"):
        fetched(pinned, tmp_path / "b", place.settings(file_root=str(tmp_path)))
    files = fetched(pinned, tmp_path / "c", place.settings(file_root=str(place.directory)))
    assert "MLmodel" in files


def test_what_is_not_there_is_named_with_what_is(place: Place) -> None:
    place.alias("stable", "1")
    cases = {
        "models:/iris/99": r"no version 99 of the model 'iris'; there are: 2, 1",
        "models:/iris@prod": r"no alias @prod; there are: .*@stable \(version 1\)",
        "models:/irsi/1": "no registered model 'irsi'; there are: 'iris'",
        "models:/irsi@champion": "no registered model 'irsi'",
        "models:/iris/Production": "no version in the stage 'Production'; aliases are written models:/iris@Production",
        "models:/m-0123": "no logged model 'm-0123'",
        "runs:/0123/model": "no run '0123'",
        "models:/iris": "those are models:/NAME/VERSION",
        "runs:/0123": "those are models:/NAME/VERSION",
    }
    for uri, why in cases.items():
        with pytest.raises(SourceFailed, match=why) as caught:
            MlflowSource().resolve(uri, place.settings())
        assert not caught.value.retryable


def test_a_deleted_version_is_gone_and_its_number_may_mean_another_model(place: Place) -> None:
    pinned = []
    for made in place.made[:2]:  # a model that is deleted and made anew begins at version 1 again
        create = {"name": "again", "source": f"models:/{made['model_id']}", "run_id": made["run"]}
        place.server.call("POST", "registered-models/create", name="again")
        place.server.call("POST", "model-versions/create", **create)
        pinned.append(MlflowSource().resolve("models:/again/1", place.settings()))
        if len(pinned) == 1:
            place.alias("champion", "1", "again")
            place.server.call("DELETE", "model-versions/delete", name="again", version="1")
            for uri in ("models:/again/1", pinned[0].pinned):
                with pytest.raises(SourceFailed, match="no version 1 of the model 'again'; there are: none"):
                    MlflowSource().resolve(uri, place.settings())
            with pytest.raises(SourceFailed, match="no alias @champion"):
                MlflowSource().resolve("models:/again@champion", place.settings())
            place.server.call("DELETE", "registered-models/delete", name="again")
    with pytest.raises(SourceFailed, match=f"its number given away again: it was {place.made[0]['model_id']}"):
        MlflowSource().resolve(pinned[0].pinned, place.settings())


def test_artifacts_that_are_missing_from_the_store_are_said_to_be(place: Place, tmp_path: Path) -> None:
    run = place.made[1]["run"]
    pinned = MlflowSource().resolve(f"runs:/{run}/extra", place.settings())
    root = str(pinned.facts["artifacts"]).removeprefix("mlflow-artifacts:/")
    for name in ("blob.bin", "deep/notes.txt"):
        place.s3.delete(f"mlflow/{root}/{name}")
    with pytest.raises(SourceFailed, match="finds no artifacts for it at mlflow-artifacts:/"):
        fetched(pinned, tmp_path / "into", place.settings())


def test_who_may_not_is_told_so_without_secrets(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "quite wrong")
    with pytest.raises(SourceFailed, match=r"does not know who asks \(401\).*MLFLOW_TRACKING_TOKEN") as caught:
        MlflowSource().resolve("models:/iris/1", place.settings())
    assert "quite wrong" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    with pytest.raises(SourceFailed, match="401"):
        MlflowSource().resolve("models:/iris/1", place.settings())
    address = place.server.address.replace("://", f"://{USER}:{quote(PASSWORD)}@")
    assert MlflowSource().resolve("models:/iris/1", place.settings(tracking_uri=address)).version == "1"
    with pytest.raises(SourceFailed) as caught:
        MlflowSource().resolve("models:/iris/77", place.settings(tracking_uri=address))
    assert quote(PASSWORD) not in str(caught.value)
    place.server.call("POST", "users/create", username="guest", password="guest of the tests")
    guest = place.server.address.replace("://", "://guest:guest%20of%20the%20tests@")
    with pytest.raises(SourceFailed, match=r"does not allow it \(403\)"):
        MlflowSource().resolve("models:/iris/1", place.settings(tracking_uri=guest))


def test_a_download_that_breaks_off_is_tried_again(place: Place, tmp_path: Path) -> None:
    with CuttingProxy(place.server.port) as proxy:
        settings = place.settings(tracking_uri=f"http://127.0.0.1:{proxy.port}")
        pinned = MlflowSource().resolve(f"runs:/{place.made[0]['run']}/extra/blob.bin", settings)
        proxy.cuts = [500_000, 100]
        assert fetched(pinned, tmp_path / "a", settings) == {"blob.bin": BLOB}
        proxy.cuts = [1000] * 20
        with pytest.raises(SourceFailed, match="the connection ended in the middle of the answer, at byte") as caught:
            fetched(pinned, tmp_path / "b", settings)
        assert caught.value.retryable


def test_a_server_that_is_down_is_said_to_be_and_what_is_kept_stays_usable(place: Place, cache: ArtifactCache) -> None:
    place.alias("down", "1")
    before = cache.fetch("models:/iris@down", place.settings())
    place.server.stop()
    try:
        with pytest.raises(SourceFailed, match=r"did not answer GET .*: nobody listens there") as caught:
            MlflowSource().resolve("models:/iris@down", place.settings())
        assert caught.value.retryable
        kept = cache.fetch("models:/iris@down", place.settings())
        assert kept.digest == before.digest
        assert "nobody listens there" in kept.stale
    finally:
        place.server.start()
    place.alias("down", "2")
    after = cache.fetch("models:/iris@down", place.settings())
    assert (after.stale, after.pinned.version) == ("", "2")
