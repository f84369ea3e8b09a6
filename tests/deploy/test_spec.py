"""Specs travel as JSON and refuse what cannot be."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import InvalidInput
from turnout.deploy.policy import VersionPolicy
from turnout.deploy.restart import FIRST, FORGET, MOST, back_off, next_failures
from turnout.deploy.spec import ModelSpec, ServeSpec, template_of
from turnout.deploy.version import VersionSpec
from turnout.runtime.batch_policy import BatchPolicy

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,20}", fullmatch=True)
paths = st.text(min_size=1, max_size=20)
seconds = st.floats(0.001, 1e6)
policies = st.builds(
    BatchPolicy,
    max_rows=st.integers(1, 10**6),
    max_wait=st.floats(0, 100),
    queue_rows=st.integers(1, 10**9),
    queue_bytes=st.integers(1, 10**12),
    max_seconds=seconds,
)
models = st.builds(
    ModelSpec,
    name=names,
    artifact=paths,
    version=st.integers(1, 99).map(str),
    versions=st.sampled_from(["latest:2", "all", "specific:1,2"]).map(VersionPolicy.parse),
    labels=st.sampled_from([(), (("stable", "1"),)]),
    environment=st.sampled_from(["auto", "none", ("numpy", "scipy==1.15")]),
    swap=st.sampled_from(["availability", "resources"]),
    watch=st.floats(0, 1e6),
    keep=st.integers(0, 3),
    format=st.none() | st.just("onnx"),
    trust_pickle=st.booleans(),
    replicas=st.integers(1, 8),
    threads=st.integers(1, 8),
    signature=st.none() | paths,
    example=st.none() | paths,
    batching=policies,
)
serves = st.builds(
    ServeSpec,
    models=st.lists(models, min_size=1, max_size=3, unique_by=lambda model: model.name).map(tuple),
    port=st.integers(0, 30000),
    grpc_port=st.integers(30001, 65535),
    routers=st.integers(1, 8),
    default_deadline=seconds,
    load_timeout=seconds,
    drain_timeout=seconds,
    max_body_bytes=st.integers(1, 2**40),
)


@given(serves)
def test_a_spec_travels_as_json(spec: ServeSpec) -> None:
    assert ServeSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    for model in spec.models:
        assert ModelSpec.from_json(json.loads(json.dumps(model.to_json()))) == model
        version = VersionSpec(model.name, model.artifact, "3", 2, batching=model.batching)
        assert VersionSpec.from_json(json.loads(json.dumps(version.to_json()))) == version


GOOD = ModelSpec("m", "model.onnx")
SERVED = ServeSpec((GOOD,))


@pytest.mark.parametrize("name", ["", "-m", "a/b", "a b", "..", "a" * 129, "ü", "a\n", "m:predict"])
def test_names_that_would_break_a_path_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="not a model name"):
        ModelSpec(name, "x")


@pytest.mark.parametrize(
    ("field", "value"),
    [("place", "elsewhere"), ("replicas", 0), ("threads", 0)],
)
def test_models_that_cannot_be(field: str, value: object) -> None:
    with pytest.raises(InvalidInput):
        replace(GOOD, **{field: value})


def test_an_inline_model_is_there_once() -> None:
    with pytest.raises(InvalidInput, match="inline"):
        replace(GOOD, place="inline", replicas=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("models", (GOOD, GOOD)),
        ("routers", 0),
        ("port", -1),
        ("port", 65536),
        ("grpc_port", 70000),
        ("default_deadline", 0.0),
        ("default_deadline", math.inf),
        ("default_deadline", math.nan),
        ("load_timeout", -1.0),
        ("drain_timeout", math.nan),
        ("max_body_bytes", 0),
    ],
)
def test_specs_that_cannot_be(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        replace(SERVED, **{field: value})
    assert caught.value.field == field


def test_two_doors_need_two_ports() -> None:
    with pytest.raises(InvalidInput, match="a port each"):
        replace(SERVED, port=8080, grpc_port=8080)
    assert replace(SERVED, port=0, grpc_port=0).with_ports(1, 2).port == 1


def test_a_first_death_costs_no_wait_and_a_loop_of_them_ever_more() -> None:
    waits = []
    failures = 0
    for _ in range(20):
        failures = next_failures(failures, lived=0.1)
        waits.append(back_off(failures))
    assert waits[0] == 0.0
    assert waits[1] == 2 * FIRST
    assert waits == sorted(waits)
    assert waits[-1] == MOST
    assert all(later <= 2 * sooner for sooner, later in pairwise(waits[1:]))


def test_who_lived_long_starts_afresh() -> None:
    assert next_failures(9, FORGET) == 1
    assert next_failures(9, FORGET - 1.0) == 10
    assert back_off(0) == back_off(1) == 0.0


@given(st.integers(0, 10_000))
def test_the_wait_is_bounded(failures: int) -> None:
    assert 0.0 <= back_off(failures) <= MOST


def test_a_model_loaded_later_runs_as_all_do_and_takes_nothing_that_belongs_to_one() -> None:
    specific = VersionPolicy("specific", versions=("1",))
    one = ModelSpec(
        "a", "a.pkl", versions=specific, labels=(("stable", "1"),), watch=2.0, trust_pickle=True, format="sklearn"
    )
    alone = template_of([one])
    assert (alone.watch, alone.trust_pickle) == (2.0, True)
    assert (alone.versions, alone.labels, alone.format) == (VersionPolicy(), (), None)
    both = template_of([one, ModelSpec("b", "b.onnx", watch=2.0)])
    assert (both.watch, both.trust_pickle) == (2.0, False), "trust is given to one, not to what comes"
    assert template_of([ModelSpec("c", "c", place="inline")]).place == "inline"
