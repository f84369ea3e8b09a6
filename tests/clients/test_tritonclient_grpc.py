"""tritonclient.grpc, unchanged, against `turnout serve`: the same answers as over REST and as the model's own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from tests.clients.echoes import SAMPLES, assert_same
from tests.clients.running import Server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as found:
        yield found


def tensor(name: str, array: np.ndarray, datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_every_type_there_and_back(client: triton.InferenceServerClient, compression: str | None) -> None:
    inputs = [tensor(datatype.lower(), array, datatype) for datatype, array in SAMPLES.items()]
    result = client.infer("echo", inputs, request_id="é", compression_algorithm=compression)
    for datatype, sent in SAMPLES.items():
        assert_same(result.as_numpy(f"{datatype.lower()}_out"), sent)
    assert result.get_response().id == "é"


def test_grpc_rest_and_the_model_itself_agree(client: triton.InferenceServerClient, server: Server) -> None:
    name = client.get_model_metadata("iris").inputs[0].name
    for count in (1, 2, 150):
        rows = server.models.rows[:count]
        over_grpc = client.infer("iris", [tensor(name, rows, "FP32")])
        with triton_http.InferenceServerClient(server.http) as other:
            made = triton_http.InferInput(name, list(rows.shape), "FP32")
            made.set_data_from_numpy(rows)
            over_rest = other.infer("iris", [made])
        for output in ("label", "probabilities"):
            assert_same(over_grpc.as_numpy(output), over_rest.as_numpy(output))
        np.testing.assert_array_equal(over_grpc.as_numpy("label"), server.models.iris.predict(rows))
        expected = server.models.iris.predict_proba(rows)
        np.testing.assert_allclose(over_grpc.as_numpy("probabilities"), expected, atol=1e-5)


def test_a_large_batch(client: triton.InferenceServerClient, server: Server) -> None:
    rows = np.tile(server.models.rows, (1000, 1))  # 150,000 rows, 2.4 MB
    result = client.infer("iris", [tensor(client.get_model_metadata("iris").inputs[0].name, rows, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("label"), server.models.iris.predict(rows))


def test_mistakes_are_named(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="nobody") as caught:
        client.infer("nobody", [])
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="Example that works") as caught:
        client.infer("iris", [tensor("x", np.zeros((1, 3), np.float32), "FP32")])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
