"""For which models there is a short, compiled way from a door to the batches, and whether it was compiled.

Most requests are alike: a head that was read before, one input of a few numbers, to a model whose endpoint has nothing
to decide. For those the doors' compiled modules do in one go what codecs, exchanges and coroutines between door and
queue do for all others, with the same answer, the same counts and the same record. Whatever they do not know goes the
long way, and so does everything where they were not compiled (docs/decisions/compiled-lane.md).
"""

from __future__ import annotations

import importlib
import os
from array import array
from time import monotonic
from typing import Any

from turnout.core.errors import Failure
from turnout.core.servable import Serving
from turnout.core.signature import Signature
from turnout.graph.endpoint import Endpoint
from turnout.monitoring.families import SECONDS
from turnout.runtime.batching import Batching

#: Set to 0, nothing goes the short way.
SWITCH = "TURNOUT_NATIVE"
#: For so long (seconds) what leads to no lane is not asked again: the model may be another one by then.
AGAIN = 1.0
#: The data types that lanes know, by numpy's letter for each.
KINDS = {"FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q"}


def compiled(module: str) -> Any | None:
    """The compiled module of that name; None where it is not wanted or was not compiled."""
    if os.environ.get(SWITCH, "1") == "0":
        return None
    try:
        base = importlib.import_module("turnout.entrypoints._lane")
        found = importlib.import_module(module)
    except ImportError:  # not compiled: Python alone does it all
        return None
    # Else this system's clocks are others than those that are known there.
    return found if abs(base.now() - monotonic()) < 1.0 else None


def known(state: Any, name: str, protocol: str) -> dict[str, Any] | None:
    """What every lane to the model of that name has to know; None where there can be none.

    `state` is what the connections of a door share: serving, observer, deadlines and pace.
    """
    serving: Serving = state.serving
    try:
        model = serving.find(name, "")
    except Failure:
        return None
    endpoint = model.servable
    if type(endpoint) is not Endpoint:
        return None
    batching = endpoint.only_child
    if type(batching) is not Batching or not _is_plain(batching.signature) or batching.signature != model.signature:
        return None
    ask = getattr(state.observer, "usual", None)
    seal_key, seal = endpoint.only_seal(batching.version)
    return {
        "state": state, "model": model, "endpoint": endpoint, "batching": batching, "asked": name,
        "protocol": protocol, "input": batching.signature.inputs[0], "seal_key": seal_key, "seal": seal,
        "usual": ask(endpoint.name, batching.version, protocol) if ask is not None else None,
        "time_bounds": array("d", SECONDS),
    }  # fmt: skip


def _is_plain(signature: Signature) -> bool:
    """One input of rows of one fixed shape, of numbers."""
    if not signature.batched or len(signature.inputs) != 1 or "FP16" in signature.output_types:
        return False
    spec = signature.inputs[0]
    if spec.optional or spec.datatype not in KINDS or not spec.shape or spec.shape[0] != -1:
        return False
    return -1 not in spec.shape[1:] and len(spec.shape) <= 8 and spec.name.isascii() and spec.name.isprintable()
