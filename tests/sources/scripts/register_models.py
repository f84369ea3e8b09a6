"""Trains scikit-learn models and registers them, with MLflow's own client. Prints what it made as JSON.

Its argument is a list of models: the name, and C of the regression.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

rows, kinds = load_iris(return_X_y=True)
made = []
mlflow.set_experiment("iris")
for wanted in json.loads(sys.argv[1]):
    model = LogisticRegression(max_iter=200, C=wanted["C"]).fit(rows, kinds)
    with mlflow.start_run() as run:
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=wanted["name"],
            input_example=rows[:2],
            signature=infer_signature(rows, model.predict(rows)),
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
        Path("notes.txt").write_text("notes")
        Path("blob.bin").write_bytes(bytes(range(256)) * 4096)
        mlflow.log_artifact("notes.txt", "extra/deep")
        mlflow.log_artifact("blob.bin", "extra")
    made.append(
        {
            "run": run.info.run_id,
            "model_id": logged.model_id,
            "version": logged.registered_model_version,
            "predicted": model.predict(rows).tolist(),
            "coefficients": model.coef_.tolist(),
        }
    )
print(json.dumps(made))
