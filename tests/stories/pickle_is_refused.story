# A pickle can run any code when it is loaded, so somebody has to say that it may.

$ turnout predict sign.joblib --input rows.json
    turnout: ...
exit 1

file rows.json
    [[3, 4], [-3, -4]]

$ turnout predict sign.joblib --input rows.json
    turnout: ...sign.joblib is a Python pickle...--trust-pickle...
exit 1

$ turnout serve sign.joblib --port 0 --grpc-port 0
    ...
    turnout: ...sign.joblib is a Python pickle...--trust-pickle...
exit 1

$ turnout predict sign.joblib --input rows.json --trust-pickle | cut -c1-20
    {"label": "positive"
    {"label": "negative"

start turnout serve sign.joblib --trust-pickle --port 0 --grpc-port 0 --access-log off
    ...
      REST  http://127.0.0.1:(PORT) ...
    ...
$ curl -s localhost:$PORT/v1/models/sign:predict -d '{"instances": [[3, 4], [-3, -4]]}'
    {"predictions":["positive","negative"]}

stop
    ...
