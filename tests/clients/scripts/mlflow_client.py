"""Talks to a server with MLflow's own scoring client and prints as JSON what it gave.

Usage: mlflow_client.py HOST PORT TABLE, TABLE as JSON {"columns": [...], "data": [[...], ...]}.
"""

from __future__ import annotations

import json
import sys

import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

host, port, table = sys.argv[1:]
frame = pd.DataFrame(**json.loads(table))
client = ScoringServerClient(host, int(port))
client.wait_server_ready(timeout=10)
found: dict[str, object] = {"version": client.get_version()}
found["table"] = json.loads(client.invoke(frame).to_json())
found["inputs"] = json.loads(client.invoke(frame.to_numpy()).to_json())
found["reordered"] = json.loads(client.invoke(frame[frame.columns[::-1]]).to_json())
found["frame"] = client.invoke(frame).get_predictions("dataframe").to_dict(orient="list")
try:
    client.invoke(frame.drop(columns=frame.columns[0]))
except Exception as problem:
    found["missing"] = str(problem)
sys.stdout.write(json.dumps(found))
