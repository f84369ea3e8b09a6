"""A model spec becomes a loaded, warmed-up model, wherever it is to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from turnout import formats
from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors
from turnout.deploy.self_test import self_test
from turnout.deploy.version import VersionSpec
from turnout.formats.examples import tensors_of
from turnout.runtime.work import warm_up


class Loaded(NamedTuple):
    """A model that is ready to answer, and what its warm-up took: (rows, seconds) per run.

    self_test: what was checked ("3 rows predicted, 3 compared"), "" where nothing is stored to check.
    """

    model: Model
    format: str
    measured: list[tuple[int, float]]
    self_test: str = ""

    def describe(self) -> dict[str, Any]:
        """What the server is told of it, as plain JSON values."""
        return {
            "format": self.format,
            "signature": self.model.signature.to_json(),
            "measured": self.measured,
            "self_test": self.self_test,
            "answered_by": getattr(self.model, "answered_by", ""),
        }


def load_model(spec: VersionSpec) -> Loaded:
    """Loads, tests and warms up. Raises LoadFailed or one of its kinds, with what was found and what to do."""
    artifact = formats.Artifact.of(spec.artifact)
    options = load_options(
        trust_pickle=spec.trust_pickle,
        format=spec.format,
        threads=spec.threads,
        signature=spec.signature,
        example=spec.example,
    )
    found = formats.detect(artifact, options)
    model = formats.load(artifact, options)
    tested = self_test(model, artifact, options.example)
    return Loaded(model, found.name, list(tested.measured) or warm_up(model, None), tested.said)


def detect_format(spec: VersionSpec) -> str:
    """The name of the format, by content; imports no model library. Raises as `load_model` does."""
    return formats.detect(formats.Artifact.of(spec.artifact), formats.LoadOptions(format=spec.format)).name


def load_options(
    *,
    trust_pickle: bool = False,
    format: str | None = None,
    threads: int = 1,
    signature: str | None = None,
    example: str | None = None,
) -> formats.LoadOptions:
    """Load options from what a person can say: signature and example are paths. Raises LoadFailed."""
    return formats.LoadOptions(
        trust_pickle=trust_pickle,
        format=format,
        threads=threads,
        signature=_signature(signature),
        example=_example(example),
    )


def _example(path: str | None) -> Tensors | None:
    if path is None:
        return None
    try:
        return tensors_of(json.loads(Path(path).read_bytes()))
    except (OSError, ValueError) as problem:
        raise LoadFailed(f"the example {Path(path).name} cannot be read ({problem})") from None


def _signature(path: str | None) -> Signature | None:
    if path is None:
        return None
    try:
        found: Any = json.loads(Path(path).read_bytes())
        return Signature.from_json(found)
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise LoadFailed(
            f"the signature in {Path(path).name} cannot be read ({type(problem).__name__}: {problem}); it looks like "
            '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], '
            '"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]}'
        ) from None
