"""How long each candidate takes for each batch size, side by side, and which one is chosen."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from time import perf_counter

import numpy as np

from turnout.core.tensors import Tensors, byte_size, slice_rows
from turnout.deploy.compile.compare import Predict
from turnout.formats.compiled_file import Choice

#: The last one is the most that a server puts into one batch, if nobody says otherwise.
SIZES = (1, 8, 64, 256, 1024)
#: The original has to be faster by this share to be kept for a size: it would have to be loaded for it.
MARGIN = 0.1
_MOST_ROUNDS = 400
_LEAST_ROUNDS = 3
_MOST_BYTES = 256 << 20
_PATIENCE = 6.0


def measure(
    candidates: Mapping[str, Predict], rows: Tensors, sizes: Sequence[int], seconds: float, original: str
) -> list[Choice]:
    """The fastest candidate for each size: medians over rounds in which all of them take turns.

    `seconds` is the time to spend, shared among the sizes; each candidate gets three rounds at least. Sizes whose
    batch would be very large, or would take many times as long as that, are left out.
    """
    found: list[Choice] = []
    one = byte_size(slice_rows(rows, 0, 1))
    for size in sizes:
        if found:
            slowest = max(found[-1].seconds.values()) * size / found[-1].rows
            if size * one > _MOST_BYTES or slowest * _LEAST_ROUNDS * len(candidates) > _PATIENCE * seconds:
                break
        batch = repeated(rows, size)
        times = _rounds(candidates, batch, seconds / len(sizes))
        found.append(Choice(size, best(times, original), {name: round(t, 9) for name, t in times.items()}))
    return found


def best(times: Mapping[str, float], original: str) -> str:
    """The fastest; the original only where it wins by the margin."""
    twins = {name: seconds for name, seconds in times.items() if name != original}
    if not twins:
        return original
    fastest = min(twins, key=lambda name: twins[name])
    return original if times[original] < twins[fastest] * (1 - MARGIN) else fastest


def _rounds(candidates: Mapping[str, Predict], batch: Tensors, seconds: float) -> dict[str, float]:
    for predict in candidates.values():
        predict(batch)  # the first call pays for what later ones find made
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    began = perf_counter()
    order = list(candidates)
    for number in range(_MOST_ROUNDS):
        for name in order if number % 2 else reversed(order):
            predict = candidates[name]
            started = perf_counter()
            predict(batch)
            taken[name].append(perf_counter() - started)
        if number + 1 >= _LEAST_ROUNDS and perf_counter() - began > seconds:
            break
    return {name: statistics.median(times) for name, times in taken.items()}


def repeated(rows: Tensors, size: int) -> Tensors:
    """So many rows, repeated from the first where there are too few."""
    have = len(next(iter(rows.values())))
    picked = np.arange(size) % have
    return {name: array[picked] for name, array in rows.items()}
