"""The one function that builds a version's tree: read it from top to bottom, it is a request's way, inside out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from turnout.core.signature import Signature
from turnout.deploy.live import LiveVersion
from turnout.deploy.version import VersionSpec
from turnout.runtime.batching import Batching

OnBatch = Callable[[str, str, int, float], None]


def build_version(spec: VersionSpec, signature: Signature, format: str, on_batch: OnBatch | None = None) -> LiveVersion:
    """A version that is ready as soon as a place is added to its `batching`."""
    counted = partial(on_batch, spec.name, spec.version) if on_batch is not None else None
    batching = Batching(spec.name, spec.version, signature, spec.batching, counted)
    return LiveVersion(spec.uid, spec.name, spec.version, format, batching, servable=batching)
