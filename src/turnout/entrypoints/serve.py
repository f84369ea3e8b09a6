"""`turnout serve`: words become a ServeSpec, the controller runs it, and a table says how to call it."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.controller import Controller
from turnout.deploy.document import Document, parse_document
from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.kept import Kept
from turnout.deploy.load import detect_format, load_options
from turnout.deploy.locations import located_artifact
from turnout.deploy.policy import VersionPolicy
from turnout.deploy.repository import models_in, versions_in
from turnout.deploy.spec import ModelSpec, ServeSpec
from turnout.deploy.supply import Supply
from turnout.deploy.version import VersionSpec
from turnout.entrypoints.progress import Progress
from turnout.entrypoints.supervisor import supervise
from turnout.entrypoints.supplies import name_of, supply_of
from turnout.entrypoints.terminal import say
from turnout.protocols import examples
from turnout.runtime.batch_policy import BatchPolicy

#: A longer example is no help in a terminal; the page at /docs has it.
_EXAMPLE_LENGTH = 1000


def serve(arguments: argparse.Namespace) -> int:
    """Serves until stopped. Raises a Failure for words or artifacts that cannot work, before anything is started."""
    spec, supply, document = served_of(arguments)
    _check_doors(spec)
    for model in spec.models:
        load_options(signature=model.signature, example=model.example)  # what cannot be read is said at once
    found = ", ".join([_said(model) for model in spec.models] + [one.name for one in document.endpoints])
    logging.basicConfig(level=logging.INFO, format="turnout: %(message)s", stream=sys.stderr)
    say(f"loading {found} ...")
    if arguments.spec is None:  # whole paths, as in a spec file: one that says the same later changes nothing
        models = tuple(replace(one, artifact=located_artifact(one.artifact, Path.cwd())) for one in spec.models)
        spec, document = replace(spec, models=models), Document(models=models)
    return supervise(lambda kept: asyncio.run(_run(spec, supply, document, kept)))


def served_of(arguments: argparse.Namespace) -> tuple[ServeSpec, Supply, Document]:
    """What parsed words, and the spec file they may name, ask for. Raises InvalidInput."""
    supply = supply_of(arguments)
    if arguments.spec is None:
        spec = spec_of(arguments)
        return spec, supply, Document(models=spec.models)
    if arguments.models:
        raise InvalidInput(
            "models stand in the spec file or in the words, not in both",
            field="--spec",
            got=" ".join(arguments.models),
        )
    _check_only_doors(arguments)
    from turnout.deploy.spec_file import read_spec  # brings YAML, which no word needs

    path = Path(arguments.spec).absolute()
    read = read_spec(path)
    document = parse_document(read.text, str(path))
    return replace(read.spec, **_doors(arguments)), Supply(read.sources, read.environments), document


def _check_only_doors(arguments: argparse.Namespace) -> None:
    """Raises InvalidInput for an option that would be without effect, because the spec file says everything else."""
    counted = {"verb", "spec", "models", "host", "port", "grpc_port"}
    for name, value in vars(arguments).items():
        if name not in counted and value != arguments.parser.get_default(name):
            raise InvalidInput(
                "with --spec, the file says this",
                field="--" + name.replace("_", "-"),
                expected="of the options only --host, --port and --grpc-port",
            )


def _doors(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where it is called, as far as somebody says so."""
    said = {name: getattr(arguments, name) for name in ("host", "port", "grpc_port")}
    return {name: value for name, value in said.items() if value is not None}


def spec_of(arguments: argparse.Namespace) -> ServeSpec:
    """The ServeSpec of parsed words. Raises InvalidInput."""
    batching = _policy(arguments)
    models = tuple(model for word in arguments.models for model in _models(word, arguments, batching))
    return ServeSpec(
        models,
        **_doors(arguments),
        routers=arguments.routers,
        default_deadline=arguments.deadline,
        load_timeout=arguments.load_timeout,
        drain_timeout=arguments.drain_timeout,
        orphan_seconds=arguments.orphan_seconds,
        max_body_bytes=arguments.max_body_mb << 20,
        access_log=arguments.access_log,
        model_control=arguments.model_control,
        keep_going=arguments.keep_going,
    )


def _said(model: ModelSpec) -> str:
    """A model's name with its format, where one look at a local file tells that. Raises LoadFailed."""
    path = Path(model.artifact)
    if versions_in(path) is not None or (("${" in model.artifact or ":" in model.artifact) and not path.exists()):
        return f"{model.name} from {model.artifact}"
    return f"{model.name} ({detect_format(VersionSpec(model.name, model.artifact, format=model.format))})"


def _check_doors(spec: ServeSpec) -> None:
    """Raises InvalidInput for what a router would fail on only after it was started."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(spec.host, None)}
    except OSError:
        raise InvalidInput(
            "no address is known by that name",
            field="--host",
            expected="an address of this machine, such as 127.0.0.1 or 0.0.0.0",
            got=repr(spec.host),
        ) from None
    if spec.access_log not in {"stderr", "stdout", "off"}:
        try:
            with Path(spec.access_log).open("ab"):
                pass
        except OSError as problem:
            raise InvalidInput(
                f"cannot be written ({problem.strerror})",
                field="--access-log",
                expected="stderr, stdout, off or a file's path",
                got=repr(spec.access_log),
            ) from None
    if not all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found):
        say(f"{spec.host} can be reached from outside, and nobody is asked who they are: keep a firewall before it")


def _policy(arguments: argparse.Namespace) -> BatchPolicy:
    return BatchPolicy(
        max_rows=arguments.max_batch_rows, max_wait=arguments.max_batch_wait, queue_rows=arguments.queue_rows
    )


def _models(word: str, arguments: argparse.Namespace, batching: BatchPolicy) -> list[ModelSpec]:
    """The models that one word names: one, or all of a repository."""
    name, equals, artifact = word.partition("=")
    if not equals or os.sep in name:
        name, artifact = "", word
    inner = models_in(Path(artifact)) if not name else None
    if inner is not None:
        return [_model(inside, str(path), arguments, batching) for inside, path in inner.items()]
    return [_model(name or name_of(artifact), artifact, arguments, batching)]


def _model(name: str, artifact: str, arguments: argparse.Namespace, batching: BatchPolicy) -> ModelSpec:
    return ModelSpec(
        name,
        artifact,
        versions=VersionPolicy.parse(arguments.versions, "--versions"),
        environment=arguments.environment,
        compile=arguments.compile,
        watch=arguments.watch,
        on_change=arguments.on_change,
        swap=arguments.swap,
        keep=arguments.keep,
        format=arguments.format,
        trust_pickle=arguments.trust_pickle,
        place=arguments.place,
        replicas=arguments.replicas,
        threads=arguments.threads,
        signature=arguments.signature,
        example=arguments.example,
        batching=batching,
    )


async def _run(spec: ServeSpec, supply: Supply, document: Document, kept: Kept) -> int:
    progress = Progress()

    def announce(ready: ServeSpec, served: dict[str, dict[str, Any]]) -> None:
        progress.end()
        print(table(ready, served, document.endpoints), flush=True)

    controller = Controller(spec, supply, announce, progress, kept, document)
    loop = asyncio.get_running_loop()

    told = iter(("stopping: what is in flight is still answered; the next signal ends at once", "ending at once"))

    def stop() -> None:
        if text := next(told, ""):
            say(text)
        controller.stop()

    def reopen_logs() -> None:
        for router in controller.routers.all if controller.routers else ():
            if router.child and router.listening:
                os.kill(router.child.pid, signal.SIGHUP)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reopen_logs)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    try:
        code = await controller.run()
    except OSError as problem:
        if controller.routers is not None:
            raise
        say(problem.strerror or str(problem))
        return 1
    progress.end()
    if controller.failure:
        say(controller.failure)
    return code


def table(spec: ServeSpec, served: dict[str, dict[str, Any]], endpoints: Sequence[EndpointSpec] = ()) -> str:
    """What is served, where, and a command that calls it."""
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    url = f"http://{host}:{spec.port}"
    lines = ["", "  Turnout is ready.", ""]
    width = max(map(len, [one.name for one in spec.models] + [one.name for one in endpoints]))
    for endpoint in endpoints:
        shares = ", ".join(f"{version} {percent:g} %" for version, percent in endpoint.traffic.items() if percent)
        if endpoint.name not in served:
            lines.append(f"  {endpoint.name:<{width}}  NOT SERVED; `turnout status` says why")
            continue
        signature = Signature.from_json(served[endpoint.name]["signature"])
        lines.append(f"  {endpoint.name:<{width}}  endpoint: {shares}")
        lines.append(f"  {'':<{width}}    in   {_tensors(signature.inputs)}")
        lines.append(f"  {'':<{width}}    out  {_tensors(signature.outputs)}")
    for model in spec.models:
        if model.name not in served:
            lines.append(f"  {model.name:<{width}}  NOT SERVED; `turnout status` says why")
            continue
        found = served[model.name]
        signature = Signature.from_json(found["signature"])
        where = "inline" if model.place == "inline" else f"{model.replicas} worker{'s' * (model.replicas > 1)}"
        lines.append(f"  {model.name:<{width}}  {found['format']}, {where}")
        lines.append(f"  {'':<{width}}    in   {_tensors(signature.inputs)}")
        lines.append(f"  {'':<{width}}    out  {_tensors(signature.outputs)}")
    lines += [
        "",
        f"  REST  {url}      page {url}/docs      metrics {url}/metrics",
        f"  gRPC  {host}:{spec.grpc_port}",
        "",
        *_trial(url, {name: Signature.from_json(found["signature"]) for name, found in served.items()}),
        "  Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines)


def _trial(url: str, signatures: dict[str, Signature]) -> list[str]:
    """A command that asks the model whose request is the shortest, if one is short enough to be copied."""
    requests = [(name, json.dumps(example_body(signature))) for name, signature in signatures.items()]
    name, example = min(requests, key=lambda pair: len(pair[1]))
    if len(example) > _EXAMPLE_LENGTH:
        return [f"  Try it: {url}/docs has a request for each model.", ""]
    return [
        "  Try it:",
        f"  curl -s {url}/predict/{name} -H 'content-type: application/json' -d {shlex.quote(example)}",
        "",
    ]


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    shown = [f"{s.name} {s.datatype}[{', '.join('n' if d == -1 else str(d) for d in s.shape)}]" for s in specs[:6]]
    return ", ".join(shown) + (f" and {len(specs) - 6} more" if len(specs) > 6 else "")


def example_body(signature: Signature) -> Any:
    """A short body for POST /predict/NAME that works: by column where there are few, else by position."""
    if len(signature.inputs) == 1 and len(signature.inputs[0].columns) > 8:
        return examples.nested(signature.inputs[0])
    return examples.plain(signature)
