"""What a document would change: nothing where it means the same, and otherwise every difference in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from tests.deploy.documents import documents, said_otherwise
from turnout.deploy.changes import Actual, changes
from turnout.deploy.document import Document, parse_document
from turnout.deploy.edits import Edit, edited, edits
from turnout.deploy.ledger import Need, judge
from turnout.deploy.memory_limit import Limit

NOW: dict[str, Any] = {
    "models": [
        {"name": "churn", "artifact": "/m/churn.onnx", "labels": {"stable": "1"}},
        {"name": "old", "artifact": "/m/o"},
    ],
    "endpoints": {
        "fraud": {
            "versions": {"v7": {"model": "models:/fraud/7"}, "v8": {"model": "s3://models/fraud/8", "replicas": 2}},
            "traffic": {"v7": 90, "v8": 10},
            "fallback": ["v7"],
        }
    },
    "server": {"port": 8080, "host": "0.0.0.0"},
}  # fmt: skip


def wanted(**changed: Any) -> Document:
    return parse_document({**json.loads(json.dumps(NOW)), **changed})


def fraud(**changed: Any) -> Document:
    return wanted(endpoints={"fraud": {**NOW["endpoints"]["fraud"], **changed}})


@settings(max_examples=30)
@given(documents(), documents())
def test_edits_turn_one_document_into_the_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    before, after = parse_document(one), parse_document(other)
    found = edits(before.to_json(), after.to_json())
    travelled = [Edit.from_json(json.loads(json.dumps(edit.to_json()))) for edit in found]
    assert parse_document(edited(before.to_json(), travelled)).to_text() == after.to_text()
    assert bool(found) == (before.digest != after.digest)
    if found:
        with pytest.raises(ValueError, match="is not what it was"):
            edited(edited(before.to_json(), found), found)


@settings(max_examples=30)
@given(documents())
def test_what_means_the_same_changes_nothing(said: dict[str, Any]) -> None:
    found = changes(parse_document(said), parse_document(said_otherwise(said)))
    assert (found.changed, found.lines, found.text) == (False, (), "nothing would change")


@settings(max_examples=30)
@given(documents(), documents())
def test_every_difference_has_its_line(one: dict[str, Any], other: dict[str, Any]) -> None:
    before, after = parse_document(one), parse_document(other)
    found = changes(before, after)
    assert found.changed == (before.digest != after.digest)
    assert all(str(line).count("\n") == 0 for line in found.lines)
    json.dumps(found.to_json())


def test_the_first_document_loads_everything() -> None:
    assert changes(None, wanted()).text.splitlines() == [
        "+ load    models.churn: /m/churn.onnx",
        "+ load    models.old: /m/o",
        "+ load    endpoints.fraud.versions.v7: models:/fraud/7",
        "+ load    endpoints.fraud.versions.v8: s3://models/fraud/8",
        "~ move    endpoints.fraud.traffic: (default) -> v7 90, v8 10",
        "~ set     server.host: (default) -> 0.0.0.0 (in force after a restart)",
    ]


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        (fraud(traffic={"v7": 50, "v8": 50}), ["~ move    endpoints.fraud.traffic: v7 90, v8 10 -> v7 50, v8 50"]),
        (
            fraud(versions={"v7": {"model": "models:/fraud/7"}, "v8": {"model": "s3://models/fraud/9", "replicas": 3}}),
            [
                "~ replace endpoints.fraud.versions.v8: s3://models/fraud/8 -> s3://models/fraud/9",
                "~ set     endpoints.fraud.versions.v8.replicas: 2 -> 3 (it is loaded again)",
            ],
        ),
        (
            fraud(versions={"v7": {"model": "models:/fraud/7"}}, traffic={"v7": 100}),
            [
                "- unload  endpoints.fraud.versions.v8: s3://models/fraud/8",
                "~ move    endpoints.fraud.traffic: v7 90, v8 10 -> v7 100",
                "! break   endpoints.fraud.versions.v8: v8 is not there any more",
            ],
        ),
        (fraud(direct=False), [
            "~ set     endpoints.fraud.direct: (default) -> false",
            "! break   endpoints.fraud.direct: callers may name a version is not there any more",
        ]),
        (fraud(fallback=["v8", {"default": {"score": 0.5}}]),
         ["~ set     endpoints.fraud.fallback: [v7] -> [v8, default score 0.5]"]),
        (fraud(retry={"attempts": 3}), [
            "~ set     endpoints.fraud.retry: (default) -> attempts 3 (of every version that says nothing else)"]),
        (wanted(models=NOW["models"][:1]), [
            "- unload  models.old: /m/o", "! break   models.old: old is not there any more"]),
        (wanted(models=[{"name": "churn", "artifact": "/m/churn.onnx"}, NOW["models"][1]]), [
            "~ set     models.churn.labels: stable 1 -> (default)",
            "! break   models.churn.labels.stable: 1 is not there any more"]),
        (wanted(server={"port": 9090, "host": "0.0.0.0"}),
         ["~ set     server.port: (default) -> 9090 (in force after a restart)"]),
    ],
)  # fmt: skip
def test_lines(after: Document, lines: list[str]) -> None:
    found = changes(wanted(), after)
    assert found.text.splitlines() == lines
    assert found.breaks == any(line.startswith("!") for line in lines)


def test_a_model_that_becomes_an_endpoint_breaks_nothing() -> None:
    after = wanted(
        models=NOW["models"][:1], endpoints={**NOW["endpoints"], "old": {"versions": {"1": {"model": "/m/o"}}}}
    )
    assert not changes(wanted(), after).breaks


def test_a_signature_that_changes_for_callers_is_told_where_it_is_known() -> None:
    def signature(shape: list[int]) -> dict[str, Any]:
        return {"inputs": [{"name": "x", "datatype": "FP32", "shape": shape}], "outputs": []}

    after = fraud(traffic={"v7": 10, "v8": 90})
    actual = Actual(signatures={"fraud@v7": signature([-1, 4]), "fraud@v8": signature([-1, 5])})
    assert "! break   endpoints.fraud.inputs: x FP32[-1,4] -> x FP32[-1,5]" in changes(wanted(), after, actual).text
    assert not changes(wanted(), after, Actual({"fraud@v7": signature([-1, 4])})).breaks, (
        "what is not known is not told"
    )


def test_a_plan_says_whether_it_fits() -> None:
    fit = judge(
        [Need("fraud@v7", 1 << 30)], [Need("fraud@v7", 1 << 30), Need("fraud@v9", 4 << 30)], Limit(4 << 30, "said")
    )
    found = changes(wanted(), fraud(traffic={"v7": 100}), Actual(fit=fit))
    assert found.fits is False
    assert found.notes[0] == "memory: does NOT fit: 5.0 GiB at most, of 4.0 GiB (said)"
    assert found.to_json()["fits"] is False
