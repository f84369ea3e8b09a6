"""The page at `/docs`: one HTML text that loads nothing from anywhere; its files are in `page/`.

The policy names the style and the script by their hashes, so that nothing else can run even if a model's name held
markup. The models come as a JSON block, which is data and never runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from turnout import __version__
from turnout.core.servable import ServedModel, Serving
from turnout.core.signature import TensorSpec
from turnout.protocols import examples
from turnout.protocols.mlflow import CSV

_FILES = files("turnout.protocols") / "page"
_STYLE = (_FILES / "page.css").read_text("utf-8")
_SCRIPT = (_FILES / "page.js").read_text("utf-8")
_FRAME = (_FILES / "page.html").read_text("utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render(serving: Serving) -> bytes:
    """The page for what is served at this moment."""
    found: dict[str, ServedModel] = {}
    for model in serving.models():
        if model.name not in found:
            found[model.name] = serving.find(model.name)
    content = {"version": __version__, "models": [_model(model, only=len(found) == 1) for model in found.values()]}
    data = json.dumps(content).replace("<", "\\u003c")
    page = _FRAME.replace("{{style}}", _STYLE).replace("{{script}}", _SCRIPT)
    return page.replace("{{data}}", data).encode()


def _model(model: ServedModel, *, only: bool) -> dict[str, Any]:
    signature = model.signature
    name = quote(model.name, safe="")
    forms = [_form("Plain", f"/predict/{name}", examples.plain(signature))]
    text = examples.csv(signature)
    if text is not None:
        forms.append({"title": "CSV", "path": f"/predict/{name}", "type": CSV, "body": text})
    forms.append(_form("Open Inference v2", f"/v2/models/{name}/infer", examples.v2(signature)))
    forms.append(_form("KServe v1", f"/v1/models/{name}:predict", examples.v1(signature)))
    if only:
        forms.append(_form("MLflow", "/invocations", examples.mlflow(signature)))
    return {
        "name": model.name,
        "version": model.version,
        "format": model.format,
        "state": model.state.value,
        "reason": model.reason,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
        "forms": forms,
    }


def _form(title: str, path: str, body: Any) -> dict[str, str]:
    text = json.dumps(body)
    if len(text) > 60:
        text = _folded(body)
    return {"title": title, "path": path, "type": "application/json", "body": text}


def _folded(value: Any, indent: str = "") -> str:
    """JSON over several lines, with lists of single values left on one."""
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_folded(part, inner)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}" if parts else "{}"
    if isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        return "[\n" + ",\n".join(inner + _folded(part, inner) for part in value) + f"\n{indent}]"
    return json.dumps(value)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": spec.datatype,
        "shape": ["any" if length == -1 else length for length in spec.shape],
        "columns": list(spec.columns),
        "optional": spec.optional,
    }
