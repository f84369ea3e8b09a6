# A port that somebody else has is named, and nothing is left running.

start turnout serve double.onnx --port 0 --grpc-port 0 --access-log off
    ...
      REST  http://127.0.0.1:(PORT) ...
      gRPC  127.0.0.1:(GRPC)
    ...

$ turnout serve sign.onnx --port $PORT --grpc-port 0
    ...
    turnout: cannot listen on 127.0.0.1:... (Address already in use); choose another port
exit 1

$ turnout serve sign.onnx --port 0 --grpc-port $GRPC --routers 2
    ...
    turnout: cannot listen on 127.0.0.1:... (Address already in use); choose another port
exit 1

$ curl -s localhost:$PORT/predict/double -H 'content-type: application/json' -d '[[0]]' -o /dev/null -w '%{http_code}\n'
    200

stop
    ...
