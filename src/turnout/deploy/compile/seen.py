"""What a model itself says of the values it has seen: the ranges, thresholds and categories of each column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors
from turnout.deploy.compile import thresholds
from turnout.deploy.compile.convert_sklearn import unwrapped
from turnout.formats.sklearn_inputs import inputs_of

#: One column: the input's name, and the place in it (-1 for an input that is one column).
Column = tuple[str, int]
_DEPTH = 8
_INFINITE = 1e30
#: Where nothing is known of a column, this far from zero.
UNKNOWN = 4.0


@dataclass
class Seen:
    """Of one column. `turns` are the numbers at which the model decides; `known` its categories or words.

    `others` are further texts, which real rows have.
    """

    low: float = np.inf
    high: float = -np.inf
    turns: set[float] = field(default_factory=set)
    known: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    words: bool = False

    def widen(self, values: Sequence[float] | Array) -> None:
        """Takes numbers into the range; those so large stand for infinity in some libraries."""
        found = np.asarray(values, dtype=np.float64)
        found = found[np.abs(found) < _INFINITE]
        if len(found):
            self.low, self.high = min(self.low, float(found.min())), max(self.high, float(found.max()))

    @property
    def span(self) -> tuple[float, float]:
        """The range to draw from: a tenth wider than what was seen."""
        if self.low > self.high:
            return -UNKNOWN, UNKNOWN
        room = 0.1 * (self.high - self.low) or 1.0
        return self.low - room, self.high + room


def columns_of(signature: Signature) -> list[Column]:
    """Every column of every input; inputs of more dimensions count as one column."""
    found: list[Column] = []
    for spec in signature.inputs:
        tabular = len(spec.shape) == 2 and spec.shape[1] > 0
        found += [(spec.name, at) for at in range(spec.shape[1])] if tabular else [(spec.name, -1)]
    return found


def seen_of(format: str, native: Any, signature: Signature) -> dict[Column, Seen]:
    """What the library's own object says, by column. Empty entries where it says nothing."""
    found = {column: Seen() for column in columns_of(signature)}
    order = _order(format, native, signature)
    if format == "sklearn":
        places: Places = [None if column is None else (column, _same) for column in order]
        _Walk(found).step(native, places, _labels(native, order))
        return found
    turns: Mapping[int, Array] = {}
    if format == "xgboost":
        turns = thresholds.of_xgboost(native)
    elif format == "lightgbm":
        turns = thresholds.of_lightgbm(native)
    elif format == "catboost":
        turns = thresholds.of_catboost(native)
    for feature, values in turns.items():
        column = order[feature] if feature < len(order) else None
        if column is not None:
            found[column].turns.update(values.tolist())
            found[column].widen(values)
    return found


def take_rows(found: Mapping[Column, Seen], rows: Tensors) -> None:
    """Takes real rows into the ranges and the categories."""
    for (name, at), seen in found.items():
        if name not in rows:
            continue
        array = rows[name] if at < 0 else rows[name][:, at]
        if array.dtype.kind == "O":
            texts = {v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in array.ravel().tolist()}
            seen.others += sorted(texts - {*seen.known, *seen.others})[:1000]
        elif array.dtype.kind in "fiu":
            seen.widen(array.ravel())


def _order(format: str, native: Any, signature: Signature) -> list[Column | None]:
    """The model's features in its own order, as columns of the signature."""
    columns = columns_of(signature)
    if len(signature.inputs) == 1:
        return list(columns)
    names: Sequence[str] = ()
    if format == "sklearn":
        names = inputs_of(native).features
    elif format == "xgboost":
        names = native.feature_names or ()
    elif format == "lightgbm":
        names = native.feature_name()
    elif format == "catboost":
        names = native.feature_names_ or ()
    known = {name: (name, at) for name, at in columns}
    return [known.get(name) for name in names] if names else list(columns)


def _labels(native: Any, order: Sequence[Column | None]) -> list[str]:
    features = inputs_of(native).features
    return list(features) if len(features) == len(order) else [str(at) for at in range(len(order))]


def _same(values: Array) -> Array:
    return values


#: Where a column of a later step comes from: a column, and how its values there become values here; None if unknown.
Place = tuple[Column, Callable[[Array], Array]]
Places = Sequence["Place | None"]


class _Walk:
    """Goes through an estimator's steps in order and follows its columns as long as they stay columns."""

    def __init__(self, found: dict[Column, Seen]) -> None:
        self._found = found

    def step(self, step: Any, places: Places, labels: Sequence[str], depth: int = _DEPTH) -> Places:
        """Learns from one fitted step; gives where the columns of its output come from."""
        step = unwrapped(step)
        if not depth or step is None or isinstance(step, str):
            return places if step == "passthrough" else [None] * len(places)
        if isinstance(getattr(step, "steps", None), list):
            for _, inner in step.steps:
                places = self.step(inner, places, labels, depth - 1)
            return places
        if hasattr(step, "transformers_"):
            return self._side_by_side(step, places, labels, depth)
        if hasattr(step, "transformer_list"):
            return [out for _, inner in step.transformer_list for out in self.step(inner, places, labels, depth - 1)]
        self._own(step, places)
        if depth and not _trees_of(step):
            for inner in np.ravel(np.asarray(getattr(step, "estimators_", ()) or (), dtype=object)):
                self.step(inner, places, labels, depth - 1)
        return _after(step, places)

    def _side_by_side(self, step: Any, places: Places, labels: Sequence[str], depth: int) -> Places:
        outputs = getattr(step, "output_indices_", {})
        width = max((part.stop for part in outputs.values()), default=0)
        result: list[Place | None] = [None] * width
        for name, inner, chosen in step.transformers_:
            picked = _picked(chosen, labels)
            after = self.step(inner, [places[at] for at in picked], [labels[at] for at in picked], depth - 1)
            part = outputs.get(name)
            if part is not None and part.stop - part.start == len(after):
                result[part.start : part.stop] = after
        return result

    def _own(self, step: Any, places: Places) -> None:
        for at, values in _numbers(step, len(places)):
            place = places[at]
            if place is not None:
                self._found[place[0]].widen(place[1](values))
        for feature, values in thresholds.of_sklearn(step).items():
            place = places[feature] if feature < len(places) else None
            if place is not None:
                raw = place[1](values)
                self._found[place[0]].turns.update(raw.tolist())
                self._found[place[0]].widen(raw)
        for at, texts in enumerate(getattr(step, "categories_", ()) or ()):
            place = places[at] if at < len(places) else None
            if place is not None:
                known = list(np.asarray(texts, dtype=object))
                self._found[place[0]].known += [value for value in known if isinstance(value, str)]
                figures = [float(v) for v in known if isinstance(v, (int, float, np.number)) and np.isfinite(float(v))]
                self._found[place[0]].turns.update(figures)
                self._found[place[0]].widen(figures)
        words = getattr(step, "vocabulary_", None)
        if isinstance(words, dict) and places and places[0] is not None:
            seen = self._found[places[0][0]]
            seen.known += [str(word) for word in list(words)[:2000]]
            seen.words = True


def _picked(chosen: Any, labels: Sequence[str]) -> list[int]:
    if isinstance(chosen, str):
        return [labels.index(chosen)] if chosen in labels else []
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = labels.index(chosen.start) if chosen.start is not None else 0
            return list(range(start, labels.index(chosen.stop) + 1 if chosen.stop is not None else len(labels)))
        return list(range(len(labels)))[chosen]
    if isinstance(chosen, (int, np.integer)) and not isinstance(chosen, bool):
        return [int(chosen)]
    many = list(chosen)
    if many and all(isinstance(one, (bool, np.bool_)) for one in many):
        return [at for at, taken in enumerate(many) if taken]
    return [labels.index(one) if isinstance(one, str) else int(one) for one in many]


def _trees_of(step: Any) -> bool:
    return bool(thresholds.of_sklearn(step))


def _numbers(step: Any, width: int) -> Iterator[tuple[int, Array]]:
    """Numbers of each column that a fitted step keeps: means and deviations, ranges, filled values, centres."""

    def of(name: str) -> Array | None:
        try:
            value = np.asarray(getattr(step, name, None), dtype=np.float64)
        except (TypeError, ValueError, AttributeError):
            return None
        return value if value.ndim in (1, 2) and value.shape[-1] == width and value.size else None

    for centre, spread in (("mean_", "scale_"), ("center_", "scale_"), ("mean_", "var_"), ("theta_", "var_")):
        middle, wide = of(centre), of(spread)
        if middle is not None and wide is not None and middle.shape == wide.shape:
            reach = 4.0 * (np.sqrt(wide) if spread == "var_" else wide)
            for at in range(width):
                yield at, np.concatenate([np.ravel((middle - reach)[..., at]), np.ravel((middle + reach)[..., at])])
            break
    for name in ("data_min_", "data_max_", "max_abs_", "statistics_", "cluster_centers_", "support_vectors_", "_fit_X"):
        value = of(name)
        if value is not None:
            for at in range(width):
                yield at, np.ravel(value[..., at])
    for at, edges in enumerate(getattr(step, "bin_edges_", ())):
        if at < width:
            yield at, np.asarray(edges, dtype=np.float64)


def _after(step: Any, places: Places) -> Places:
    """Where the columns come from behind a step that treats each column by itself; nobody knows behind another."""
    name = type(step).__name__
    if name in {"SimpleImputer", "KNNImputer"} and len(getattr(step, "statistics_", places)) == len(places):
        return places
    if name not in {"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"}:
        return [None] * int(getattr(step, "_n_features_out", 0) or len(places))

    def back(at: int, before: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def raw(values: Array) -> Array:
            table = np.zeros((len(values), len(places)))
            table[:, at] = values
            return before(np.asarray(step.inverse_transform(table))[:, at])

        return raw

    return [None if place is None else (place[0], back(at, place[1])) for at, place in enumerate(places)]
