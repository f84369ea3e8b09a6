"""ModelInfer requests as tritonclient's own protobuf writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import serialize_byte_tensor

from turnout.core.tensors import Array
from turnout.protocols.v2_grpc_contents import LISTS


def raw_bytes(array: Array) -> bytes:
    if array.dtype.kind == "O":
        packed = serialize_byte_tensor(array)
        return packed.item() if packed.size else b""
    return array.tobytes()


def request(model: str, *tensors: tuple[str, str, Array], raw: bool = True, **fields: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, **fields)
    for name, datatype, array in tensors:
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            message.raw_input_contents.append(raw_bytes(array))
        else:
            getattr(tensor.contents, LISTS[datatype]).extend(array.ravel().tolist())
    return message


def iris(**fields: Any) -> pb.ModelInferRequest:
    return request("iris", ("x", "FP32", np.arange(8, dtype=np.float32).reshape(2, 4)), **fields)
