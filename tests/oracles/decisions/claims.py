"""Why MLServer and KServe differ from what Turnout does over protocol v2."""

from __future__ import annotations

from typing import Any

from ..ledger import ANY, Claim

BOTH = ("mlserver", "kserve")


def _each(
    id: str, aspect: str, cases: tuple[str, ...] = ANY, oracles: tuple[str, ...] = BOTH, **more: Any
) -> tuple[Claim, ...]:
    return tuple(Claim(id, oracle, aspect, cases, **more) for oracle in oracles)


def _lenient(id: str, *cases: str, oracles: tuple[str, ...] = BOTH) -> tuple[Claim, ...]:
    """The oracle answers where Turnout refuses."""
    return _each(id, "status", cases, oracles, want=400, got=200)


def _narrower(id: str, got: int, *cases: str, oracles: tuple[str, ...] = BOTH) -> tuple[Claim, ...]:
    """The oracle refuses, or breaks, where Turnout answers."""
    return _each(id, "status", cases, oracles, want=200, got=got)


ML, KS = ("mlserver",), ("kserve",)

_REFUSALS = (
    *_each("caller-mistake-is-400", "status", want=400, got=422),
    *_each("caller-mistake-is-400", "status", want=400, got=500),
    *_each("caller-mistake-is-400", "status", ("infer: unknown model, bad body",), want=404, got=422),
    *_each("caller-mistake-is-400", "status", want="INVALID_ARGUMENT", got="INTERNAL"),
    *_each("caller-mistake-is-400", "status", want="INVALID_ARGUMENT", got="UNKNOWN"),
    *_each("refusals-are-json", "body", want="{error}", got="{detail}"),
    *_each("refusals-are-json", "body", ("infer: a model that raises",), ML),
    *_each("refusals-are-json", "type", ("infer: a model that raises",), ML),
    *_each("refusals-are-json", "body", ("framing: *",), got="Invalid HTTP request received."),
    *_each("refusals-are-json", "type", ("framing: *",)),
)

_STRICTER = (
    *_lenient("nesting-must-fit-shape", "forms: nested once too often", "forms: each number in a list",
              "forms: cut in two"),
    *_lenient("no-silent-casts", "forms: whole floats", "json: a whole number with an exponent",
              "input: data of *", "input: data one *", "values: INT64 a *", "values: FP* a *", "values: FP* null",
              "values: BOOL *", "values: BYTES *"),
    *_lenient("out-of-range-is-refused", "values: FP32 too large"),
    *_lenient("out-of-range-is-refused", "numbers: a number beyond a double", oracles=KS),
    *_lenient("inputs-are-the-models", "inputs: one too many", "inputs: one twice and the other",
              "inputs: of different rows"),
    *_lenient("inputs-are-the-models", "input: datatype a*", oracles=ML),
    *_lenient("datatype-names-are-exact", "input: datatype in small letters", oracles=KS),
    *_lenient("shapes-are-the-models", "input: shape *", "shapes: three axes", "shapes: one axis", "shapes: no axis"),
    *_lenient("shapes-are-the-models", "shapes: no axis, a bare number", oracles=ML),
    *_lenient("zero-rows-are-refused", "input: zero rows", "shapes: zero rows", "shapes: zero by zero", oracles=ML),
    *_lenient("parameters-are-checked", "parameters: null", "parameters: list", "parameters: object",
              "parameters: of an input, a list inside", oracles=ML),
    *_lenient("reserved-parameters", "parameters: reserved name"),
    *_lenient("flags-are-booleans", "outputs: flag is *"),
    *_lenient("flags-are-booleans", "binary: flag is *", oracles=KS),
    *_lenient("outputs-must-exist", "outputs: unknown", "outputs: one unknown", "outputs: an input's name",
              "outputs: empty name", oracles=ML),
    *_lenient("half-floats-have-no-json", "infer: half floats in JSON", oracles=ML),
    *_lenient("json-is-rfc-8259", "json: a byte order mark", "json: utf-16", oracles=KS),
    *_lenient("data-must-fit-shape", "binary: data and size together", "binary: *left over", oracles=KS),
    *_lenient("header-length-is-digits", "binary: length with a plus", oracles=KS),
    *_lenient("booleans-are-0-or-1", "binary: booleans other than 0 and 1", oracles=KS),
    *_lenient("coding-must-be-true", "encoding: deflate that is not"),
    *_lenient("coding-must-be-true", "encoding: gzip that is not", oracles=KS),
    *_each("unknown-coding-is-501", "status", want=501, got=200, cases=("encoding: *",)),
    *_each("unknown-coding-is-501", "status", want=501, got=422, cases=("encoding: *",), oracles=ML),
    *_each("unknown-coding-is-501", "status", want=501, got=400, cases=("encoding: *",), oracles=KS),
    *_each("extensions-not-offered", "status", ("parameters: sequence", "extensions: *"), want=501),
    *_each("extensions-not-offered", "status", ("extensions: generate",), ML, want=404, got=422),
    *_each("flags-are-booleans", "status", ("extensions: index, ready is a word",), ML, want=400, got=200),
    *_each("repository-index", "status", ("extensions: index*",), KS, got=404),
    *_each("repository-index", "status", ("grpc extensions: index*",), KS, got="UNIMPLEMENTED"),
    *_narrower("repository-index", 422, "extensions: index", oracles=ML),
    *_each("repository-index", "body", ("extensions: index*",), ML),
    *_each("repository-index", "body/models", ("grpc extensions: index*",), ML),
    *_each("extensions-not-offered", "status", ("grpc extensions: *",), want="UNIMPLEMENTED"),
)  # fmt: skip

_WIDER = (
    *_narrower("numbers-that-are-none", 422, "numbers: NaN*", "numbers: Infinity", oracles=ML),
    *_each("numbers-that-are-none", "body/outputs/OUTPUT0/data", ("numbers: NaN*", "numbers: Infinity",
                                                                 "binary: FP* in"), KS),
    *_each("numbers-that-are-none", "status", ("grpc types: FP*",), ML, want="OK", got="INTERNAL"),
    *_narrower("content-type-is-not-needed", 422, "content type: *", oracles=ML),
    *_narrower("content-type-is-not-needed", 400, "content type: *", oracles=KS),
    *_narrower("content-type-is-not-needed", 422, "binary: content type json", oracles=KS),
    *_narrower("binary-tensors", 422, "binary: *", "raw: *", "encoding: gzip with tensors*", oracles=ML),
    *_narrower("binary-tensors", 500, "binary: *", "raw: *", oracles=ML),
    *_narrower("binary-tensors", 400, "raw: one tensor", "raw: a model with rows", oracles=KS),
    *_narrower("binary-tensors", 422, "raw: no bytes", oracles=KS),
    *_narrower("binary-tensors", 500, "binary: BYTES, not text, in and out", oracles=KS),
    *_each("binary-tensors", "body/outputs/*/binary", ("binary: *", "accept encoding: *"), ML),
    *_each("binary-tensors", "type", ("binary: *", "accept encoding: *"), ML),
    *_each("binary-flag-of-the-request", "body/outputs/OUTPUT1/binary", oracles=KS),
    *_each("binary-flag-of-the-request", "type", ("binary: an output against the request's flag",), KS),
    *_each("binary-answers-are-octets", "type", ("binary: *", "accept encoding: *"), KS, got="(absent)"),
    *_narrower("empty-tensors-are-answered", 500, "types: * zero elements", "infer: no row axis, empty",
               "shapes: zero columns, *", oracles=KS),
    *_narrower("ids-are-any-text", 500, "ids: unicode", oracles=ML),
    *_each("ids-are-any-text", "status", ("ids: control characters",), ML),
    *_each("ids-are-any-text", "status", ("grpc infer: with an id in unicode",), ML, want="OK", got="INTERNAL"),
    *_narrower("head-and-options", 405, "methods: HEAD *", "methods: OPTIONS *"),
    *_narrower("server-path-with-slash", 307, "paths: server with a slash"),
    *_each("server-path-with-slash", "status", ("paths: *", "infer: with a slash at the end"), want=404, got=307),
    *_narrower("model-list", 404, "paths: model list", oracles=ML),
    *_narrower("versions-in-paths", 501, "paths: version *", "infer: with a version", oracles=KS),
    *_each("versions-in-paths", "status", ("paths: version *", "infer: with an unknown version"), KS,
           want=404, got=501),
)  # fmt: skip

_PATHS = (
    *_each("broken-percent-encoding", "status", ("paths: model metadata, *",), want=400, got=404),
    *_each("names-are-percent-decoded", "status", ("paths: model metadata, encoded slash",), want=404, got=200),
    *_narrower("root-path", 404, "paths: root", oracles=ML),
    *_each("unknown-methods", "status", ("methods: BREW live",), want=501),
    *_each("health-has-a-body", "body", ("paths: *", "framing: *"), ML, got=""),
    *_each("health-has-a-body", "type", ("paths: *", "framing: *"), ML, got="(absent)"),
    *_each("health-has-a-body", "body/live", ("paths: ready",), KS),
    *_each("own-name-and-extensions", "body/name", ("*server*",)),
    *_each("own-name-and-extensions", "body/version", ("*server*",)),
    *_each("own-name-and-extensions", "body/extensions", ("*server*",)),
    *_each("platform-is-the-format", "body/platform"),
    *_each("versions-are-listed", "body/versions"),
    *_each("columns-are-told", "body/inputs", ("paths: model metadata, columns",)),
)

_EXTRA = (
    *_each("answers-carry-no-extras", "body/parameters"),
    *_each("answers-say-who-gave-them", "body/provenance"),
    *_each("answers-carry-no-extras", "body/outputs/*/parameters"),
    *_each("ids-are-echoed-only", "body/id", want="(absent)"),
    *_each("versions-are-listed", "body/model_version", oracles=KS, want="1"),
    *_each(
        "asked-outputs-only", "body/outputs/OUTPUT*", ("outputs: *", "grpc infer: *", "extensions: *"), want="(absent)"
    ),
    *_each("shapes-come-as-they-are", "body/outputs/*/shape", oracles=ML),
    *_each("grpc-answers-are-raw", "body/outputs/*/raw", oracles=ML),
    *_each("accept-encoding-is-heeded", "encoding"),
)

_FRAMING = (
    *_narrower("coding-of-bodies", 422, "encoding: *", oracles=ML),
    *_lenient("ambiguous-framing", "framing: *", oracles=ML),
    *_narrower("coding-of-bodies", 400, "encoding: *", oracles=KS),
)

_GRPC = (
    *_each("inputs-are-the-models", "status", ("grpc rules: an input too many", "grpc rules: different rows"),
           want="INVALID_ARGUMENT", got="OK"),
    *_each("inputs-are-the-models", "status", ("grpc rules: data type another",), ML),
    *_each("shapes-are-the-models", "status", ("grpc rules: shape *", "grpc rules: three axes for two"),
           want="INVALID_ARGUMENT", got="OK"),
    *_each("zero-rows-are-refused", "status", ("grpc rules: zero rows",)),
    *_each("surplus-raw-contents", "status", ("grpc rules: raw one too many", "grpc rules: raw and typed together"),
           ML),
    *_each("typed-contents-are-exact", "status", ("grpc rules: typed in *", "grpc rules: typed as floats"),
           want="INVALID_ARGUMENT", got="OK"),
    *_each("data-must-fit-shape", "status", ("grpc rules: raw BYTES, one *",), ML),
    *_each("outputs-must-exist", "status", ("grpc rules: an unknown output", "grpc rules: an output without a name")),
    *_each("reserved-parameters", "status", ("grpc rules: a reserved parameter",)),
    *_each("parameters-are-checked", "status", ("grpc rules: a parameter without a value",)),
    *_each("empty-name-is-invalid", "status", ("*no name", "*no model name", "*an empty message"),
           want="INVALID_ARGUMENT", got="NOT_FOUND"),
    *_each("versions-are-exact", "status", ("*version is a word", "*version negative"), ML,
           want="INVALID_ARGUMENT", got="NOT_FOUND"),
    *_each("versions-in-paths", "status", ("grpc *version*",), KS, got="OK"),
    *_each("versions-in-paths", "body/ready", ("grpc ready: *version*",), KS),
    *_each("unknown-model-is-404", "status", ("grpc ready: unknown*", "grpc ready: version with leading zeros"),
           want="OK"),
)  # fmt: skip

CLAIMS: tuple[Claim, ...] = (*_REFUSALS, *_STRICTER, *_WIDER, *_PATHS, *_EXTRA, *_FRAMING, *_GRPC)
