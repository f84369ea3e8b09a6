# Serve a file and ask it with curl.

start turnout serve double.skops --port 0 --grpc-port 0 --access-log off
    ...
      Turnout is ready.
    ...
      double  sklearn, 1 worker
    ...in   x FP64[n, 1]
    ...out  prediction FP64[n]
    ...
      REST  http://127.0.0.1:(PORT) ...
      gRPC  127.0.0.1:(GRPC)
    ...
      curl -s http://127.0.0.1:.../predict/double ...
    ...

$ curl -s localhost:$PORT/v2/health/ready -o /dev/null -w '%{http_code}\n'
    200

$ curl -s localhost:$PORT/predict/double -H 'content-type: application/json' -d '[[1], [2.5]]' | python -c 'import json, sys; print([round(row["prediction"], 6) for row in json.load(sys.stdin)["predictions"]])'
    [2.0, 5.0]

$ curl -s localhost:$PORT/v2/models/double/infer -d '{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}'
    {"error": ... expected [-1, 1]; got [1, 2]...}

$ curl -s localhost:$PORT/v2/models/nothing/infer -d '{}' -w ' %{http_code}\n'
    {"error": ...nothing...double...} 404

stop
    ...

$ curl -s localhost:$PORT/v2/health/ready
exit 7
