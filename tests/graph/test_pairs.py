"""Pairs: what agrees, what flips, how far apart, and that it does not matter who has counted what."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.callers import asked
from turnout.core.errors import DeadlineExceeded, InvalidInput, QueueFull
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors, bytes_array
from turnout.graph.difference import MAX_LABELS, OTHER
from turnout.graph.pairs import MAX_SEGMENTS, NOTHING, Comparison, Pair, PairPolicy, Pairs
from turnout.graph.sketch import Sketch
from turnout.graph.worst import MAX_LENGTH, MAX_ROWS, MAX_VALUES


def answer(outputs: Mapping[str, Any]) -> InferResponse:
    return InferResponse({name: np.asarray(value) for name, value in outputs.items()}, "fraud", "v")


def compared(
    primary: Mapping[str, Any] | BaseException,
    shadow: Mapping[str, Any] | BaseException,
    inputs: Tensors | None = None,
    policy: Any = None,
    into: Pairs | None = None,
    id: str = "p",
    header: Mapping[str, str] | None = None,
) -> Pairs:
    pairs = Pairs() if into is None else into
    given = inputs
    if given is None:
        first = np.asarray(next(iter(primary.values()))) if isinstance(primary, Mapping) else np.zeros(1)
        given = {"x": np.zeros((len(first) if first.ndim else 1, 1))}
    request: InferRequest = asked(inputs=given, header=header or {})
    sides = [side if isinstance(side, BaseException) else answer(side) for side in (primary, shadow)]
    Comparison(msgspec.convert(policy or {}, PairPolicy)).add(
        pairs, Pair(request, id, sides[0], 0.010, sides[1], 0.020)
    )
    return pairs


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("kind", "primary", "shadow", "agreed", "close", "odd"),
    [
        ("label", np.array([0, 1, 1]), np.array([0, 1, 0]), 2, 2, 0),
        ("label", np.array([True, False]), np.array([True, True]), 1, 1, 0),
        ("label", bytes_array(["a", "b"], (2,)), bytes_array(["a", "c"], (2,)), 1, 1, 0),
        ("label", np.array([[3], [4]]), np.array([[3], [5]]), 1, 1, 0),
        ("number", np.array([1.0, 2.0]), np.array([1.0 + 1e-7, 2.1]), 1, 1, 0),
        ("number", np.array([1e9]), np.array([1e9 + 1]), 1, 1, 0),
        ("number", np.array([NAN, NAN, 1.0, INF, INF]), np.array([NAN, 1.0, NAN, INF, -INF]), 2, 2, 3),
        ("number", np.array([1], np.int64), np.array([1.0], np.float32), 1, 1, 0),
        ("number", np.array([2], np.float32), np.array([2.0], np.float64), 1, 1, 0),
        ("scores", np.array([[0.6, 0.4], [0.6, 0.4]]), np.array([[0.7, 0.3], [0.4, 0.6]]), 1, 0, 0),
        ("values", np.array([[1.5, 2.5]]), np.array([[1.5, 2.5]]), 1, 1, 0),
        ("values", np.array([[1.5, 2.5]]), np.array([[1.5, 3.5]]), 0, 0, 0),
        ("values", np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 5]]), 1, 1, 0),
        ("values", bytes_array(list("abcd"), (2, 2)), bytes_array(list("abcx"), (2, 2)), 1, 1, 0),
    ],
)
def test_kinds_of_outputs(kind: str, primary: Any, shadow: Any, agreed: int, close: int, odd: int) -> None:
    pairs = compared({"y": primary}, {"y": shadow})
    found = pairs.outputs["y"]
    assert (found.kind, found.rows, found.agreed, found.close, found.odd, found.unlike) == (
        *(kind, len(primary), agreed, close, odd, 0),
    )
    assert (pairs.requests, pairs.rows, pairs.agreed) == (1, len(primary), agreed)
    assert sum(found.flips.values()) == (len(primary) if kind in {"label", "scores"} else 0)


@pytest.mark.parametrize(
    ("primary", "shadow"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4))),
        (np.zeros(2), bytes_array(["0", "0"], (2,))),
        (np.zeros(2), np.zeros(1)),
        (np.zeros(2, "M8[s]"), np.zeros(2, "M8[s]")),
        (np.zeros(2), np.zeros(())),
    ],
)
def test_what_cannot_be_compared_does_not_agree(primary: Any, shadow: Any) -> None:
    pairs = compared({"y": primary}, {"y": shadow})
    assert (pairs.rows, pairs.agreed, pairs.flipped, pairs.outputs["y"].unlike) == (2, 0, 2, 2)


def test_long_texts_differ_where_their_labels_do_not() -> None:
    long = "x" * 1000
    pairs = compared({"y": bytes_array([long, long], (2,))}, {"y": bytes_array([long, long + "!"], (2,))})
    assert (pairs.agreed, pairs.flipped) == (1, 1)
    assert pairs.outputs["y"].flips == {("x" * 64, "x" * 64): 1, ("x" * 64, OTHER): 1}
    assert compared({"y": np.array([True])}, {"y": np.array([1])}).outputs["y"].flips == {("true", "true"): 1}


def test_an_answer_without_rows_is_one() -> None:
    inputs = {"x": np.zeros((1, 5))}
    assert compared({"total": np.float64(3)}, {"total": np.float64(3)}, inputs).agreed == 1
    assert compared({"box": np.arange(4.0)}, {"box": np.arange(4.0)}, inputs).agreed == 1
    assert compared({"box": np.arange(4.0)}, {"box": np.arange(4.0) + 1}, inputs).agreed == 0


def test_a_row_agrees_where_all_outputs_do() -> None:
    pairs = compared({"label": [0, 1, 1], "score": [0.1, 0.9, 0.8]}, {"label": [0, 0, 1], "score": [0.1, 0.9, 0.2]})
    assert (pairs.agreed, pairs.flipped) == (1, 1)
    assert pairs.outputs["label"].flips == {("0", "0"): 1, ("1", "0"): 1, ("1", "1"): 1}
    assert pairs.outputs["score"].distance.largest == pytest.approx(0.6)
    only = compared(
        {"label": [0, 1, 1], "score": [0.1, 0.9, 0.8]},
        {"label": [0, 0, 1], "score": [0.1, 0.9, 0.2]},
        policy={"outputs": ["label"]},
    )
    assert only.agreed == 2


def test_outputs_that_only_one_has_are_named() -> None:
    pairs = compared({"a": [1], "b": [1]}, {"b": [1], "c": [1]})
    assert pairs.missing == {"a", "c"}
    assert (pairs.rows, pairs.agreed) == (1, 1)
    nothing = compared({"a": [1]}, {"c": [1]})
    assert (nothing.requests, nothing.rows) == (1, 0)


def test_tolerances_are_the_operator_s() -> None:
    for policy, agreed in (({}, 0), ({"tolerance": 0.2}, 1), ({"relative": 0.2}, 1), ({"tolerance": 0.05}, 0)):
        assert compared({"y": [1.0]}, {"y": [1.1]}, policy=policy).agreed == agreed


def test_failures_are_counted_by_who_failed() -> None:
    pairs = compared({"y": [1]}, QueueFull("full"))
    compared(DeadlineExceeded("late"), {"y": [1]}, into=pairs)
    compared(DeadlineExceeded("late"), QueueFull("full"), into=pairs)
    compared({"y": [1]}, ZeroDivisionError("a secret"), into=pairs)
    assert pairs.failed == {
        "primary": {"DeadlineExceeded": 1},
        "shadow": {"QueueFull": 1, "ModelFailed": 1},
        "both": {"DeadlineExceeded": 1},
    }
    assert pairs.requests == 0


def test_the_worst_rows_are_flips_then_distances() -> None:
    inputs = {"amount": np.arange(30.0), "country": bytes_array(["DE"] * 30, (30,))}
    primary = {"label": np.zeros(30, np.int64), "score": np.zeros(30)}
    shadow = {"label": np.zeros(30, np.int64), "score": np.arange(30.0)}
    shadow["label"][3] = 1
    pairs = compared(primary, shadow, inputs, id="p-7")
    rows = pairs.worst.to_json()
    assert len(rows) == MAX_ROWS
    assert [row["row"] for row in rows] == [3, *range(29, 29 - MAX_ROWS + 1, -1)]
    assert rows[0] == {
        "id": "p-7",
        "row": 3,
        "primary": {"label": 0, "score": 0.0},
        "shadow": {"label": 1, "score": 3.0},
        "inputs": {"amount": 3.0, "country": "DE"},
        "flipped": True,
        "distance": 3.0,
    }


def test_inputs_are_left_out_where_they_may_not_be_kept_or_seen() -> None:
    inputs = {"secret": bytes_array(["4711"], (1,))}
    policy = {"segment": {"column": "secret"}}
    kept = compared({"y": [0]}, {"y": [1]}, inputs, policy=policy)
    assert "4711" in json.dumps(kept.to_json())
    assert "4711" not in json.dumps(kept.to_json(inputs=False))
    assert "4711" not in json.dumps(compared({"y": [0]}, {"y": [1]}, inputs, policy={"inputs": False}).to_json())


def test_rows_are_short_whatever_they_hold() -> None:
    inputs = {
        "wide": np.zeros((1, 5000)),
        "text": bytes_array(["x" * 100_000], (1,)),
        **{f"t{i}": np.zeros((1, 40)) for i in range(40)},
        "odd": np.array([NAN]),
    }
    pairs = compared({"y": np.zeros((1, 9000)), "z": [INF]}, {"y": np.ones((1, 9000)), "z": [NAN]}, inputs)
    said = json.dumps(pairs.to_json(), allow_nan=False)
    (row,) = json.loads(said)["worst"]
    assert len(said) < 20_000
    assert row["primary"]["y"][MAX_VALUES:] == [f"... {9000 - MAX_VALUES} more"]
    small = compared({"y": [0]}, {"y": [1]}, {"text": inputs["text"], "odd": inputs["odd"]}).worst.to_json()
    assert small[0]["inputs"] == {"text": "x" * MAX_LENGTH + "...", "odd": "nan"}


def test_segments() -> None:
    inputs = {"country": bytes_array(["DE", "FR", "DE", ""], (4,))}
    pairs = compared({"y": [0.0, 0, 0, 0]}, {"y": [0.0, 2, 1, 0]}, inputs, policy={"segment": {"column": "country"}})
    assert pairs.segments == {"DE": (2, 1, 1.0), "FR": (1, 0, 2.0), NOTHING: (1, 1, 0.0)}
    header = compared({"y": [0, 0]}, {"y": [0, 1]}, policy={"segment": {"header": "X-Team"}}, header={"x-team": "red"})
    assert header.segments == {"red": (2, 1, 1.0)}
    table = Signature((TensorSpec("rows", "FP64", (-1, 2), ("age", "zone")),), ())
    policy = msgspec.convert({"segment": {"column": "zone"}}, PairPolicy)
    found = Pairs()
    request = asked(inputs={"rows": np.array([[1.0, 7], [2, 8]])})
    Comparison(policy, table).add(found, Pair(request, "p", answer({"y": [0, 0]}), 1, answer({"y": [0, 1]}), 1))
    assert found.segments == {"7": (1, 1, 0.0), "8": (1, 0, 1.0)}
    with pytest.raises(InvalidInput, match="zone"):
        Comparison(msgspec.convert({"segment": {"column": "zoen"}}, PairPolicy), table)


def test_labels_segments_and_kinds_of_failures_are_bounded() -> None:
    pairs = Pairs()
    for at in range(0, 2000, 100):
        numbers = np.arange(at, at + 100)
        compared(
            {"y": numbers}, {"y": numbers + 1}, {"n": numbers}, {"segment": {"column": "n"}}, into=pairs, id=str(at)
        )
        pairs.add_failures(f"Kind{at}", "")
    both = pairs.plus(pairs)
    for found, times in ((pairs, 1), (both, 2)):
        labels = {label for pair in found.outputs["y"].flips for label in pair}
        assert len(labels - {OTHER}) <= 2 * MAX_LABELS
        assert sum(found.outputs["y"].flips.values()) == 2000 * times
        assert len(found.segments) <= MAX_SEGMENTS + 1
        assert sum(rows for rows, _, _ in found.segments.values()) == 2000 * times
        assert sum(found.failed["primary"].values()) == 20 * times
        assert len(msgspec.json.encode(found.to_json())) < 64_000


def test_a_large_answer_is_compared_in_part() -> None:
    big = np.zeros((4000, 100))
    pairs = compared({"y": big}, {"y": big}, {"x": np.zeros((4000, 1))})
    assert 100 < pairs.rows <= 256
    assert compared({"y": np.zeros((1, 200_000))}, {"y": np.zeros((1, 200_000))}).rows == 1


@st.composite
def answers(draw: st.DrawFn) -> list[tuple[str, list[int], list[float], list[float]]]:
    """Requests: id, labels of the shadow, scores of both; labels of the primary are all 0."""
    rows = st.integers(1, 4)
    score = st.floats(-100, 100, width=32)
    found = []
    for at in range(draw(st.integers(1, 8))):
        size = draw(rows)
        labels, ours, theirs = (
            draw(st.lists(kind, min_size=size, max_size=size)) for kind in (st.integers(0, 2), score, score)
        )
        found.append((f"id-{at}", labels, ours, theirs))
    return found


@given(answers(), st.integers(0, 8), st.randoms())
def test_it_does_not_matter_where_pairs_were_counted_or_in_which_order(
    requests: list[tuple[str, list[int], list[float], list[float]]], cut: int, chance: Any
) -> None:
    def counted(some: list[tuple[str, list[int], list[float], list[float]]]) -> Pairs:
        pairs = Pairs()
        for id, labels, ours, theirs in some:
            compared(
                {"label": [0] * len(labels), "score": ours},
                {"label": labels, "score": theirs},
                {"n": np.arange(len(labels))},
                {"segment": {"column": "n"}},
                pairs,
                id,
            )
        return pairs

    whole = counted(requests)
    mixed = list(requests)
    chance.shuffle(mixed)
    parts = [
        Pairs.from_json(msgspec.json.decode(msgspec.json.encode(counted(p).to_json())))
        for p in (mixed[:cut], mixed[cut:])
    ]
    for one, other in (parts, parts[::-1]):
        joined = one.plus(other)
        assert (joined.requests, joined.rows, joined.agreed, joined.flipped) == (
            *(whole.requests, whole.rows, whole.agreed, whole.flipped),
        )
        assert joined.outputs["label"].flips == whole.outputs["label"].flips
        assert joined.worst.to_json() == whole.worst.to_json()
        mine, theirs = joined.outputs["score"].distance, whole.outputs["score"].distance
        assert (mine.count, mine.zeros, mine.largest) == (theirs.count, theirs.zeros, theirs.largest)
        assert mine.total == pytest.approx(theirs.total)
        assert mine.quantile(0.5) == theirs.quantile(0.5)
        assert {name: counts[:2] for name, counts in joined.segments.items()} == {
            name: counts[:2] for name, counts in whole.segments.items()
        }
        assert joined.ratio == pytest.approx(whole.ratio)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]))
def test_a_sketch_knows_quantiles_to_within_five_percent(values: list[float], share: float) -> None:
    each, together = Sketch(), Sketch()
    for value in values:
        each.add(value)
    together.add_each(np.array(values))
    rank = max(1, math.ceil(share * len(values)))
    exact = sorted(values)[rank - 1]
    for sketch in (each, together, Sketch.from_json(json.loads(json.dumps(each.to_json())))):
        assert sketch.quantile(share) == pytest.approx(exact, rel=0.051, abs=1e-11)
        assert sketch.mean == pytest.approx(sum(values) / len(values), rel=1e-9, abs=1e-300)
        assert sketch.largest == max(values)


def test_a_sketch_of_nothing_and_of_too_much() -> None:
    assert math.isnan(Sketch().quantile(0.5))
    assert math.isnan(Sketch().mean)
    huge = Sketch()
    huge.add(1e308)
    huge.add_each(np.full(9, 1.7e308))
    json.dumps(huge.plus(huge).to_json(), allow_nan=False)
