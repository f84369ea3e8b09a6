"""Labelled rows, and which of a model's answers to them are right."""

from __future__ import annotations

from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors
from turnout.entrypoints.rows import read_columns

_TRUTHS = {"true": 1.0, "false": 0.0}


def read_labelled(path: str, label: str) -> tuple[dict[str, Array], Array]:
    """The columns of a file without the label, and the labels. Raises InvalidInput."""
    columns = dict(read_columns(path))
    if label not in columns:
        raise InvalidInput("there is no such column", field="--label", expected=", ".join(columns), got=repr(label))
    labels = columns.pop(label)
    if labels.ndim != 1:
        raise InvalidInput("not one label a row", field="--label", got=f"shape {list(labels.shape)}")
    if not columns:
        raise InvalidInput("there is nothing beside the label", field="--rows", expected="the inputs of the models")
    return columns, labels


def answer_of(signature: Signature, asked: str | None) -> str:
    """The output that is compared with the labels; "" for the likeliest class. Raises InvalidInput."""
    known = [spec.name for spec in signature.outputs]
    if asked is None:
        return "label" if "label" in known else ""
    if asked not in known:
        raise InvalidInput("there is no such output", field="--answer", expected=", ".join(known), got=repr(asked))
    return asked


def right(outputs: Tensors, answer: str, confidence: str, labels: Array, within: float) -> Array:
    """Which rows are answered rightly. Raises InvalidInput where answers and labels cannot be compared."""
    values = outputs[answer] if answer else _likeliest(outputs[confidence])
    if values.shape[1:] not in ((), (1,)):
        raise InvalidInput(
            "not one answer a row", field="--answer", expected=", ".join(outputs), got=f"shape {list(values.shape)}"
        )
    values = values.reshape(-1)
    if values.dtype.kind == "O":
        return np.array([_text(value) == _text(known) for value, known in zip(values, labels, strict=True)])
    wanted = np.array([_number(known) for known in labels.tolist()])
    return np.asarray(np.abs(values.astype(np.float64) - wanted) <= within)


def _likeliest(probabilities: Array) -> Array:
    """The number of the class."""
    rows = probabilities.reshape(len(probabilities), -1)
    return np.asarray(rows[:, 0] >= 0.5).astype(np.int64) if rows.shape[1] == 1 else rows.argmax(axis=1)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number(value: Any) -> float:
    text = _text(value).strip().lower()
    try:
        return _TRUTHS[text] if text in _TRUTHS else float(text)
    except ValueError:
        raise InvalidInput(
            "the labels are text and the answers are numbers", field="--label", expected="numbers", got=repr(text[:40]),
            example="--answer with an output of text",
        ) from None  # fmt: skip
