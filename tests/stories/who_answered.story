# An endpoint of two versions, of which one fails for numbers below 0: every answer says who gave it.

file good.py
    import numpy as np
    example = {"x": np.array([1.0])}
    def predict(inputs):
        return {"y": inputs["x"] * 2}

file bad.py
    import numpy as np
    example = {"x": np.array([1.0])}
    def predict(inputs):
        if (inputs["x"] < 0).any():
            raise ValueError("a secret")
        return {"y": inputs["x"] * 2}

file turnout.yaml
    server: {port: 0, grpc_port: 0, access_log: access.log}
    endpoints:
      fraud:
        versions:
          v7: {model: "python:good.py:predict"}
          v8: {model: "python:bad.py:predict"}
        traffic: {v8: 100}
        fallback: [v7]

start turnout serve turnout.yaml
    ...
      fraud  endpoint: v8 100 %
    ...
      REST  http://127.0.0.1:(PORT) ...
    ...

$ curl -si localhost:$PORT/predict/fraud -d '{"x": [1.5]}' | tr -d '\r' | grep -E '^(X-|\{)'
    X-Served-By: fraud@v8
    X-Variant: v8
    X-Revision: 1
    X-Prediction-Id: R1-1-...
    {"model":"fraud","version":"v8","predictions":[{"y":3.0}]}

$ curl -si localhost:$PORT/predict/fraud -d '{"x": [-1.5]}' | tr -d '\r' | grep -E '^(X-|\{)'
    X-Served-By: fraud@v7
    X-Variant: v8
    X-Revision: 1
    X-Degraded: error
    X-Prediction-Id: R1-1-...
    {"model":"fraud","version":"v7","predictions":[{"y":-3.0}]}

$ curl -s localhost:$PORT/predict/fraud?explain -d '{"x": [-1.5]}' | python -c 'import json, sys; [print(s["node"], s["name"], s["outcome"]) for s in json.load(sys.stdin)["explain"]["steps"]]'
    split v8 ModelFailed
    fallback primary ModelFailed
    fallback v7 answered
    version fraud@v7 answered
    endpoint fraud answered

$ curl -s localhost:$PORT/v2/models/fraud/versions/v7/infer -d '{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [2]}]}'
    {"model_name":"fraud","model_version":"v7","parameters":{"served_by":"fraud@v7","variant":"v7","revision":1,"prediction_id":"R1-0-..."},"outputs":[{"name":"y","datatype":"FP64","shape":[1],"data":[4.0]}]}

$ curl -si localhost:$PORT/predict/fraud -H 'X-Fail-On-Degraded: true' -d '{"x": [-1.5]}' | tr -d '\r' | grep -E '^(HTTP|X-S|X-D|\{)'
    HTTP/1.1 500 Internal Server Error
    X-Served-By: fraud@v8
    {"error": "the model failed on this input (ValueError)..."}

$ curl -s localhost:$PORT/metrics | grep -E '^turnout_(fallback|endpoint_requests)_total' | sort
    turnout_endpoint_requests_total{endpoint="fraud",outcome="INTERNAL",variant="v8"} 1.0
    turnout_endpoint_requests_total{endpoint="fraud",outcome="answered",variant="v7"} 1.0
    turnout_endpoint_requests_total{endpoint="fraud",outcome="answered",variant="v8"} 1.0
    turnout_endpoint_requests_total{endpoint="fraud",outcome="degraded",variant="v8"} 2.0
    turnout_fallback_total{endpoint="fraud",from="v8",reason="error",to="v7"} 2.0

stop
    ...

$ grep -c '"degraded":"error","prediction_id":"R1-1-' access.log
    2
