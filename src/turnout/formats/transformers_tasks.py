"""What a Hugging Face architecture answers, and how its numbers become answers: numpy in, numpy out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnout.core.signature import TensorSpec
from turnout.core.tensors import Array, bytes_array

#: Digits of a token's score: what is left of a number that depends a little on the rows beside it.
_SCORE_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the tokenizer made of some rows: masks of real and of special ones, and their places."""

    mask: Array
    special: Array
    offsets: Array | None
    words: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Labels:
    """Class names by number, and what the model was trained for (`problem_type` of its configuration)."""

    names: tuple[str, ...]
    problem: str | None

    @classmethod
    def of(cls, config: Any) -> Labels:
        """As the model's configuration says."""
        names = {int(number): str(name) for number, name in config.id2label.items()}
        return cls(tuple(names[number] for number in sorted(names)), config.problem_type)


def classified_specs(labels: Labels) -> tuple[TensorSpec, ...]:
    """The outputs of a sequence classifier."""
    if labels.problem == "regression":
        width = len(labels.names)
        return (TensorSpec("prediction", "FP32", (-1,) if width == 1 else (-1, width)),)
    return TensorSpec("label", "BYTES", (-1,)), TensorSpec(
        "probabilities", "FP32", (-1, len(labels.names)), labels.names
    )


def classified(logits: Array, labels: Labels) -> Mapping[str, Array]:
    """Label and probabilities, or the prediction of a regressor. One class, or several at once: each by itself."""
    if labels.problem == "regression":
        return {"prediction": logits[:, 0] if logits.shape[1] == 1 else logits}
    if labels.problem == "multi_label_classification" or logits.shape[1] == 1:
        probabilities = 1.0 / (1.0 + np.exp(-logits))
    else:
        probabilities = softmax(logits)
    best = probabilities.argmax(-1)
    return {"label": bytes_array([labels.names[at] for at in best], (len(best),)), "probabilities": probabilities}


def softmax(logits: Array) -> Array:
    """Along the last axis."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def entities(logits: Array, labels: Labels, tokens: Tokens) -> Mapping[str, Array]:
    """For each row a JSON list of its tokens: entity, score, word, and where it stands in the text. `O` is left out."""
    probabilities = softmax(logits)
    best = probabilities.argmax(-1)
    rows = []
    for row in range(len(logits)):
        found = []
        for at in np.flatnonzero(tokens.mask[row] & ~tokens.special[row]):
            name = labels.names[best[row, at]]
            if name == "O":
                continue
            one = {
                "entity": name,
                "score": round(float(probabilities[row, at, best[row, at]]), _SCORE_DIGITS),
                "word": tokens.words[row][int(at)],
            }
            if tokens.offsets is not None:
                one |= {"start": int(tokens.offsets[row, at, 0]), "end": int(tokens.offsets[row, at, 1])}
            found.append(one)
        rows.append(json.dumps(found, ensure_ascii=False))
    return {"entities": bytes_array(rows, (len(rows),))}


ENTITIES = (TensorSpec("entities", "BYTES", (-1,)),)


@dataclass(frozen=True, slots=True)
class Pooling:
    """How the vectors of a text's tokens become one: "mean", "cls" or "max"; `normalize` to length 1."""

    mode: str = "mean"
    normalize: bool = False


def embedded(hidden: Array, mask: Array, pooling: Pooling) -> Mapping[str, Array]:
    """One vector a row."""
    if pooling.mode == "cls":
        vectors = hidden[:, 0]
    elif pooling.mode == "max":
        vectors = np.where(mask[:, :, None], hidden, np.float32(-1e9)).max(1)
    else:
        weights = mask[:, :, None].astype(hidden.dtype)
        vectors = (hidden * weights).sum(1) / np.maximum(weights.sum(1), 1e-9)
    if pooling.normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return {"embedding": np.ascontiguousarray(vectors)}
