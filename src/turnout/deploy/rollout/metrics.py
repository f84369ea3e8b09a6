"""Values by which versions are judged, as they come in: by version, or by the id of the prediction that they are of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turnout.core.errors import InvalidInput, VersionNotFound
from turnout.deploy.rollout.statistics import Sums
from turnout.graph.endpoint import parse_prediction_id

_NOTHING = Sums(0, 0.0, 0.0)
#: Different metrics and versions of one endpoint; more can only come from a mistake.
_MOST_SUMS = 1000
_MOST_NAME = 100
#: The square of a larger value might be no number any more.
_LARGEST = 1e100


class Metrics:
    """Sums of values by endpoint, version and metric.

    versions: the version names that an endpoint had in a revision, None where that is not known any more. memory: how
    many prediction ids are remembered for each endpoint and metric; a value for one of them is not counted again.
    """

    def __init__(self, versions: Callable[[str, int], Sequence[str] | None], memory: int = 100_000) -> None:
        self._versions = versions
        self._memory = memory
        self._sums: dict[str, dict[tuple[str, str], Sums]] = {}
        self._seen: dict[tuple[str, str], dict[str, None]] = {}

    def record(self, endpoint: str, variant: str, metric: str, value: float) -> None:
        """Counts a value that is known to be of a version. Raises InvalidInput."""
        check_value(metric, value)
        sums = self._sums.setdefault(endpoint, {})
        if (metric, variant) not in sums and len(sums) >= _MOST_SUMS:
            raise InvalidInput("too many metrics", field="metric", expected=f"at most {_MOST_SUMS}", got=metric[:60])
        sums[metric, variant] = sums.get((metric, variant), _NOTHING).plus(Sums(1, value, value * value))

    def record_prediction(self, endpoint: str, prediction_id: str, metric: str, value: float) -> bool:
        """Counts a value of one prediction, however late; False where that prediction has one already.

        Raises InvalidInput for what is no id or no value, VersionNotFound where nobody knows its version any more.
        """
        variant, token = self.check(endpoint, prediction_id, metric, value)
        seen = self._seen.setdefault((endpoint, metric), {})
        if token in seen:
            return False
        self.record(endpoint, variant, metric, value)
        seen[token] = None
        if len(seen) > self._memory:
            del seen[next(iter(seen))]
        return True

    def check(self, endpoint: str, prediction_id: str, metric: str, value: float) -> tuple[str, str]:
        """The version that gave a prediction, and what tells that from others. Raises as `record_prediction`."""
        check_value(metric, value)
        parsed = parse_prediction_id(prediction_id)
        names = self._versions(endpoint, parsed.revision)
        variant = parsed.version(tuple(names)) if names is not None else ""
        if not variant:
            raise VersionNotFound(f"{prediction_id}: revision {parsed.revision} of {endpoint!r} has no such version")
        return variant, parsed.token

    def of(self, endpoint: str, metric: str) -> dict[str, Sums]:
        """The sums of a metric by version: what a rollout is shown as `judge`."""
        found = self._sums.get(endpoint, {})
        return {variant: sums for (name, variant), sums in found.items() if name == metric}

    def forget(self, endpoint: str) -> None:
        """Drops all that is known of an endpoint that is gone."""
        self._sums.pop(endpoint, None)
        for key in [key for key in self._seen if key[0] == endpoint]:
            del self._seen[key]

    def to_json(self, recent: int = 10_000) -> dict[str, Any]:
        """As plain JSON values, with so many of the newest ids of each metric."""
        return {
            "sums": [
                [endpoint, variant, metric, *sums]
                for endpoint, by_name in self._sums.items()
                for (metric, variant), sums in by_name.items()
            ],
            "seen": [[*key, list(ids)[-recent:]] for key, ids in self._seen.items()],
        }

    def take_json(self, said: Mapping[str, Any]) -> None:
        """Goes on from what `to_json` gave."""
        for endpoint, variant, metric, size, total, squares in said["sums"]:
            self._sums.setdefault(endpoint, {})[metric, variant] = Sums(int(size), float(total), float(squares))
        for endpoint, metric, ids in said["seen"]:
            self._seen[endpoint, metric] = dict.fromkeys(ids)


def check_value(metric: str, value: float) -> None:
    """Raises InvalidInput for what is no metric's name, or no value."""
    if not metric.strip() or len(metric) > _MOST_NAME:
        raise InvalidInput("not a metric's name", field="metric", expected="1 to 100 characters", got=repr(metric[:60]))
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise InvalidInput("not a value", field="value", expected="a finite number, as 1 or 0.25", got=repr(value)[:60])
