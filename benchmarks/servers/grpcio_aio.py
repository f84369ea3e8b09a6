"""A hand-written gRPC server on grpcio.aio with onnxruntime: what a careful engineer writes in an afternoon.

The messages are built from descriptors in a private pool, so that nothing has to be generated; protobuf's C parser
(upb) reads them, as it does for generated classes.
"""

import asyncio
import sys

import grpc
import numpy as np
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from onnx_model import MODELS, load

FIELDS = {  # message: (name, number, type, repeated); types: 9 string, 12 bytes, 3 int64, 11 message
    "InferInputTensor": [("name", 1, 9, 0), ("datatype", 2, 9, 0), ("shape", 3, 3, 1)],
    "InferOutputTensor": [("name", 1, 9, 0), ("datatype", 2, 9, 0), ("shape", 3, 3, 1)],
    "ModelInferRequest": [
        ("model_name", 1, 9, 0), ("id", 3, 9, 0),
        ("inputs", 5, ".inference.InferInputTensor", 1), ("raw_input_contents", 7, 12, 1),
    ],
    "ModelInferResponse": [
        ("model_name", 1, 9, 0), ("id", 3, 9, 0),
        ("outputs", 5, ".inference.InferOutputTensor", 1), ("raw_output_contents", 6, 12, 1),
    ],
}  # fmt: skip


def message_classes():
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package="inference", syntax="proto3")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if isinstance(kind, str):
                added.type, added.type_name = 11, kind
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in FIELDS}


CLASSES = message_classes()
sessions = {name: load(name) for name in MODELS}


async def infer(request, context):
    tensor = request.inputs[0]
    rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(tensor.shape))
    (answer,) = sessions[request.model_name].run(None, {"x": rows})
    output = CLASSES["InferOutputTensor"](name="probabilities", datatype="FP32", shape=answer.shape)
    return CLASSES["ModelInferResponse"](
        model_name=request.model_name, id=request.id, outputs=[output], raw_output_contents=[answer.tobytes()]
    )


def method(function, name):
    return grpc.unary_unary_rpc_method_handler(
        function,
        request_deserializer=CLASSES[f"{name}Request"].FromString,
        response_serializer=CLASSES[f"{name}Response"].SerializeToString,
    )


async def main():
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=unlimited)
    methods = {"ModelInfer": method(infer, "ModelInfer")}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


uvloop.install()
asyncio.run(main())
