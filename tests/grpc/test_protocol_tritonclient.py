"""tritonclient.grpc, unchanged, against the real door and the real methods: sync and aio."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

import turnout
from tests.grpc.protocol_server import WEIGHTS, Running, running, some_array
from turnout.core.errors import Code
from turnout.core.servable import State
from turnout.core.tensors import DTYPES


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as found:
        yield found


def tensor(name: str, array: Any, datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def test_live_ready_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "1")
    assert not client.is_model_ready("linear", "2")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata(as_json=True) == {
        "name": "turnout", "version": turnout.__version__, "extensions": ["binary_tensor_data", "parameters"],
    }  # fmt: skip
    metadata = client.get_model_metadata("linear", as_json=True)
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert [output["name"] for output in metadata["outputs"]] == ["scores", "best"]
    index = client.get_model_repository_index()
    assert {model.name: model.state for model in index.models}["linear"] == "READY"


def test_a_server_that_is_not_ready(client: triton.InferenceServerClient, server: Running) -> None:
    model: Any = server.models.find("broken")
    model.state, model.reason = State.FAILED, "the file is gone"
    try:
        assert not client.is_server_ready()
        assert not client.is_model_ready("broken")
        entry = next(one for one in client.get_model_repository_index().models if one.name == "broken")
        assert (entry.state, entry.reason) == ("UNAVAILABLE", "the file is gone")
    finally:
        model.state, model.reason = State.READY, ""


def test_the_simplest_call(client: triton.InferenceServerClient) -> None:
    sent = rows(3)
    result = client.infer("linear", [tensor("x", sent, "FP32")], request_id="my-id")
    np.testing.assert_array_equal(result.as_numpy("scores"), sent @ WEIGHTS)
    np.testing.assert_array_equal(result.as_numpy("best"), (sent @ WEIGHTS).argmax(axis=1))
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("linear", "1", "my-id")
    assert client.infer("linear", [tensor("x", sent, "FP32")]).get_response().id == ""


def test_outputs_version_and_parameters(client: triton.InferenceServerClient) -> None:
    parameters = {"flag": True, "count": 3, "name": "ü"}
    result = client.infer(
        "linear", [tensor("x", rows(1), "FP32")], model_version="1",
        outputs=[triton.InferRequestedOutput("best")], parameters=parameters,
    )  # fmt: skip
    assert result.as_numpy("scores") is None
    assert result.as_numpy("best").shape == (1,)
    answered = result.get_response().parameters
    assert answered["flag"].bool_param is True
    assert answered["count"].int64_param == 3
    assert answered["name"].string_param == "ü"


@pytest.mark.parametrize("datatype", sorted(DTYPES))
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_every_type_there_and_back(
    client: triton.InferenceServerClient, datatype: str, compression: str | None
) -> None:
    sent = some_array(datatype)
    result = client.infer(
        f"echo-{datatype}", [tensor("x", sent, datatype)], compression_algorithm=compression, request_id="é"
    )
    back = result.as_numpy("x")
    assert back.dtype == sent.dtype
    assert back.tolist() == sent.tolist()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_large_tensors(client: triton.InferenceServerClient, compression: str | None) -> None:
    sent = np.random.default_rng(1).integers(0, 3, size=(5000, 1000)).astype(np.float32)  # 20 MB
    result = client.infer("echo-FP32", [tensor("x", sent, "FP32")], compression_algorithm=compression)
    np.testing.assert_array_equal(result.as_numpy("x"), sent)


def refused(client: triton.InferenceServerClient, model: str, *inputs: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, list(inputs), **options)
    return caught.value.status(), caught.value.message()


def test_mistakes_come_back_with_their_status_and_what_to_do(client: triton.InferenceServerClient) -> None:
    good = tensor("x", rows(1), "FP32")
    status, text = refused(client, "nobody", good)
    assert (status, text) == ("StatusCode.NOT_FOUND", "no model 'nobody' is served here")
    assert refused(client, "linear", good, model_version="9")[0] == "StatusCode.NOT_FOUND"
    status, text = refused(client, "linear", good, model_version="abc")
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "model_version" in text
    status, text = refused(client, "linear", tensor("x", rows(1).astype(np.float64), "FP64"))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert text.startswith("inputs[0]: wrong data type; expected FP32; got FP64. Example that works: model_name:")
    assert "no output 'z'" in refused(client, "linear", good, outputs=[triton.InferRequestedOutput("z")])[1]
    status, text = refused(client, "broken", tensor("seconds", np.zeros(1), "FP64"))
    assert (status, text) == ("StatusCode.INTERNAL", "the model raised ZeroDivisionError")


def test_nothing_internal_is_told(client: triton.InferenceServerClient) -> None:
    status, text = refused(client, "broken", tensor("seconds", np.zeros(1), "FP64"), parameters={"unforeseen": True})
    assert status == "StatusCode.INTERNAL"
    assert "secret" not in text
    assert "KeyError" not in text


def test_a_client_timeout_ends_the_call_on_both_sides(client: triton.InferenceServerClient, server: Running) -> None:
    server.records.seen.clear()
    status, _ = refused(client, "sleepy", tensor("seconds", np.array([20.0]), "FP64"), client_timeout=0.15)
    assert status == "StatusCode.DEADLINE_EXCEEDED"
    for _ in range(200):
        if server.records.seen:
            break
        client.is_server_live()
    assert server.records.seen[0].code in (Code.DEADLINE_EXCEEDED, Code.CANCELLED)
    assert server.records.seen[0].total < 5


def test_metadata_and_the_id_reach_the_record(client: triton.InferenceServerClient, server: Running) -> None:
    server.records.seen.clear()
    client.infer("linear", [tensor("x", rows(2), "FP32")], request_id="r1", headers={"x-anything": "v"})
    (record,) = server.records.seen
    assert (record.model, record.version, record.code, record.rows, record.request_id) == (
        "linear",
        "1",
        Code.OK,
        2,
        "r1",
    )


def test_async_infer_with_callbacks(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    for seed in range(50):
        client.async_infer(
            "linear",
            [tensor("x", rows(1, seed), "FP32")],
            lambda result, error, seed=seed: answers.put((seed, result, error)),
        )
    for _ in range(50):
        seed, result, error = answers.get(timeout=20)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("scores"), rows(1, seed) @ WEIGHTS)


def test_nobody_gets_anothers_answer(client: triton.InferenceServerClient) -> None:
    def one(seed: int) -> bool:
        sent = rows(1 + seed % 5, seed)
        result = client.infer("linear", [tensor("x", sent, "FP32")], request_id=str(seed))
        same = np.array_equal(result.as_numpy("scores"), sent @ WEIGHTS)
        return bool(same) and result.get_response().id == str(seed)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(400)))


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.load_model("linear"),
        lambda c: c.unload_model("linear"),
        lambda c: c.get_model_config("linear"),
        lambda c: c.get_inference_statistics("linear"),
        lambda c: c.get_system_shared_memory_status(),
        lambda c: c.register_system_shared_memory("r", "/r", 8),
        lambda c: c.get_cuda_shared_memory_status(),
        lambda c: c.get_trace_settings(),
        lambda c: c.get_log_settings(),
    ],
)
def test_what_is_not_offered_says_so(client: triton.InferenceServerClient, call: Any) -> None:
    with pytest.raises(InferenceServerException, match="not offered") as caught:
        call(client)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_an_infer_stream_ends_with_unimplemented(server: Running) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(server.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        result, error = answers.get(timeout=20)
        client.stop_stream()
    assert result is None
    assert "ModelStreamInfer is not offered" in str(error)


@asynccontextmanager
async def aio_client(server: Running) -> AsyncIterator[Any]:
    client = triton_aio.InferenceServerClient(server.address)
    try:
        yield client
    finally:
        await client.close()


def test_aio(server: Running) -> None:
    async def talk() -> None:
        async with aio_client(server) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("linear")
            metadata = await client.get_model_metadata("linear")
            assert metadata.platform == "onnx"
            index = await client.get_model_repository_index(as_json=True)
            assert index["models"][0]["name"] == "linear"

            async def one(seed: int, compression: str | None) -> None:
                sent = rows(2, seed)
                made = triton_aio.InferInput("x", [2, 4], "FP32")
                made.set_data_from_numpy(sent)
                result = await client.infer("linear", [made], request_id=str(seed), compression_algorithm=compression)
                np.testing.assert_array_equal(result.as_numpy("scores"), sent @ WEIGHTS)
                assert result.get_response().id == str(seed)

            await asyncio.gather(*(one(seed, (None, "gzip", "deflate")[seed % 3]) for seed in range(200)))

    asyncio.run(talk())


def test_aio_failures_timeouts_and_cancellation(server: Running) -> None:
    async def talk() -> None:
        async with aio_client(server) as client:
            sleep = triton_aio.InferInput("seconds", [1], "FP64")
            sleep.set_data_from_numpy(np.array([20.0]))
            with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
                await client.infer("sleepy", [sleep], client_timeout=0.15)
            with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                await client.infer("nobody", [sleep])
            server.records.seen.clear()
            task = asyncio.ensure_future(client.infer("sleepy", [sleep]))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises((asyncio.CancelledError, InferenceServerException)):
                await task
            for _ in range(200):
                if server.records.seen:
                    break
                await client.is_server_live()
            assert server.records.seen[0].code is Code.CANCELLED

    asyncio.run(talk())
