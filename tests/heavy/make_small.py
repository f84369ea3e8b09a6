"""OpenVINO, treelite, statsmodels and PMML: small libraries, which live together in one environment."""

# ruff: noqa: E402  the libraries warn while they are imported

from __future__ import annotations

import json
import sys
import warnings

warnings.simplefilter("ignore")

import numpy as np
import openvino
import pandas as pd
import statsmodels.api
import statsmodels.formula.api
import treelite
from keeping import ROWS, Keep
from openvino import opset13 as op
from pypmml import Model as Pmml
from pypmml import PMMLContext
from sklearn import ensemble

keep = Keep(sys.argv[1])
random = np.random.default_rng(0)
x = random.standard_normal((ROWS, 4)).astype(np.float32)
CLOSE = (1e-5, 1e-6)

# -- OpenVINO ---------------------------------------------------------------------------------------------------------


def graph(name, parameters, results):
    """The files of a graph in a folder, and the graph compiled."""
    (keep.folder / name).mkdir()
    path = f"{keep.folder}/{name}/graph.xml"
    openvino.save_model(openvino.Model(results, parameters, name), path, compress_to_fp16=False)
    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1})


def named(node, name):
    node.output(0).set_names({name})
    return node


points = named(op.parameter([-1, 4], np.float32), "points")
weights = op.constant(random.standard_normal((4, 3)).astype(np.float32))
scores = named(op.softmax(op.matmul(points, weights, False, False), 1), "scores")
total = named(op.reduce_sum(points, op.constant([1])), "total")
softmax = graph("softmax", [points], [scores, total])(x)
shared = {
    "format": "openvino",
    "rows": {"points": x},
    "expected": {"scores": softmax["scores"], "total": softmax["total"]},
    "split": CLOSE,
}
keep(
    "openvino-graph",
    "softmax",
    **shared,
    essential=["graph.xml", "graph.bin"],
    inputs={"points": ["FP32", -1, 4]},
    served=True,
)
keep("openvino-xml-file", "softmax/graph.xml", **shared, damage=False)
keep("openvino-bin-file", "softmax/graph.bin", **shared, damage=False)
cells = named(op.parameter([2, 3], np.int64), "cells")
fixed = graph("fixed", [cells], [named(op.multiply(cells, op.constant(np.full((1, 3), 3, dtype=np.int64))), "tripled")])
numbers = random.integers(-9, 9, (ROWS, 3))
keep(
    "openvino-fixed",
    "fixed",
    format="openvino",
    rows={"cells": numbers},
    expected={"tripled": np.concatenate([fixed(numbers[at : at + 2])[0] for at in range(0, ROWS, 2)])},
    damage=False,
    inputs={"cells": ["INT64", 2, 3]},
    few=2,
)
mixed = named(op.parameter([-1, 3], np.float32), "points")
centred = named(op.subtract(mixed, op.reduce_mean(mixed, op.constant([0]), True)), "centred")
keep(
    "openvino-mixed-rows",
    "mixed",
    format="openvino",
    rows={"points": x[:, :3].copy()},
    expected={"centred": graph("mixed", [mixed], [centred])(x[:, :3].copy())[0]},
    batched=False,
    damage=False,
)

# -- treelite ---------------------------------------------------------------------------------------------------------

features = x.astype(np.float64)
three = (features[:, 0] + features[:, 1] > 0).astype(int) + (features[:, 2] > 1)
two = three > 0
target = features @ [1.0, 2.0, 0.5, 0.0] + random.standard_normal(ROWS)


def trees(name, estimator, wanted, served=False, damage=False, **options):
    found = treelite.sklearn.import_model(estimator)
    found.serialize(f"{keep.folder}/{name}.tl")
    answer = treelite.gtil.predict(found, features, nthread=1)
    keep(
        f"treelite-{name}",
        f"{name}.tl",
        format="treelite",
        rows={"x": features},
        expected=wanted(answer),
        inputs={"x": ["FP64", -1, 4]},
        served=served,
        damage=damage,
        **options,
    )


def of_classes(answer):
    return {"label": np.argmax(answer[:, 0], axis=1), "probabilities": answer[:, 0]}


def of_two(answer):
    positive = answer[:, 0, 0]
    return {"label": (positive > 0.5).astype(int), "probabilities": np.stack([1 - positive, positive], 1)}


forest = ensemble.RandomForestClassifier(20, max_depth=6, random_state=0).fit(features, three)
boosted = ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0).fit(features, two)
regressor = ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0).fit(features, target)
both = ensemble.RandomForestClassifier(5, max_depth=4, random_state=0).fit(features, np.c_[three, two])
outliers = ensemble.IsolationForest(n_estimators=10, random_state=0).fit(features)
trees("forest", forest, of_classes, served=True, damage=True, wrong_suffix=".onnx")
trees("boosted", boosted, of_two, damage=True)
trees("regressor", regressor, lambda answer: {"prediction": answer[:, 0, 0]})
trees("outliers", outliers, lambda answer: {"scores": answer[:, 0, 0]})
trees(
    "targets",
    both,
    lambda answer: {
        "label": np.stack([np.argmax(answer[:, 0], 1), np.argmax(answer[:, 1, :2], 1)], 1),
        "probabilities_0": answer[:, 0],
        "probabilities_1": answer[:, 1, :2],
    },
)

# -- statsmodels ------------------------------------------------------------------------------------------------------

matrix = statsmodels.api.add_constant(features)
frame = pd.DataFrame({"y": target, "a": x[:, 0], "b b": features[:, 1]})
frame["g"] = random.choice(["hi", "lo", "mid"], ROWS)
frame["many"] = three
formula = 'y ~ np.log(a ** 2 + 1) + Q("b b") * C(g)'
columns = {"a": features[:, 0], "b b": features[:, 1], "g": frame["g"].to_numpy(dtype=object)}
for name, results, rows in (
    ("ols", statsmodels.api.OLS(target, matrix).fit(), {"x": matrix}),
    ("logit", statsmodels.api.Logit(two, matrix[:, :4]).fit(disp=0), {"x": matrix[:, :4].copy()}),
    ("classes", statsmodels.api.MNLogit(three, matrix[:, [0, 4]]).fit(disp=0), {"x": matrix[:, [0, 4]].copy()}),
    ("formula", statsmodels.formula.api.ols(formula, data=frame).fit(), columns),
):
    results.save(f"{keep.folder}/{name}.pickle")
    given = pd.DataFrame({key: np.asarray(value) for key, value in rows.items()}) if name == "formula" else rows["x"]
    keep(
        f"statsmodels-{name}",
        f"{name}.pickle",
        format="statsmodels",
        rows=rows,
        expected={"prediction": np.asarray(statsmodels.api.load(f"{keep.folder}/{name}.pickle").predict(given))},
        split=CLOSE,  # BLAS adds up in another order for another number of rows
        trust_pickle=True,
        damage=name in {"ols", "formula"},
        wrong_suffix=".onnx" if name == "ols" else None,
        served=name in {"ols", "formula"},
    )

# -- PMML -------------------------------------------------------------------------------------------------------------


def node(tree, at, classes):
    """A tree of scikit-learn as PMML's nodes, each with its predicate."""

    def inside(place, predicate):
        counts = tree.value[place][0] * tree.n_node_samples[place]
        score = classes[int(np.argmax(counts))]
        spread = "".join(
            f'<ScoreDistribution value="{value}" recordCount="{count!r}"/>'
            for value, count in zip(classes, counts.tolist(), strict=True)
        )
        text = f'<Node id="{place}" score="{score}" recordCount="{float(counts.sum())!r}">{predicate}{spread}'
        if tree.children_left[place] != -1:
            split = f'field="{"abcd"[tree.feature[place]]}" value="{float(tree.threshold[place])!r}"'
            left = f'<SimplePredicate operator="lessOrEqual" {split}/>'
            right = f'<SimplePredicate operator="greaterThan" {split}/>'
            text += inside(int(tree.children_left[place]), left) + inside(int(tree.children_right[place]), right)
        return text + "</Node>"

    return inside(at, "<True/>")


FIELDS = "".join(f'<DataField name="{name}" optype="continuous" dataType="double"/>' for name in "abcd")
MINING = "".join(f'<MiningField name="{name}"/>' for name in "abcd")
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/>'
CLASSES = ("low", "middle", "high")


def document(name, body):
    (keep.folder / f"{name}.pmml").write_text(HEAD + body + "</PMML>\n")
    return Pmml.fromFile(f"{keep.folder}/{name}.pmml")


segments = "".join(
    f'<Segment id="{number}"><True/><TreeModel functionName="classification" splitCharacteristic="binarySplit">'
    f"<MiningSchema>{MINING}</MiningSchema>{node(tree.tree_, 0, CLASSES)}</TreeModel></Segment>"
    for number, tree in enumerate(forest.estimators_[:5])
)
values = "".join(f'<Value value="{value}"/>' for value in CLASSES)
outputs = "".join(
    f'<OutputField name="p_{v}" optype="continuous" dataType="double" feature="probability" value="{v}"/>'
    for v in CLASSES
)
PMMLContext.getOrCreate(gateway="jpype")
model = document(
    "forest",
    f'<DataDictionary>{FIELDS}<DataField name="y" optype="categorical" dataType="string">{values}</DataField>'
    '</DataDictionary><MiningModel functionName="classification"><MiningSchema>'
    f'<MiningField name="y" usageType="target"/>{MINING}</MiningSchema><Output>'
    '<OutputField name="answer" optype="categorical" dataType="string" feature="predictedValue"/>'
    f'{outputs}</Output><Segmentation multipleModelMethod="average">{segments}</Segmentation></MiningModel>',
)
answers = [model.predict(dict(zip("abcd", row, strict=True))) for row in features.tolist()]
ours = np.mean([tree.predict_proba(features) for tree in forest.estimators_[:5]], 0)
assert np.allclose([[a[f"p_{v}"] for v in CLASSES] for a in answers], ours, atol=0.02), "the document is another forest"
keep(
    "pmml-forest",
    "forest.pmml",
    format="pmml",
    rows=dict(zip("abcd", features.T.copy(), strict=True)),
    expected={
        "answer": np.array([str(a["answer"]) for a in answers]),
        **{f"p_{v}": np.array([float(a[f"p_{v}"]) for a in answers]) for v in CLASSES},
    },
    wrong_suffix=".onnx",
    served=True,
)
linear = document(
    "linear",
    '<DataDictionary><DataField name="size" optype="continuous" dataType="double"/>'
    '<DataField name="rooms" optype="categorical" dataType="integer"><Value value="1"/><Value value="2"/></DataField>'
    '<DataField name="town" optype="categorical" dataType="string"><Value value="Köln"/><Value value="Bonn"/>'
    '</DataField><DataField name="price" optype="continuous" dataType="double"/></DataDictionary>'
    '<RegressionModel functionName="regression"><MiningSchema><MiningField name="price" usageType="target"/>'
    '<MiningField name="size" missingValueReplacement="50"/><MiningField name="rooms"/><MiningField name="town"/>'
    '</MiningSchema><RegressionTable intercept="10"><NumericPredictor name="size" coefficient="2.5"/>'
    '<CategoricalPredictor name="rooms" value="2" coefficient="7"/>'
    '<CategoricalPredictor name="town" value="Köln" coefficient="-3.25"/></RegressionTable></RegressionModel>',
)
sizes = np.where(random.random(ROWS) < 0.1, np.nan, random.uniform(20, 200, ROWS))
rooms, towns = random.integers(1, 3, ROWS), random.choice(["Köln", "Bonn"], ROWS)
plain = [
    {"size": None if np.isnan(s) else float(s), "rooms": int(r), "town": str(t)}
    for s, r, t in zip(sizes, rooms, towns, strict=True)
]
prices = [float(linear.predict(row)["predicted_price"]) for row in plain]
filled = np.where(np.isnan(sizes), 50.0, sizes)
assert np.allclose(prices, 10 + 2.5 * filled + 7 * (rooms == 2) - 3.25 * (towns == "Köln")), json.dumps(prices[:3])
keep(
    "pmml-linear",
    "linear.pmml",
    format="pmml",
    rows={"size": sizes, "rooms": rooms.astype(np.float64), "town": towns.astype(object)},
    expected={"predicted_price": np.array(prices)},
    damage=False,
)
