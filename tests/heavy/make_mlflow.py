"""Saves models of many flavors with a real MLflow, and what its scoring server answers for them. Argument: a directory.

Runs in an environment with MLflow; the tests that read its files need none.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import mlflow
import numpy as np
import pandas as pd
import xgboost
from mlflow.models import infer_signature
from mlflow.pyfunc import scoring_server
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

warnings.simplefilter("ignore")
ROOT = Path(sys.argv[1])
IRIS, SPECIES = load_iris(return_X_y=True, as_frame=True)
CANCER, SICK = load_breast_cancer(return_X_y=True, as_frame=True)
DIABETES, PROGRESS = load_diabetes(return_X_y=True, as_frame=True)
MIXED = pd.DataFrame({"length": IRIS.iloc[:, 0], "colour": np.where(IRIS.iloc[:, 1] > 3, "rot", "grün")})
CALLS: dict[str, list[dict[str, str]]] = {}


def keep(name: str, save: Callable[..., Any], model: Any, rows: Any, answer: Any, **how: Any) -> None:
    """Saves a model with its signature and example, and asks MLflow's scoring server."""
    path = ROOT / name
    parameters = how.pop("parameters", None)
    if "signature" not in how:
        how["signature"] = infer_signature(rows, answer, params=parameters)
    example = rows.head(3) if isinstance(rows, pd.DataFrame) else rows[:3]
    save(model, str(path), input_example=how.pop("example", example), pip_requirements=[], **how)
    loaded = mlflow.pyfunc.load_model(str(path))
    bodies = how_it_is_called(rows)
    if parameters:
        bodies.append({**bodies[0], "params": dict(list(parameters.items())[:1])})
        bodies.append({**bodies[0], "params": parameters})
    ask(name, bodies)
    if isinstance(rows, pd.DataFrame):
        stream = io.StringIO()
        rows.iloc[5:9].to_csv(stream, index=False)
        called(name, loaded, "text/csv", stream.getvalue())


def called(name: str, loaded: Any, kind: str, body: str) -> None:
    """Keeps what MLflow's scoring server answers; what it fails at is nothing to compare with."""
    try:
        said = scoring_server.invocations(body, kind, loaded, loaded.metadata.get_input_schema())
    except mlflow.MlflowException:
        return
    CALLS.setdefault(name, []).append({"type": kind, "body": body, "answer": said.response})


def how_it_is_called(rows: Any) -> list[dict[str, Any]]:
    """The forms in which a client sends a table, or a tensor."""
    if not isinstance(rows, pd.DataFrame):
        return [{"inputs": rows[:1].tolist()}, {"inputs": rows[:50].tolist()}, {"instances": rows[7:9].tolist()}]
    some, many = rows.iloc[3:6], rows.iloc[:200]
    shuffled = some[list(some.columns)[::-1]]
    return [
        {"dataframe_split": {key: value for key, value in some.to_dict("split").items() if key != "index"}},
        {"dataframe_split": {key: value for key, value in many.to_dict("split").items() if key != "index"}},
        {"dataframe_records": shuffled.to_dict("records")},
        {"inputs": some.to_dict("list")},
        {"instances": some.to_dict("records")},
    ]


def sklearn_models() -> None:
    save = mlflow.sklearn.save_model
    trees: Any = {"skops_trusted_types": ["sklearn.tree._tree.Tree"]}
    classes = LogisticRegression(max_iter=500).fit(IRIS, SPECIES)
    keep("sklearn", save, classes, IRIS, classes.predict(IRIS))
    keep("sklearn_text_labels", save, fit_text(), CANCER, fit_text().predict(CANCER), **trees)
    keep("sklearn_pickle", save, classes, IRIS, classes.predict(IRIS), serialization_format="cloudpickle")
    keep(
        "sklearn_tensor", save, LogisticRegression(max_iter=500).fit(IRIS.values, SPECIES), IRIS.values, SPECIES.values
    )
    proba = classes.predict_proba(IRIS)
    keep("sklearn_probabilities", save, classes, IRIS, proba, pyfunc_predict_fn="predict_proba")
    keep("sklearn_log", save, classes, IRIS, np.log(proba), pyfunc_predict_fn="predict_log_proba")
    line = make_pipeline(StandardScaler(), LinearRegression()).fit(DIABETES, PROGRESS)
    keep("sklearn_pipeline", save, line, DIABETES, line.predict(DIABETES))
    columns = ColumnTransformer([("n", StandardScaler(), ["length"]), ("c", OneHotEncoder(), ["colour"])])
    mixed = make_pipeline(columns, RandomForestClassifier(9, random_state=1)).fit(MIXED, SPECIES)
    keep("sklearn_mixed", save, mixed, MIXED, mixed.predict(MIXED), **trees)
    several = LinearRegression().fit(DIABETES, np.stack([PROGRESS, -PROGRESS], 1))
    keep("sklearn_several", save, several, DIABETES, several.predict(DIABETES))
    clusters = KMeans(3, random_state=0, n_init=1).fit(IRIS)
    keep("sklearn_clusters", save, clusters, IRIS, clusters.predict(IRIS))
    keep("sklearn_no_signature", save, classes, IRIS, None, signature=False)


def fit_text() -> Any:
    names = np.where(SICK == 0, "böse", "gut")
    return RandomForestClassifier(7, random_state=3).fit(CANCER, names)


def boosting_models() -> None:
    save = mlflow.xgboost.save_model
    few = {"n_estimators": 12, "max_depth": 3, "n_jobs": 1}
    two = xgboost.XGBClassifier(**few).fit(CANCER, SICK)
    keep("xgboost_classifier", save, two, CANCER, two.predict(CANCER))
    three = xgboost.XGBClassifier(**few).fit(IRIS, SPECIES)
    keep("xgboost_classes", save, three, IRIS, three.predict(IRIS), model_format="json")
    line = xgboost.XGBRegressor(**few).fit(DIABETES, PROGRESS)
    keep("xgboost_regressor", save, line, DIABETES, line.predict(DIABETES))
    for objective, rows, target in [
        ("binary:logistic", CANCER, SICK),
        ("multi:softprob", IRIS, SPECIES),
        ("multi:softmax", IRIS, SPECIES),
        ("reg:squarederror", DIABETES, PROGRESS),
    ]:
        data = xgboost.DMatrix(rows, target)
        classes = {"num_class": 3} if objective.startswith("multi") else {}
        booster = xgboost.train({"objective": objective, "nthread": 1, **classes}, data, 8)
        keep("xgboost_" + objective.replace(":", "_"), save, booster, rows, booster.predict(data))
    save = mlflow.lightgbm.save_model
    for objective, rows, target in [
        ("binary", CANCER, SICK),
        ("multiclass", IRIS, SPECIES),
        ("l2", DIABETES, PROGRESS),
    ]:
        how = {"objective": objective, "verbose": -1, "num_threads": 1}
        classes = {"num_class": 3} if objective == "multiclass" else {}
        plain = rows.rename(columns=lambda name: name.replace(" ", "_"))
        booster = lightgbm.train({**how, **classes}, lightgbm.Dataset(plain, target), 8)
        keep("lightgbm_" + objective, save, booster, plain, booster.predict(plain))
    fitted = lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, n_jobs=1).fit(IRIS.values, SPECIES)
    keep("lightgbm_classifier", save, fitted, IRIS.values, SPECIES.values, serialization_format="cloudpickle")
    save = mlflow.catboost.save_model
    quiet = {"iterations": 9, "verbose": False, "allow_writing_files": False, "thread_count": 1}
    two = catboost.CatBoostClassifier(**quiet).fit(CANCER, SICK)
    keep("catboost_classifier", save, two, CANCER, two.predict(CANCER))
    three = catboost.CatBoostClassifier(**quiet).fit(IRIS, SPECIES)
    keep("catboost_classes", save, three, IRIS, three.predict(IRIS))
    line = catboost.CatBoostRegressor(**quiet).fit(DIABETES, PROGRESS)
    keep("catboost_regressor", save, line, DIABETES, line.predict(DIABETES))
    raw = catboost.CatBoost({**quiet, "loss_function": "Logloss"}).fit(CANCER, SICK)
    keep("catboost_raw", save, raw, CANCER, raw.predict(CANCER))


def other_models() -> None:
    from skl2onnx import to_onnx

    line = LinearRegression().fit(DIABETES.to_numpy().astype(np.float32), PROGRESS)
    graph = to_onnx(line, DIABETES.to_numpy()[:1].astype(np.float32))
    keep(
        "onnx_columns",
        mlflow.onnx.save_model,
        graph,
        DIABETES,
        pd.DataFrame({"variable": line.predict(DIABETES.to_numpy())}),
    )
    tensor = DIABETES.to_numpy().astype(np.float32)
    keep("onnx_tensor", mlflow.onnx.save_model, graph, tensor, {"variable": line.predict(tensor).reshape(-1, 1)})
    import statsmodels.api

    ols = statsmodels.api.OLS(PROGRESS, DIABETES).fit()
    keep("statsmodels", mlflow.statsmodels.save_model, ols, DIABETES, ols.predict(DIABETES))


class Scaled(mlflow.pyfunc.PythonModel):
    """A data frame of a number and a text; its parameter multiplies."""

    def predict(self, context, model_input, params=None):
        factor = (params or {}).get("factor", 1.0)
        said = (params or {}).get("words", ["none"])
        return pd.DataFrame({"value": model_input.iloc[:, 0] * factor, "word": [said[-1]] * len(model_input)})


class Whole(mlflow.pyfunc.PythonModel):
    """What it answers depends on all rows: requests must not be joined."""

    def predict(self, context, model_input, params=None):
        return (model_input.iloc[:, 0] / model_input.iloc[:, 0].sum()).to_numpy()


class Records(mlflow.pyfunc.PythonModel):
    """A list of records."""

    def predict(self, context, model_input, params=None):
        return [{"first": float(row[0]), "name": f"n{row[1]:.1f}"} for row in model_input.to_numpy()]


class Days(mlflow.pyfunc.PythonModel):
    """Takes a date and a column that may be left out; answers one named column."""

    def predict(self, context, model_input, params=None):
        found = model_input["when"].dt.day + model_input.get("more", 0)
        return pd.DataFrame({"day": found.astype("int64")})


class Texts(mlflow.pyfunc.PythonModel):
    """A list of texts, by type hint."""

    def predict(self, model_input: list[str], params=None) -> list[str]:
        return [text.upper() for text in model_input]


def own_models() -> None:
    def save(model: Any, path: str, **how: Any) -> None:
        mlflow.pyfunc.save_model(path, python_model=model, **how)

    keep("own", save, Scaled(), IRIS, Scaled().predict(None, IRIS))
    parameters = {"factor": 2.0, "words": ["a", "b"]}
    keep("own_parameters", save, Scaled(), IRIS, Scaled().predict(None, IRIS), parameters=parameters)
    keep("own_whole", save, Whole(), IRIS, Whole().predict(None, IRIS))
    keep("own_records", save, Records(), IRIS, pd.DataFrame(Records().predict(None, IRIS)))
    days = pd.DataFrame({"when": ["2024-01-05T00:00:00", "2024-02-17T12:30:00"] * 5, "more": np.arange(10)})
    schema = mlflow.types.Schema(
        [mlflow.types.ColSpec("datetime", "when"), mlflow.types.ColSpec("long", "more", required=False)]
    )
    answer = mlflow.types.Schema([mlflow.types.ColSpec("long", "day")])
    keep(
        "own_days",
        save,
        Days(),
        days,
        None,
        signature=mlflow.models.ModelSignature(schema, answer),
        example=dated(days),
    )
    mlflow.pyfunc.save_model(
        str(ROOT / "own_texts"), python_model=Texts(), input_example=["a", "bc"], pip_requirements=[]
    )
    ask("own_texts", [{"inputs": ["x", "yz"]}])
    nested = mlflow.types.Schema([mlflow.types.ColSpec(mlflow.types.schema.Array("double"), "values")])
    signature = mlflow.models.ModelSignature(nested)
    mlflow.pyfunc.save_model(str(ROOT / "own_nested"), python_model=Whole(), signature=signature, pip_requirements=[])


def dated(days: pd.DataFrame) -> pd.DataFrame:
    return days.assign(when=pd.to_datetime(days["when"])).head(2)


def ask(name: str, bodies: list[dict[str, Any]]) -> None:
    loaded = mlflow.pyfunc.load_model(str(ROOT / name))
    for body in bodies:
        called(name, loaded, "application/json", json.dumps(body))


if __name__ == "__main__":
    sklearn_models()
    boosting_models()
    other_models()
    own_models()
    (ROOT / "calls.json").write_text(json.dumps(CALLS))
    (ROOT / "done").write_text(mlflow.__version__)
