"""What a document may say, as a JSON Schema: for editors, which complete and check while somebody types.

It says less than reading the document does: names that refer to each other and sums are checked there only.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from turnout.deploy.endpoint_spec import KEYS
from turnout.deploy.environments.environment import IndexPolicy
from turnout.deploy.rollout.policy import RolloutPolicy
from turnout.deploy.server_settings import APART, SIZES
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.spec import WORDS, ModelSpec, ServeSpec
from turnout.deploy.variants import POLICIES, RUN
from turnout.graph.cascade import CascadePolicy
from turnout.graph.endpoint import EndpointPolicy
from turnout.graph.ensemble import EnsemblePolicy
from turnout.graph.fallback_policy import FallbackPolicy
from turnout.graph.last_good import LastGoodPolicy
from turnout.graph.limits import LimitsPolicy
from turnout.graph.outputs import OutputRange
from turnout.graph.shadow import ShadowPolicy
from turnout.graph.split import SplitPolicy
from turnout.runtime.batch_policy import BatchPolicy

Schema = dict[str, Any]
#: What the docstrings leave to the names.
_SAID = {
    "name": "What callers call it: letters, digits, '.', '_' and '-'.",
    "format": "The format's name; detected where nothing is said.",
    "trust_pickle": "Whether loading may run code from the file.",
    "replicas": "Worker processes.",
    "host": "The address to listen on.",
    "port": "The HTTP port; 0 for a free one.",
    "grpc_port": "The gRPC port; 0 for a free one.",
    "routers": "Router processes that share the ports.",
    "max_body_bytes": "The largest request.",
    "access_log": "Where a line for each request goes: stderr, stdout, off or a path.",
}
_NAME = {"pattern": "^[A-Za-z0-9][A-Za-z0-9_.\\-]{0,127}$"}
_REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^${}]*)?\}"}
_SIZE = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? *([KMGT]i?B|B)?$"}
_PERCENT = {"type": "number", "minimum": 0, "maximum": 100}
_MEANINGS = re.compile(r"(?:^|(?<=[.;] )|(?<=\n))((?:`?\w+`?, )*`?\w+`?): ")
_STRUCTS = (
    *POLICIES.values(), SplitPolicy, FallbackPolicy, LastGoodPolicy, LimitsPolicy, ShadowPolicy, EndpointPolicy,
    RolloutPolicy, EnsemblePolicy, CascadePolicy, OutputRange,
)  # fmt: skip


def schema() -> Schema:
    """The whole schema, as JSON values."""
    _, definitions = msgspec.json.schema_components(_STRUCTS, ref_template="#/$defs/{name}")
    found = {name: _described(one) for name, one in definitions.items() if name != "OutputsPolicy"}
    found["outputs"] = _outputs(_described(definitions["OutputsPolicy"]))
    found |= {
        "batching": _dataclass(BatchPolicy),
        "model": _model(),
        "version": _version(),
        "endpoint": _endpoint(found),
    }
    include = {"type": "string", "minLength": 1}
    file = _object({"file": include, "outside": {"type": "boolean"}}, ["file"])
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What Turnout serves",
        **_object(
            {
                "include": {
                    "description": "Other files that are part of this document; their paths count from this file.",
                    "anyOf": [include, {"type": "array", "items": {"anyOf": [include, file]}}],
                },
                "models": {
                    "description": "Models that are served by themselves.",
                    "type": ["array", "null"], "items": _ref("model"),
                },
                "endpoints": {
                    "description": "What callers call by name, and how their requests are guided between versions.",
                    **_map(_ref("endpoint")),
                },
                "server": _dataclass(ServeSpec, without=APART, references=("host", "port", "grpc_port", "store")),
                "sources": _dataclass(SourceSettings),
                "environments": _dataclass(IndexPolicy),
            }
        ),
        "$defs": dict(sorted(found.items())),
    }  # fmt: skip
    plain: Schema = json.loads(json.dumps(whole))
    return plain


def meanings(docstring: str) -> dict[str, str]:
    """What a docstring says of each field: `name: meaning.`, or `one, other: meaning.`."""
    lines = "\n".join(line.strip() for line in docstring.splitlines())
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", lines)
    parts = _MEANINGS.split(text)
    found: dict[str, str] = {}
    for names, meaning in zip(parts[1::2], parts[2::2], strict=True):
        clean = " ".join(meaning.split()).rstrip(".;")
        for name in names.split(", "):
            found[name.strip("`")] = f"{clean[:1].upper()}{clean[1:]}."
    return found


def _described(found: Schema) -> Schema:
    """The same with a meaning for each property, taken from the docstring, and without what editors do not need."""
    description = found.pop("description", "")
    said = meanings(description)
    summary = _MEANINGS.split(" ".join(description.split()))[0].strip()
    for name, one in found.get("properties", {}).items():
        if one.get("default", ...) in (None, [], {}):
            one.pop("default", None)
        if name in said:
            found["properties"][name] = {"description": said[name], **one}
    if not found.get("required"):
        found.pop("required", None)
    return {**({"description": summary} if summary else {}), **found}


def _outputs(found: Schema) -> Schema:
    return {**found, "title": "outputs", "additionalProperties": _ref("OutputRange")}


def _model() -> Schema:
    own = _dataclass(ModelSpec)["properties"]
    return {
        "description": "A model that is served by itself.",
        **_object({**own, **_run(), "versions": _VERSIONS, "labels": _LABELS}, ["name", "artifact"]),
    }


def _version() -> Schema:
    """A version is a model, an ensemble or a cascade, with policies of its own."""
    model = {"description": "Where the model is: a path, a URI, or Python code as python:FILE:NAME.", "type": "string"}
    kinds = {"model": {**model, "minLength": 1}, "ensemble": _ref("EnsemblePolicy"), "cascade": _ref("CascadePolicy")}
    return {
        "description": "A version of an endpoint: a model, an ensemble or a cascade.",
        **_object({**kinds, **{key: one for key, one in _run().items() if key in RUN}, **_policies()}),
        "oneOf": [{"required": [kind]} for kind in kinds],
        "dependentSchemas": {key: {"required": ["model"]} for key in RUN},
    }


def _endpoint(definitions: Mapping[str, Schema]) -> Schema:
    split = definitions["SplitPolicy"]["properties"]
    steps = {"type": "array", "items": _step()}
    fallback = definitions["FallbackPolicy"]["properties"]
    properties = {
        "versions": {**_map(_ref("version")), "minProperties": 1},
        "traffic": {
            "description": "Percent by version, 100 in all; left out, the first version answers all.",
            **_map(_PERCENT, null=True),
        },
        **split,
        "shadow": {
            "description": "Percent of the requests that are also sent to a version, or all settings, by version.",
            **_map({"anyOf": [_PERCENT, _ref("ShadowPolicy")]}, null=True),
        },
        "fallback": {
            "description": "Who stands in, in this order: versions, the last good answer, constant values.",
            "anyOf": [steps, _object({"steps": steps, **fallback}), {"type": "null"}],
        },
        "hedge": fallback["hedge"],
        "deadline": definitions["EndpointPolicy"]["properties"]["deadline"],
        "limits": _switch(_ref("LimitsPolicy")),
        **_policies(),
        "rollout": {"anyOf": [_ref("RolloutPolicy"), {"type": "null"}, {"const": False}]},
    }
    return {"description": "What callers call by its name.", **_object({k: properties[k] for k in KEYS}, ["versions"])}


def _step() -> Schema:
    constant = _object({"default": {"type": "object"}}, ["default"])
    return {"anyOf": [{"type": "string"}, constant, _object({"last_good": _ref("LastGoodPolicy")}, ["last_good"])]}


def _policies() -> Schema:
    return {key: _switch(_ref("outputs" if key == "outputs" else kind.__name__)) for key, kind in POLICIES.items()}


def _run() -> Schema:
    own = {key: one for key, one in _dataclass(ModelSpec)["properties"].items() if key in RUN}
    for key, words in WORDS.items():
        if key in own:
            own[key] = {**own[key], "enum": list(words)}
    environment = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    return {**own, "environment": {"description": own["environment"].get("description", ""), **environment},
            "batching": _ref("batching")}  # fmt: skip


def _dataclass(kind: type[Any], *, without: Sequence[str] = (), references: Sequence[str] = ()) -> Schema:
    said = {**_SAID, **meanings(kind.__doc__ or "")}
    properties: Schema = {}
    for field in dataclasses.fields(kind):
        if field.name in without:
            continue
        found = _plain(str(field.type))
        if field.default is not dataclasses.MISSING and field.default not in (None, ()):
            found["default"] = field.default
        if field.name in references and found.get("type") != "string":
            found = {"anyOf": [found, _REFERENCE]}
        if field.name in SIZES:
            found = {"anyOf": [found, _SIZE]}
        if field.name in said:
            found = {"description": said[field.name], **found}
        properties[field.name] = found
    return _object(properties)


def _plain(kind: str) -> Schema:
    if kind.startswith("tuple"):
        return {"type": "array", "items": {"type": "string"}}
    if kind.startswith("Mapping"):
        return {
            "type": "object",
            "additionalProperties": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    known = {"bool": "boolean", "int": "integer", "float": "number"}
    if kind in known:
        return {"type": known[kind]}
    return {"type": ["string", "null"] if "None" in kind else "string"}


_VERSIONS: Schema = {
    "description": "Which of a repository's versions: latest:2, all, specific:1,3, {latest: 2} or [1, 3].",
    "anyOf": [{"type": ["string", "integer", "array"]}, {"type": "object", "maxProperties": 1, "minProperties": 1}],
}
_LABELS: Schema = {
    "description": "Names for versions.",
    "type": "object",
    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    "additionalProperties": {"type": ["string", "integer"]},
}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _switch(found: Schema) -> Schema:
    """Settings; true for the usual ones, false or nothing for none."""
    return {"anyOf": [found, {"type": ["boolean", "null"]}]}


def _object(properties: Schema, required: Sequence[str] = ()) -> Schema:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **needed, "additionalProperties": False}


def _map(values: Schema, *, null: bool = False) -> Schema:
    return {"type": ["object", "null"] if null else "object", "propertyNames": _NAME, "additionalProperties": values}
