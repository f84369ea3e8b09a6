"""Models out of a real MLflow server with its login, whose artifacts are on a real S3 server."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from cutting import CuttingProxy
from mlflow_place import Place
from mlflow_server import PASSWORD, USER
from s3_server import S3Server
from sklearn.datasets import load_iris

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.cache import ArtifactCache
from turnout.deploy.sources.mlflow import MlflowSource
from turnout.deploy.sources.source import Pinned, SourceSettings
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Found, Supply
from turnout.deploy.watch import Watch

pytestmark = [pytest.mark.registry, pytest.mark.timeout(600)]  # the first one starts the servers
BLOB = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URI", "TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)


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
    assert found.pinned.facts["artifacts"] == "s3://models/direct/1"
    assert found.pinned.pinned.startswith("models:/direct/1#source-")
    assert [file.name for file in found.manifest.files] == ["MLmodel", "data/model.pkl"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    pinned = MlflowSource().resolve("models:/direct/1", place.settings())
    with pytest.raises(SourceFailed, match="models:/direct/1 is registered, but its artifacts at s3://models/direct"):
        MlflowSource().fetch(pinned, cache.root, place.settings(), lambda *_: None)


def test_a_directory_is_read_only_where_the_operator_says_so(place: Place, tmp_path: Path) -> None:
    pinned = MlflowSource().resolve("models:/shared/1", place.settings())
    with pytest.raises(SourceFailed, match=r"Start that server with --artifacts-destination"):
        fetched(pinned, tmp_path / "a", place.settings())
    with pytest.raises(SourceFailed, match="not below file_root"):
        fetched(pinned, tmp_path / "b", place.settings(file_root=str(tmp_path)))
    files = fetched(pinned, tmp_path / "c", place.settings(file_root=str(place.directory)))
    assert files == {"MLmodel": b"of a directory"}


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
        create = {"name": "again", "source": f"models:/{made['model_id']}", "run_id": made["run"]} | {
            "model_id": made["model_id"]
        }
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
    settings = place.settings(tracking_uri=place.guarded.address)

    def refused(why: str, settings: SourceSettings = settings) -> None:
        with pytest.raises(SourceFailed, match=why) as caught:
            MlflowSource().resolve("models:/iris/1", settings)
        assert not caught.value.retryable
        assert not any(secret in str(caught.value) for secret in ("quite wrong", "a-token", quote(PASSWORD), "guest:"))

    place.guarded.call("POST", "registered-models/create", name="iris")
    refused(r"does not know who asks \(401\).*MLFLOW_TRACKING_TOKEN")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "quite wrong")
    refused(r"does not know who asks \(401\)")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    refused("no version 1 of the model 'iris'; there are: none")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    refused("401")
    address = place.guarded.address.replace("://", f"://{USER}:{quote(PASSWORD)}@")
    refused("no version 1 of the model 'iris'", place.settings(tracking_uri=address))
    place.guarded.call("POST", "users/create", username="guest", password="guest of the tests")
    guest = place.guarded.address.replace("://", "://guest:guest%20of%20the%20tests@")
    refused(r"does not allow it \(403\)", place.settings(tracking_uri=guest))


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


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  it has no event of its own
            await asyncio.sleep(0.01)


def test_a_watched_alias_is_seen_to_move_also_after_the_server_was_away(place: Place, tmp_path: Path) -> None:
    async def watched(proxy: CuttingProxy) -> tuple[str, list[list[Found]]]:
        settings = place.settings(tracking_uri=f"http://127.0.0.1:{proxy.port}")
        supply = Supply(settings, root=tmp_path)
        spec = ModelSpec("iris", "models:/iris@moving", watch=0.05)
        seen: list[list[Found]] = []
        watch = Watch(spec, supply, supply.find(spec), seen.append)
        proxy.down()
        await until(lambda: watch.look.trouble)
        trouble = watch.look.trouble
        place.alias("moving", "2")
        proxy.up()
        await until(lambda: seen)
        watch.stop()
        assert not watch.look.trouble
        return trouble, seen

    place.alias("moving", "1")
    with CuttingProxy(place.server.port) as proxy:
        trouble, seen = asyncio.run(watched(proxy))
    assert "nobody listens there" in trouble
    assert [[one.version for one in found] for found in seen] == [["2"]]


def test_a_server_that_is_down_is_said_to_be_and_what_is_kept_stays_usable(place: Place, cache: ArtifactCache) -> None:
    """The last one: nothing is asked of that server any more."""
    place.alias("down", "1")
    before = cache.fetch("models:/iris@down", place.settings())
    place.server.stop()
    with pytest.raises(SourceFailed, match=r"did not answer GET .*: nobody listens there") as caught:
        MlflowSource().resolve("models:/iris@down", place.settings())
    assert caught.value.retryable
    kept = cache.fetch("models:/iris@down", place.settings())
    assert kept.digest == before.digest
    assert "nobody listens there" in kept.stale
