"""Values that came of predictions, reported by whoever knows them: counted once, and written down."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

from turnout.core.errors import Failure, InvalidInput
from turnout.deploy.control_plane import ControlPlane
from turnout.deploy.rollout.metrics import Metrics, check_value

logger = logging.getLogger("turnout")
Question = Mapping[str, Any]
_METRICS = "metrics"
_SAVE_SECONDS = 2.0
_MOST_VALUES = 10_000


class Reported:
    """Of one server."""

    def __init__(self, plane: ControlPlane) -> None:
        self.metrics = Metrics(plane.revisions.versions_of)
        self._plane = plane
        self._unsaved, self._saved = False, 0.0

    async def begin(self) -> None:
        """Goes on with what was written down."""
        kept = await self._plane.revisions.call(lambda store: store.document(_METRICS, "all"))
        if kept is not None:
            self.metrics.take_json(json.loads(kept.value))

    async def metric(self, question: Question) -> Any:
        """Values that came of predictions: all of a report, or none of it where one is wrong."""
        name = str(question.get("endpoint", ""))
        names = [version.name for version in self._plane.endpoint(name).versions]
        metric, values = question.get("metric"), question.get("values")
        if not isinstance(metric, str):
            raise InvalidInput("not a metric's name", field="metric", expected="a text", got=repr(metric)[:60])
        if not isinstance(values, list) or not 0 < len(values) <= _MOST_VALUES:
            raise InvalidInput(
                "not a list of values", field="values", expected=f"1 to {_MOST_VALUES} objects",
                example='[{"prediction_id": "R3-0-5f1b8c0e9d7a4b3c2d1e0f9a", "value": 1}]',
            )  # fmt: skip
        checked = [self._checked(name, names, metric, one, f"values[{place}]") for place, one in enumerate(values)]
        taken = sum(record() for record in checked)
        self._unsaved = self._unsaved or taken > 0
        return {"taken": taken, "known_already": len(values) - taken, "text": f"{taken} of {len(values)} taken"}

    def _checked(self, name: str, names: list[str], metric: str, said: Any, path: str) -> Callable[[], bool]:
        """Records a value, once all are known to be right; True where it was not known yet."""
        if not isinstance(said, dict):
            raise InvalidInput("not an object", field=path, expected="prediction_id or variant, and value")
        try:
            value = float(said["value"]) if isinstance(said.get("value"), int | float) else math.nan
        except OverflowError:
            value = math.inf
        if math.isnan(value):
            raise InvalidInput("not a number", field=f"{path}.value", got=repr(said.get("value"))[:60])
        if "prediction_id" in said:
            self.metrics.check(name, str(said["prediction_id"]), metric, value)
            return partial(self.metrics.record_prediction, name, str(said["prediction_id"]), metric, value)
        variant = said.get("variant")
        if variant not in names:
            raise InvalidInput(
                "no such version", field=f"{path}.variant", expected=", ".join(names), got=repr(variant)[:60]
            )
        check_value(metric, value)
        return partial(self._record, name, str(variant), metric, value)

    def _record(self, name: str, variant: str, metric: str, value: float) -> bool:
        self.metrics.record(name, variant, metric, value)
        return True

    async def save(self) -> None:
        """Writes down what was reported, now and then: a controller that dies loses the last seconds of it."""
        if not self._unsaved or monotonic() - self._saved < _SAVE_SECONDS:
            return
        self._saved, self._unsaved = monotonic(), False
        value = json.dumps(self.metrics.to_json())
        try:
            await self._plane.revisions.call(lambda store: store.put(_METRICS, "all", value))
        except Failure as failure:
            self._unsaved = True
            logger.warning("reported values could not be written down: %s", failure.message)
