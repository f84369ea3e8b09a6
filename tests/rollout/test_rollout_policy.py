"""What may be asked of a rollout, and what is refused with the field that is wrong."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import InvalidInput
from turnout.deploy.rollout.policy import (
    GatesPolicy,
    GuardPolicy,
    JudgePolicy,
    LatencyGuard,
    RolloutPolicy,
    ShadowFirst,
)
from turnout.deploy.rollout.weights import grown, replicas_at, traffic_at


def policy(said: dict[str, Any]) -> RolloutPolicy:
    return msgspec.convert({"to": "v8", **said}, RolloutPolicy)


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rollouts.md"


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("Settings", RolloutPolicy), ("Guards", GuardPolicy), ("Judge", JudgePolicy), ("Shadow", ShadowFirst),
     ("Gates", GatesPolicy)],
)  # fmt: skip
def test_the_reference_has_a_row_for_each_setting_with_its_default(heading: str, kind: type[msgspec.Struct]) -> None:
    text = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0].split("`when` is")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", text, re.MULTILINE))
    fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    assert list(listed) == list(fields)
    for name, each in fields.items():
        if isinstance(each.default, (int, float)) and not isinstance(each.default, bool):
            assert listed[name] == f"`{each.default:g}`" or float(listed[name].strip("`")) == each.default, name
    assert set(policy({}).guard.on()) == {"errors", "latency", "invalid", "fallback"}


def test_guards_are_chosen_by_name() -> None:
    guard = {"errors": "off", "invalid": False, "latency": {"quantile": 0.99}, "disagreement": True, "fallback": {}}
    on = policy({"guard": guard}).guard.on()
    assert set(on) == {"latency", "fallback", "disagreement"}
    assert on["latency"] == LatencyGuard(quantile=0.99)
    assert policy({"guard": {"latency": {"quantile": [0.5, 0.9]}}}).guard.on()["latency"].quantiles == (0.5, 0.9)


def test_the_last_step_is_always_everything() -> None:
    assert policy({"steps": [10, 20]}).weights == (10.0, 20.0, 100.0)
    assert policy({"steps": [10, 100]}).weights == (10.0, 100.0)
    assert policy({"from": "v7"}).from_ == "v7"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"to": " "}, "to: not possible"),
        ({"from": "v8"}, "from: a version cannot be compared with itself"),
        ({"steps": []}, "steps: not possible; expected rising percents"),
        ({"steps": [5, 5]}, "steps"),
        ({"steps": [50, 20]}, "steps"),
        ({"steps": [0.001]}, "steps"),
        ({"steps": [101]}, "steps"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 0.9}, "alpha"),
        ({"min_samples": -1}, "min_samples"),
        ({"min_seconds": -1}, "min_seconds"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"guard": {"errors": {"max_increase": 1}}}, "max_increase"),
        ({"guard": {"latency": {"quantile": 1}}}, "quantile"),
        ({"guard": {"latency": {"quantile": []}}}, "quantile"),
        ({"guard": {"latency": {"max_ratio": 0.9}}}, "max_ratio"),
        ({"guard": {"errors": "of"}}, "Invalid enum value"),
        ({"guard": {"eror": {}}}, "eror"),
        ({"judge": {"metric": ""}}, "metric"),
        ({"judge": {"metric": "x", "margin": -1}}, "margin"),
        ({"judge": {"metric": "x", "better": "up"}}, "better"),
        ({"shadow": {"percent": 0}}, "percent"),
        ({"gates": {"manual": [7]}}, "gates.manual"),
        ({"gates": {"webhooks": [{"url": "file:///etc/passwd"}]}}, "url"),
        ({"gates": {"webhooks": [{"url": "https:///x"}]}}, "url"),
        ({"gates": {"webhooks": [{"url": "https://h:99999/"}]}}, "url"),
        ({"gates": {"webhooks": [{"url": "https://h/", "timeout": 0}]}}, "timeout"),
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises((InvalidInput, msgspec.ValidationError), match=words):
        policy(said)


shares = st.lists(st.integers(0, 100), min_size=2, max_size=5).filter(sum)


@given(shares, st.integers(0, 10_000))
def test_traffic_sums_to_100_in_hundredths_whatever_was_before(parts: list[int], weight: int) -> None:
    before = {f"v{place}": round(10_000 * part / sum(parts)) / 100 for place, part in enumerate(parts)}
    found = traffic_at(weight / 100, "v0", "v1", before)
    assert found["v0"] == weight / 100
    assert math.isclose(math.fsum(found.values()), 100.0, abs_tol=1e-9)
    for share in found.values():
        assert share >= 0.0
        assert math.isclose(share, round(share, 2), abs_tol=1e-9)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0.1, 100.0))
def test_a_weight_grows_to_its_step_and_never_beyond(was: int, shall: int, slow_start: float) -> None:
    before, weight = was / 100, shall / 100
    grows = [grown(before, weight, slow_start * part / 20, slow_start) for part in range(21)]
    assert grows[-1] == weight
    if before < weight:
        assert grows == sorted(grows)
        assert grows[0] >= before


@pytest.mark.parametrize(
    ("weight", "total", "replicas"),
    [
        (0, 4, (0, 4)),
        (1, 4, (1, 4)),
        (25, 4, (1, 3)),
        (50, 4, (2, 2)),
        (51, 4, (3, 2)),
        (100, 4, (4, 1)),
        (10, 1, (1, 1)),
    ],
)
def test_replicas_follow_the_weight_and_one_stays_for_the_way_back(
    weight: float, total: int, replicas: tuple[int, int]
) -> None:
    assert replicas_at(weight, total) == replicas
