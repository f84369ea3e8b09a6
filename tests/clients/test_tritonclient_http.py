"""tritonclient.http, unchanged, against `turnout serve`: sync and aio, binary and JSON, compressed or not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

import turnout
from tests.clients.echoes import SAMPLES, assert_same
from tests.clients.running import Server

JSON_TYPES = sorted(set(SAMPLES) - {"FP16"})


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.http, concurrency=8) as found:
        yield found


def tensor(name: str, array: np.ndarray, datatype: str, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def echo_inputs(*, binary: bool, types: list[str]) -> list[triton.InferInput]:
    return [tensor(datatype.lower(), SAMPLES[datatype], datatype, binary=binary) for datatype in types]


def test_live_ready_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert not client.is_model_ready("nobody")
    metadata = client.get_server_metadata()
    assert (metadata["name"], metadata["version"]) == ("turnout", turnout.__version__)
    model = client.get_model_metadata("iris")
    assert model["platform"] == "onnx"
    assert [(one["datatype"], one["shape"]) for one in model["inputs"]] == [("FP32", [-1, 4])]
    assert {one["name"]: one["state"] for one in client.get_model_repository_index()} == {
        "iris": "READY", "flowers": "READY", "echo": "READY",
    }  # fmt: skip


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_answers_are_the_models_own(
    client: triton.InferenceServerClient,
    server: Server,
    binary_in: bool,
    binary_out: bool | None,
    compression: str | None,
) -> None:
    rows = server.models.rows[40:60]
    name = client.get_model_metadata("iris")["inputs"][0]["name"]
    outputs = None if binary_out is None else [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
    result = client.infer(
        "iris", [tensor(name, rows, "FP32", binary=binary_in)], outputs=outputs, request_id="my-id",
        request_compression_algorithm=compression, response_compression_algorithm=compression,
    )  # fmt: skip
    np.testing.assert_allclose(result.as_numpy("probabilities"), server.models.iris.predict_proba(rows), atol=1e-5)
    assert result.get_response()["id"] == "my-id"
    if outputs is None:
        np.testing.assert_array_equal(result.as_numpy("label"), server.models.iris.predict(rows))
    else:
        assert result.as_numpy("label") is None


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_every_type_there_and_back_binary(client: triton.InferenceServerClient, compression: str | None) -> None:
    result = client.infer(
        "echo", echo_inputs(binary=True, types=sorted(SAMPLES)), request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )  # fmt: skip
    for datatype, sent in SAMPLES.items():
        assert_same(result.as_numpy(f"{datatype.lower()}_out"), sent)


def test_every_type_that_json_has_there_and_back(client: triton.InferenceServerClient) -> None:
    inputs = echo_inputs(binary=False, types=JSON_TYPES) + echo_inputs(binary=True, types=["FP16"])
    outputs = [
        triton.InferRequestedOutput(f"{datatype.lower()}_out", binary_data=datatype == "FP16") for datatype in SAMPLES
    ]
    result = client.infer("echo", inputs, outputs=outputs)
    for datatype, sent in SAMPLES.items():
        assert_same(result.as_numpy(f"{datatype.lower()}_out"), sent)


@pytest.mark.parametrize(
    ("model", "version", "name", "datatype", "status", "says"),
    [("nobody", "", "x", "FP32", "404", "nobody"), ("iris", "9", "", "FP32", "404", "9"),
     ("iris", "", "", "FP64", "400", "FP64"), ("iris", "", "other", "FP32", "400", "other")],
)  # fmt: skip
def test_mistakes_are_named(
    client: triton.InferenceServerClient, model: str, version: str, name: str, datatype: str, status: str, says: str
) -> None:
    own = client.get_model_metadata("iris")["inputs"][0]["name"]
    array = np.zeros((1, 4), np.float64 if datatype == "FP64" else np.float32)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(name or own, array, datatype)], model_version=version)
    assert caught.value.status() == status
    assert says in caught.value.message()


def test_async_infer_and_many_at_once(client: triton.InferenceServerClient) -> None:
    def one(seed: int) -> bool:
        sent = np.random.default_rng(seed).random((1 + seed % 7, 2), dtype=np.float32)
        inputs = [tensor(k.lower(), np.resize(v, sent.shape), k) for k, v in SAMPLES.items() if k != "FP32"]
        result = client.infer("echo", [*inputs, tensor("fp32", sent, "FP32")], request_id=str(seed))
        return bool(np.array_equal(result.as_numpy("fp32_out"), sent)) and result.get_response()["id"] == str(seed)

    pending = [
        client.async_infer("echo", echo_inputs(binary=True, types=sorted(SAMPLES)), request_id=str(n))
        for n in range(20)
    ]
    for number, call in enumerate(pending):
        assert call.get_result().get_response()["id"] == str(number)
    assert all(one(seed) for seed in range(50))


def test_threads_get_their_own_answers(server: Server) -> None:
    def talk(worker: int) -> bool:
        rows = np.roll(server.models.rows, worker, axis=0)[:3]
        with triton.InferenceServerClient(server.http) as mine:
            name = mine.get_model_metadata("iris")["inputs"][0]["name"]
            good = True
            for _ in range(20):
                answer = mine.infer("iris", [tensor(name, rows, "FP32")]).as_numpy("probabilities")
                good = good and np.allclose(answer, server.models.iris.predict_proba(rows), atol=1e-5)
            return good

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(talk, range(12)))


def test_aio(server: Server) -> None:
    async def talk() -> None:
        async with triton_aio.InferenceServerClient(server.http) as client:
            assert await client.is_server_ready()
            name = (await client.get_model_metadata("iris"))["inputs"][0]["name"]

            async def one(seed: int, binary: bool, compression: str | None) -> None:
                rows = np.roll(server.models.rows, seed, axis=0)[:2]
                result: Any = await client.infer(
                    "iris", [tensor(name, rows, "FP32", binary=binary)], request_id=str(seed),
                    request_compression_algorithm=compression, response_compression_algorithm=compression,
                )  # fmt: skip
                expected = server.models.iris.predict_proba(rows)
                np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-5)
                assert result.get_response()["id"] == str(seed)

            await asyncio.gather(*(one(n, n % 2 == 0, (None, "gzip", "deflate")[n % 3]) for n in range(60)))
            with pytest.raises(InferenceServerException, match="nobody"):
                await client.infer("nobody", [tensor(name, server.models.rows[:1], "FP32")])

    asyncio.run(talk())


@pytest.mark.parametrize("call", [lambda c: c.load_model("iris"), lambda c: c.unload_model("iris")])
def test_loading_by_name_is_refused(client: triton.InferenceServerClient, call: Any) -> None:
    with pytest.raises(
        InferenceServerException, match=r"failed to (un)?load .iris.: this server does not let its callers"
    ):
        call(client)
