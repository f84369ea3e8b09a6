"""Which columns a fitted scikit-learn estimator takes, and which of them are text, from its own state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from turnout.core.signature import Signature, TensorSpec
from turnout.formats.table import column, numbers

_DEPTH = 12
#: Data types of columns; UNUSED is never asked for, UNKNOWN needs the user.
TEXT, NUMBER, UNUSED, UNKNOWN = "BYTES", "FP64", "", "?"
_VECTORIZERS = ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer")


class Inputs(NamedTuple):
    """What an estimator says of its inputs. `values` holds one valid value for each text column."""

    features: tuple[str, ...]
    width: int
    signature: Signature | None
    values: Mapping[str, Any]


def first_step(estimator: Any) -> Any:
    """The estimator that sees the raw columns: through pipelines and searches."""
    for _ in range(_DEPTH):
        steps = getattr(estimator, "steps", None)
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif steps and isinstance(steps, list):
            real = [step for _, step in steps if step is not None and step != "passthrough"]
            if not real:
                return estimator
            estimator = real[0]
        else:
            return estimator
    return estimator


def inputs_of(estimator: Any) -> Inputs:
    """The inputs of a fitted estimator. The signature is None where its state does not tell text from numbers."""
    first = first_step(estimator)
    features = _names(estimator) or _names(first)
    width = int(getattr(estimator, "n_features_in_", 0) or getattr(first, "n_features_in_", 0) or len(features))
    if type(first).__name__ in _VECTORIZERS:
        return Inputs((), 0, Signature((TensorSpec("text", TEXT, (-1,)),), (), lenient=True), {"text": b"text"})
    if not width:
        return Inputs(features, 0, None, {})
    labels = features or tuple(str(i) for i in range(width))
    kinds: dict[str, str] = dict.fromkeys(labels, UNUSED)
    values: dict[str, Any] = {}
    for label, kind, value in _kinds(first, labels, _DEPTH):
        if kinds[label] in (UNUSED, UNKNOWN) or kind == TEXT:
            kinds[label] = kind or kinds[label]
        if value is not None:
            values[label] = value
    return Inputs(features, width, _signature(features, kinds, width), values)


def _signature(features: Sequence[str], kinds: Mapping[str, str], width: int) -> Signature | None:
    used = set(kinds.values())
    if UNKNOWN in used:
        return None
    if used <= {NUMBER, UNUSED} and (UNUSED not in used or not features):
        return Signature((numbers(features, width, NUMBER),), (), lenient=True)
    if not features:
        return Signature((numbers((), width, TEXT),), (), lenient=True) if used == {TEXT} else None
    return Signature(tuple(column(name, kind) for name, kind in kinds.items() if kind), (), lenient=True)


def _names(estimator: Any) -> tuple[str, ...]:
    try:
        names = getattr(estimator, "feature_names_in_", None)
    except (AttributeError, TypeError):
        return ()
    return () if names is None else tuple(str(name) for name in names)


def _kinds(step: Any, labels: Sequence[str], depth: int) -> Iterator[tuple[str, str, Any]]:
    """For each column the step reads: its label, its kind, and a valid value of a text column."""
    step = first_step(step)
    if hasattr(step, "transformers_"):
        for _, inner, chosen in step.transformers_:
            picked = _pick(chosen, labels)
            if isinstance(inner, str):
                if inner == "passthrough":
                    yield from ((label, NUMBER, None) for label in picked)
            elif depth:
                yield from _kinds(inner, picked, depth - 1)
    elif hasattr(step, "transformer_list"):
        for _, inner in step.transformer_list:
            if not isinstance(inner, str) and depth:
                yield from _kinds(inner, labels, depth - 1)
    else:
        yield from _own_kinds(step, labels)


def _pick(chosen: Any, labels: Sequence[str]) -> Sequence[str]:
    if isinstance(chosen, str):
        return [chosen] if chosen in labels else []
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = labels.index(chosen.start) if chosen.start is not None else 0
            stop = labels.index(chosen.stop) + 1 if chosen.stop is not None else len(labels)
            return list(labels)[start:stop]
        return list(labels)[chosen]
    if isinstance(chosen, (int, np.integer)) and not isinstance(chosen, bool):
        return [labels[int(chosen)]]
    picked = list(chosen)
    if picked and all(isinstance(one, (bool, np.bool_)) for one in picked):
        return [label for label, taken in zip(labels, picked, strict=False) if taken]
    return [str(one) if isinstance(one, str) else labels[int(one)] for one in picked]


def _own_kinds(step: Any, labels: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """The kinds from a step's fitted state: categories, filled-in values, or numbers where it is scikit-learn's."""
    name, module = type(step).__name__, type(step).__module__
    categories = getattr(step, "categories_", None)
    filled = getattr(step, "statistics_", None)
    if name in _VECTORIZERS:
        yield from ((label, TEXT, b"text") for label in labels)
    elif isinstance(categories, (list, tuple)) and len(categories) == len(labels):
        for label, known in zip(labels, categories, strict=True):
            text = [value for value in known if isinstance(value, str)]
            yield (label, TEXT, str(text[0]).encode()) if text else (label, NUMBER, known[0] if len(known) else None)
    elif isinstance(filled, np.ndarray) and len(filled) == len(labels):
        for label, value in zip(labels, filled, strict=True):
            yield (label, TEXT, value.encode()) if isinstance(value, str) else (label, NUMBER, None)
    elif works_on_frames(step) or name == "DictVectorizer" or not _takes_numbers(step, module):
        yield from ((label, UNKNOWN, None) for label in labels)
    else:
        yield from ((label, NUMBER, None) for label in labels)


def picks_by_name(step: Any) -> bool:
    """Whether the step is a ColumnTransformer that picks its columns by name, which only a data frame has."""
    for _, _, chosen in getattr(step, "transformers_", ()):
        ends = (chosen.start, chosen.stop) if isinstance(chosen, slice) else chosen
        if isinstance(ends, str) or (
            isinstance(ends, (list, tuple, np.ndarray)) and any(isinstance(c, str) for c in ends)
        ):
            return True
    return False


def works_on_frames(step: Any) -> bool:
    """Whether the step calls a function of the user's own, which may want a data frame."""
    function = getattr(step, "func", None)
    return type(step).__name__ == "FunctionTransformer" and function is not None and not isinstance(function, np.ufunc)


def _takes_numbers(step: Any, module: str) -> bool:
    if getattr(step, "is_categorical_", None) is not None and getattr(step, "_preprocessor", None) is not None:
        return False  # histogram boosting fitted on categories: text or codes, its state does not say which
    return module.startswith(
        ("sklearn.", "xgboost.", "lightgbm.", "catboost.", "imblearn.", "skl2onnx.")
    ) or not hasattr(step, "feature_names_in_")
