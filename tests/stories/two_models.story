# Two models under names of their own, one of them twice.

start turnout serve a=double.onnx b=sign.skops --replicas 2 --port 0 --grpc-port 0 --access-log off
    ...
      a  onnx, 2 workers
    ...
      b  sklearn, 2 workers
    ...
      REST  http://127.0.0.1:(PORT) ...
    ...

$ curl -s localhost:$PORT/v1/models/b:predict -d '{"instances": [[1, 2]]}'
    {"predictions":["positive"]}

$ curl -s localhost:$PORT/v2/models/a | python -c 'import json, sys; found = json.load(sys.stdin); print(found["name"], found["inputs"])'
    a [{'name': 'X', 'datatype': 'FP32', 'shape': [-1, 1]}]

$ curl -s localhost:$PORT/predict -H 'content-type: application/json' -d '[[1]]' -w ' %{http_code}\n'
    {"error": "several models are served, so the request must name one: a, b"} 404

$ curl -s localhost:$PORT/metrics | grep -c 'turnout_worker_state{.*READY'
    4

$ turnout serve a=double.onnx a=sign.onnx
    turnout: models: two models are called 'a'...
exit 1

stop
    ...
