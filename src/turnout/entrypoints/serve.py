"""`turnout serve`: words become a ServeSpec, the controller runs it, and a table says how to call it."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.controller import Controller
from turnout.deploy.load import detect_format
from turnout.deploy.spec import ModelSpec, ServeSpec
from turnout.formats.artifact import Artifact
from turnout.runtime.batch import BatchPolicy


def serve(arguments: argparse.Namespace) -> int:
    """Serves until stopped. Raises a Failure for words or artifacts that cannot work, before anything is started."""
    spec = spec_of(arguments)
    for model in spec.models:
        detect_format(model)
    logging.basicConfig(level=logging.INFO, format="turnout: %(message)s", stream=sys.stderr)
    return asyncio.run(_run(spec))


def spec_of(arguments: argparse.Namespace) -> ServeSpec:
    """The ServeSpec of parsed words. Raises InvalidInput."""
    batching = _policy(arguments)
    models = tuple(_model(word, arguments, batching) for word in arguments.models)
    return ServeSpec(
        models,
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        routers=arguments.routers,
        default_deadline=arguments.deadline,
        load_timeout=arguments.load_timeout,
        drain_timeout=arguments.drain_timeout,
        max_body_bytes=arguments.max_body_mb << 20,
        access_log=arguments.access_log,
    )


def _policy(arguments: argparse.Namespace) -> BatchPolicy:
    return BatchPolicy(
        max_rows=arguments.max_batch_rows, max_wait=arguments.max_batch_wait, queue_rows=arguments.queue_rows
    )


def _model(word: str, arguments: argparse.Namespace, batching: BatchPolicy) -> ModelSpec:
    name, equals, artifact = word.partition("=")
    if not equals or os.sep in name:
        artifact = word
        name = Artifact.of(word).name
    return ModelSpec(
        name,
        artifact,
        format=arguments.format,
        trust_pickle=arguments.trust_pickle,
        place=arguments.place,
        replicas=arguments.replicas,
        threads=arguments.threads,
        signature=arguments.signature,
        example=arguments.example,
        batching=batching,
    )


async def _run(spec: ServeSpec) -> int:
    controller = Controller(spec, lambda ready, served: print(table(ready, served), flush=True))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, controller.stop)
    try:
        code = await controller.run()
    except OSError as problem:
        print(f"turnout: {problem.strerror or problem}", file=sys.stderr)
        return 1
    if controller.failure:
        print(f"turnout: {controller.failure}", file=sys.stderr)
    return code


def table(spec: ServeSpec, served: dict[str, dict[str, Any]]) -> str:
    """What is served, where, and a command that calls it."""
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    url = f"http://{host}:{spec.port}"
    lines = ["", "  Turnout is ready.", ""]
    width = max(len(model.name) for model in spec.models)
    for model in spec.models:
        found = served[model.name]
        signature = Signature.from_json(found["signature"])
        where = "inline" if model.place == "inline" else f"{model.replicas} worker{'s' * (model.replicas > 1)}"
        lines.append(f"  {model.name:<{width}}  {found['format']}, {where}")
        lines.append(f"  {'':<{width}}    in   {_tensors(signature.inputs)}")
        lines.append(f"  {'':<{width}}    out  {_tensors(signature.outputs)}")
    signatures = {name: Signature.from_json(found["signature"]) for name, found in served.items()}
    examples = [(name, json.dumps(example_body(signature))) for name, signature in signatures.items()]
    name, example = min(examples, key=lambda pair: len(pair[1]))
    lines += [
        "",
        f"  REST  {url}      page {url}/docs      metrics {url}/metrics",
        f"  gRPC  {host}:{spec.grpc_port}",
        "",
        "  Try it:",
        f"  curl -s {url}/predict/{name} -H 'content-type: application/json' -d '{example}'",
        "",
    ]
    return "\n".join(lines)


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    shown = [f"{s.name} {s.datatype}[{', '.join('n' if d == -1 else str(d) for d in s.shape)}]" for s in specs[:6]]
    return ", ".join(shown) + (f" and {len(specs) - 6} more" if len(specs) > 6 else "")


def example_body(signature: Signature) -> Any:
    """A body for POST /predict/NAME that works: one row."""
    if len(signature.inputs) == 1:
        spec = signature.inputs[0]
        if spec.columns and len(spec.columns) <= 8 and len(spec.shape) == 2:
            return [dict.fromkeys(spec.columns, _value(spec))]
        return [_nested(spec.shape[1:], _value(spec))] if signature.batched else _nested(spec.shape, _value(spec))
    if signature.batched:
        return [{spec.name: _nested(spec.shape[1:], _value(spec)) for spec in signature.inputs}]
    return {spec.name: _nested(spec.shape, _value(spec)) for spec in signature.inputs}


def _value(spec: TensorSpec) -> Any:
    if spec.datatype == "BYTES":
        return "a"
    if spec.datatype == "BOOL":
        return True
    return 1 if "INT" in spec.datatype else 0.5


def _nested(shape: tuple[int, ...], value: Any) -> Any:
    return [_nested(shape[1:], value) for _ in range(max(1, shape[0]))] if shape else value
