"""The conformance suite for REST codecs, and a door without sockets to drive protocols with.

`check_codec` holds for every codec, whatever its wire form: it decodes to exactly the arrays that were meant, answers
exactly what the servable answered, touches nothing that it was given, and meets every bad body with a typed failure
that is the caller's fault and shows nothing internal.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import numpy as np

from turnout.core import errors
from turnout.core.errors import Failure, Fault, InvalidInput, ModelNotFound, VersionNotFound
from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.servable import Servable, ServedModel, State
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors
from turnout.protocols.http import HttpRequest, HttpResponse, InferCodec, RestProtocol, Route, status_of

Predict = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class FunctionServable:
    """Answers with a plain function, at once."""

    predict: Predict
    version: str = "1"

    async def infer(self, request: InferRequest) -> InferResponse:
        """The function's outputs."""
        return InferResponse(self.predict(request.inputs), request.model, self.version, batch_rows=request.rows)


@dataclass(frozen=True)
class FakeModel:
    """A served model made of a signature and a function."""

    name: str
    signature: Signature
    predict: Predict
    version: str = "1"
    format: str = "function"
    state: State = State.READY
    reason: str = ""

    @property
    def servable(self) -> Servable:
        """What answers."""
        return FunctionServable(self.predict, self.version)


@dataclass(frozen=True)
class FakeServing:
    """A fixed set of models; the last version of a name is its default."""

    served: tuple[FakeModel, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether every model is ready."""
        return all(model.state is State.READY for model in self.served)

    def models(self) -> Sequence[ServedModel]:
        """All versions of all models."""
        return self.served

    def find(self, name: str, version: str = "") -> ServedModel:
        """The model; the only one for an empty name. Raises ModelNotFound or VersionNotFound."""
        names = list(dict.fromkeys(model.name for model in self.served))
        if not name and len(names) == 1:
            name = names[0]
        found = [model for model in self.served if model.name == name]
        if not found:
            raise ModelNotFound(f"there is no model {name!r}; served here: {', '.join(names) or 'none'}")
        chosen = [model for model in found if version in ("", model.version)]
        if not chosen:
            raise VersionNotFound(f"model {name!r} has no version {version!r}")
        return chosen[-1]


T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise RuntimeError("the servable waited for something")


class Matched(NamedTuple):
    """A route and what its path holds."""

    protocol: RestProtocol
    route: Route
    name: str
    version: str


def match(protocols: Sequence[RestProtocol], method: str, path: str) -> Matched | None:
    """The route of a path as a client sends it, or None."""
    for protocol in protocols:
        for route in protocol.routes():
            pattern = re.escape(route.pattern).replace(r"\{name\}", "(?P<name>[^/:]+)")
            pattern = pattern.replace(r"\{version\}", "(?P<version>[^/:]+)")
            found = re.fullmatch(pattern, path)
            if found and route.method == method:
                parts = found.groupdict()
                return Matched(protocol, route, unquote(parts.get("name", "")), unquote(parts.get("version", "")))
    return None


def call(
    protocols: Sequence[RestProtocol],
    serving: FakeServing,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """One request through a door without sockets. Raises LookupError where no route fits."""
    path, _, query = path.partition("?")
    matched = match(protocols, method, path)
    if matched is None:
        raise LookupError(f"no route for {method} {path}")
    protocol, route, name, version = matched
    http = HttpRequest(method, unquote(path), query, headers or {"content-type": "application/json"}, body)
    try:
        if route.answer is not None:
            answer = route.answer(http, serving, name, version)
            return answer if isinstance(answer, HttpResponse) else run(answer)
        assert route.codec is not None
        model = serving.find(name, version)
        request = route.codec.decode(http, model, Context(protocol=route.codec.name))
        return route.codec.encode(http, request, run(model.servable.infer(request)))
    except Failure as failure:
        return protocol.encode_failure(http, failure)


def whole(response: HttpResponse) -> bytes:
    """The body in one piece."""
    return response.body if isinstance(response.body, bytes) else b"".join(response.body)


def same(left: Tensors, right: Tensors) -> bool:
    """Whether two sets of tensors agree in names, types, shapes and every value (NaN equals NaN)."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and np.array_equal(left[name], right[name], equal_nan=left[name].dtype.kind == "f")
        for name in left
    )


def check_codec(
    codec: InferCodec,
    model: FakeModel,
    good: Sequence[tuple[HttpRequest, Tensors]],
    bad: Sequence[HttpRequest],
    read: Callable[[HttpRequest, HttpResponse], Tensors],
    *,
    mutations: int = 300,
    seed: int = 0,
) -> None:
    """Holds a codec to its contract; raises AssertionError where it does not keep it.

    `good`: requests and the arrays they mean. `bad`: requests that have to be refused. `read`: what a client makes of
    an answer to a request, as the outputs that it got under the model's names and types.
    """
    for http, meant in good:
        _check_good(codec, model, http, meant, read)
    for http in bad:
        _check_bad(codec, model, http)
    _check_failures(codec, good[0][0])
    chance = random.Random(seed)  # noqa: S311  test data
    for _ in range(mutations):
        http = chance.choice(good)[0]
        _decode_or_fail(codec, model, http._replace(body=mutate(bytes(http.body), chance)))


def _check_good(
    codec: InferCodec,
    model: FakeModel,
    http: HttpRequest,
    meant: Tensors,
    read: Callable[[HttpRequest, HttpResponse], Tensors],
) -> None:
    before, headers = bytes(http.body), dict(http.headers)
    outer = Context("outer", 12.5, caller="somebody", attributes=http, journey=Journey())
    request = codec.decode(http, model, outer)
    again = codec.decode(http, model, Context())
    assert (bytes(http.body), dict(http.headers)) == (before, headers), "decode changed the request"
    assert same(request.inputs, meant), f"decoded {dict(request.inputs)}, meant {dict(meant)}"
    assert same(again.inputs, meant), "decoding the same body again gave something else"
    assert (request.model, request.version) == (model.name, model.version)
    assert request.context[1:] == outer[1:], "the context got lost"
    response = run(model.servable.infer(request))
    copies = {name: array.copy() for name, array in response.outputs.items()}
    answer = codec.encode(http, request, response)
    assert answer.status == 200
    assert same(response.outputs, copies), "encode changed the outputs"
    got = read(http, answer)
    assert got, "the answer holds no output"
    assert same(got, {name: copies[name] for name in got}), f"read {dict(got)}, answered {copies}"


def _check_bad(codec: InferCodec, model: FakeModel, http: HttpRequest) -> None:
    failure = _decode_or_fail(codec, model, http)
    assert failure is not None, f"accepted {bytes(http.body)[:200]!r}"
    assert failure.fault is Fault.CALLER, f"{failure!r} is not the caller's fault"
    answer = codec.encode_failure(http, failure)
    assert 400 <= answer.status < 500 or answer.status == 501, answer.status


def _decode_or_fail(codec: InferCodec, model: FakeModel, http: HttpRequest) -> Failure | None:
    try:
        request = codec.decode(http, model, Context())
    except Failure as failure:
        _check_answer(codec.encode_failure(http, failure), failure)
        return failure
    for spec in model.signature.inputs:
        if spec.name in request.inputs:
            assert request.inputs[spec.name].dtype == spec.dtype
    return None


def _check_answer(answer: HttpResponse, failure: Failure) -> None:
    text = whole(answer).decode()
    assert isinstance(json.loads(text), dict), "an error body is a JSON object"
    assert answer.status == status_of(failure)
    for internal in ("Traceback", 'File "', "site-packages", "msgspec", "simdjson", "numpy", "object at 0x"):
        assert internal not in text, f"{internal} on the wire: {text[:300]}"
    assert len(text) < 20_000, "an error body that long helps nobody"


def _check_failures(codec: InferCodec, http: HttpRequest) -> None:
    """Every failure there is has a body, whatever its text."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Failure)]
    for kind in kinds:
        failure = (
            kind('a "quoted"\nline \ud800 \N{SNOWMAN}', retry_after=1.2) if kind is not InvalidInput else kind("x")
        )
        answer = codec.encode_failure(http, failure)
        _check_answer(answer, failure)
        if failure.retry_after is not None:
            assert ("Retry-After", "2") in answer.headers, "the caller has to learn how long to wait"


def mutate(body: bytes, chance: random.Random) -> bytes:
    """The body with a few bytes changed, cut, doubled or put in."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randint(1, 8)]
        elif kind == 2:
            data[at:at] = data[at : at + chance.randint(1, 20)]
        elif kind == 3:
            data[at:at] = chance.choice(_PIECES)
        else:
            del data[at:]
    return bytes(data)


_PIECES = (
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b'"',
    b"[",
    b"]",
    b"{",
    b"}",
    b"\x00",
    b"\xff",
    b"99999999999999999999",
    b"true",
    b'"\\ud800"',
    b",",
    b":",
)
