"""Where Turnout answers another way than Triton over REST."""

from __future__ import annotations

from typing import Any

from turnout import __version__

from ..case import JSON_TYPE
from ..ledger import ANY, Decision, Patch, accepted, refused
from ..models.catalog import CATALOG
from ..outcome import Outcome


def _broke(fact: Outcome) -> bool:
    return fact.get("status") == 500


def _refusal(fact: Outcome) -> bool:
    return fact.get("status", 0) >= 400 and "type" in fact  # an answer to HEAD has none


def _body(**body: Any) -> Patch:
    return {"type": JSON_TYPE, "body": body}


_SUM = {"datatype": "INT32", "shape": [1, 16], "data": list(range(1, 17))}
_DIFFERENCE = {"datatype": "INT32", "shape": [1, 16], "data": list(range(-1, 15))}
_SIMPLE = {"model_name": "simple", "model_version": "1", "outputs": {"OUTPUT0": _SUM, "OUTPUT1": _DIFFERENCE}}

DECISIONS = (
    Decision("refusals-are-json", ANY, {"type": JSON_TYPE, "body": "{error}"}, _refusal),
    Decision("caller-mistake-is-400", ANY, refused(), _broke),
    Decision("model-fault-is-500", ("infer: a model that raises",), refused(500)),
    Decision("health-has-a-body", ("paths: live", "paths: live with a query", "framing: a GET with a body",
                                   "framing: a header of 4 kB"), _body(live=True)),
    Decision("health-has-a-body", ("paths: ready",), _body(live=True, ready=True)),
    Decision("health-has-a-body", ("paths: model ready", "paths: version ready"), _body(name="simple", ready=True)),
    Decision("own-name-and-extensions", ("paths: server", "paths: server with a query"),
             {"body/name": "turnout", "body/version": __version__,
              "body/extensions": ["binary_tensor_data", "parameters"]}),
    Decision("server-path-with-slash", ("paths: server with a slash",),
             {"status": 200, "type": JSON_TYPE,
              "body": {"name": "turnout", "version": __version__, "extensions": ["binary_tensor_data", "parameters"]}}),
    Decision("platform-is-the-format", ("paths: model metadata*", "paths: version metadata"),
             {"body/platform": "onnx"}, lambda fact: fact.get("status") == 200),
    Decision("columns-are-told", ("paths: model metadata, columns",),
             {"body/platform": "python",
              "body/inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 4],
                               "parameters": {"columns": "a,b,c,d"}}]}),
    Decision("platform-is-the-format", ("paths: model metadata, text", "paths: model metadata, no row axis"),
             {"body/platform": "python"}),
    Decision("names-are-percent-decoded", ("paths: model metadata, encoded name",),
             accepted(name="simple", versions=["1"], platform="onnx",
                      inputs=[{"name": f"INPUT{n}", "datatype": "INT32", "shape": [-1, 16]} for n in (0, 1)],
                      outputs=[{"name": f"OUTPUT{n}", "datatype": "INT32", "shape": [-1, 16]} for n in (0, 1)])),
    Decision("names-are-percent-decoded", ("paths: model ready, encoded name",), accepted(name="simple", ready=True)),
    Decision("names-are-percent-decoded", ("infer: encoded name",), accepted(**_SIMPLE)),
    Decision("broken-percent-encoding", ("paths: model metadata, broken utf-8", "paths: model metadata, encoded nul",
                                         "paths: model metadata, cut percent"), refused(400)),
    Decision("unknown-model-is-404", ("paths: model ready, unknown", "paths: version ready, unknown*"), refused(404)),
    Decision("versions-are-exact", ("paths: version metadata, leading zeros", "paths: version metadata, huge version"),
             refused(404)),
    Decision("model-list", ("paths: model list",), accepted(models=[entry.name for entry in CATALOG])),
    Decision("root-path", ("paths: root",), accepted(status="alive")),
    Decision("head-and-options", ("methods: HEAD live", "methods: HEAD model metadata"), {"status": 200}),
    Decision("head-and-options", ("methods: OPTIONS *",), {"status": 200, "type": "text/plain", "body": ""}),
    Decision("nesting-must-fit-shape", ("forms: nested once too often", "forms: each number in a list",
                                        "forms: cut in two", "forms: ragged", "forms: mixed depth"), refused()),
    Decision("null-is-absent", ("ids: null", "outputs: null"), accepted(**_SIMPLE)),
    Decision("extensions-not-offered", ("parameters: sequence",), refused(501)),
    Decision("extensions-not-offered", ("extensions: configuration", "extensions: log settings",
                                        "extensions: trace settings", "extensions: shared memory*",
                                        "extensions: generate"), refused(404)),
    Decision("extensions-not-offered", ("extensions: load *", "extensions: unload *", "extensions: classification",
                                        "extensions: * in shared memory"), refused(501)),
    Decision("parameters-are-checked", ("parameters: of an input, not an object",
                                        "parameters: of an input, a list inside",
                                        "outputs: parameters not an object"), refused()),
    Decision("no-row-limit", ("infer: nine rows",),
             accepted(model_name="simple", model_version="1",
                      outputs={"OUTPUT0": _SUM | {"shape": [9, 16], "data": list(range(1, 17)) * 9},
                               "OUTPUT1": _DIFFERENCE | {"shape": [9, 16], "data": list(range(-1, 15)) * 9}})),
    Decision("out-of-range-is-refused", ("input: data over the type", "input: data under the type",
                                         "values: *INT* too large", "values: *INT* too small",
                                         "values: FP32 too large"), refused()),
    Decision("zero-rows-are-refused", ("shapes: zero by zero",), refused()),
    Decision("data-must-fit-shape", ("shapes: zero columns, with data",), refused()),
    Decision("json-is-rfc-8259", ("json: a byte order mark", "json: latin-1 in a string", "json: a nul at the end",
                                  "numbers: Inf"), refused()),
    Decision("last-member-wins", ("json: member inputs twice", "json: member data twice"), accepted(**_SIMPLE)),
    Decision("binary-answers-are-octets", ("binary: * zero elements", "raw: no bytes"),
             {"type": "application/octet-stream"}),
    Decision("binary-flag-of-the-request", ("binary: an output against the request's flag",),
             {"type": "application/octet-stream", "body/outputs/OUTPUT1/binary": True}),
    Decision("header-length-is-digits", ("binary: length with a plus", "binary: length two numbers"), refused()),
    Decision("booleans-are-0-or-1", ("binary: booleans other than 0 and 1",), refused()),
    Decision("bytes-in-json-are-text", ("binary: BYTES, not text, out in JSON",), refused()),
    Decision("unknown-methods", ("methods: BREW live",), refused(501)),
    Decision("coding-of-bodies", ("encoding: gzip in capitals", "encoding: empty name",
                                  "encoding: deflate without the zlib frame"), accepted(**_SIMPLE)),
    Decision("coding-must-be-true", ("encoding: gzip with a broken checksum", "encoding: gzip with bytes after it",
                                     "encoding: gzip announced as deflate"), refused()),
    Decision("ambiguous-framing", ("framing: chunked with a content length", "framing: two equal lengths",
                                   "framing: a negative length", "framing: a length that is a word",
                                   "framing: an unknown transfer encoding", "framing: a header name with a space",
                                   "framing: chunked, a length that is no number"), refused()),
    Decision("chunk-extensions", ("framing: chunked with an extension",), accepted(**_SIMPLE)),
    Decision("accept-encoding-is-heeded", ("accept encoding: deflate first", "accept encoding: anything"),
             {"encoding": "gzip"}),
    Decision("small-answers-stay-plain", ("accept encoding: gzip, a small answer",
                                          "encoding: gzip with tensors both ways"), {"encoding": None}),
)  # fmt: skip
