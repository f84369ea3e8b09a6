"""Talks to a server with KServe's own clients and prints as JSON what they gave.

Usage: kserve_client.py HTTP GRPC INPUT ROWS, addresses as host:port, ROWS as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request(name: str, rows: np.ndarray, *, binary: bool, model: str = "iris") -> InferRequest:
    tensor = InferInput(name=name, shape=list(rows.shape), datatype="FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="my-id")


def answer(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = {output.name: output.as_numpy().tolist() for output in response.outputs}
    return found | {"id": response.id, "model": response.model_name}


async def rest(base: str, name: str, rows: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    v2 = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    found["live"] = await v2.is_server_live(base)
    found["ready"] = await v2.is_server_ready(base)
    found["model_ready"] = await v2.is_model_ready(base, "iris")
    for binary in (True, False):
        response = await v2.infer(base, request(name, rows, binary=binary), model_name="iris")
        found[f"v2_binary_{binary}".lower()] = answer(response)
    try:
        await v2.infer(base, request(name, rows, binary=False, model="nobody"), model_name="nobody")
    except httpx.HTTPStatusError as problem:
        found["v2_unknown"] = [problem.response.status_code, str(problem)]
    await v2.close()
    v1 = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    found["v1_live"] = await v1.is_server_live(base)
    found["v1_model_ready"] = await v1.is_model_ready(base, "iris")
    found["v1"] = await v1.infer(base, {"instances": rows.tolist()}, model_name="iris")
    try:
        await v1.infer(base, {"instances": [[1.0]]}, model_name="iris")
    except httpx.HTTPStatusError as problem:
        found["v1_wrong"] = [problem.response.status_code, str(problem)]
    await v1.close()
    return found


async def over_grpc(address: str, name: str, rows: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceGRPCClient(address, retries=0) as client:
        found["live"] = await client.is_server_live()
        found["ready"] = await client.is_server_ready()
        found["model_ready"] = await client.is_model_ready("iris")
        found["unknown_ready"] = await client.is_model_ready("nobody")
        for binary in (True, False):  # raw_input_contents, or typed contents
            found[f"binary_{binary}".lower()] = answer(await client.infer(request(name, rows, binary=binary)))
        many = await asyncio.gather(*(client.infer(request(name, rows, binary=True)) for _ in range(50)))
        found["same"] = all(answer(one) == found["binary_true"] for one in many)
        try:
            await client.infer(request(name, rows, binary=True, model="nobody"))
        except grpc.RpcError as problem:
            found["unknown"] = [problem.code().name, problem.details()]
    return found


async def main() -> None:
    http, address, name, rows_json = sys.argv[1:]
    rows = np.array(json.loads(rows_json), dtype=np.float32)
    found = {"grpc": await over_grpc(address, name, rows)}
    if http:
        found["rest"] = await rest(f"http://{http}", name, rows)
    sys.stdout.write(json.dumps(found))


asyncio.run(main())
