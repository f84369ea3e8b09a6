# Traffic is moved, by hand and by a file; what is wrong changes nothing; everything can be taken back.

file v1.py
    import numpy as np
    example = {"x": np.array([1.0])}
    def predict(inputs):
        return {"y": inputs["x"] * 2}

file v2.py
    import numpy as np
    example = {"x": np.array([1.0])}
    def predict(inputs):
        return {"y": inputs["x"] * 3}

file broken.py
    raise RuntimeError("a secret")

file turnout.yaml
    server: {port: 0, grpc_port: 0, access_log: "off"}
    endpoints:
      fraud:
        versions:
          v1: {model: v1.py}
        rules: [{when: {header: {x-cohort: beta}}, to: v1}]

file two.yaml
    server: {port: 0, grpc_port: 0, access_log: "off"}
    endpoints:
      fraud:
        versions:
          v1: {model: v1.py}
          v2: {model: v2.py}
        traffic: {v1: 100}
        rules: [{when: {header: {x-cohort: beta}}, to: v2}]

file typo.yaml
    endpoints:
      fraud:
        versions:
          v1: {model: v1.py}
        trafic: {v1: 100}

file broken.yaml
    server: {port: 0, grpc_port: 0, access_log: "off"}
    endpoints:
      fraud:
        versions:
          v1: {model: broken.py}

start env TURNOUT_HOME=$PWD/.home turnout serve turnout.yaml
    ...
      fraud  endpoint: v1 100 %
    ...
      REST  http://127.0.0.1:(PORT) ...
    ...

file guide.sh
    TURNOUT_HOME=$PWD/.home turnout "$@" --url http://127.0.0.1:$PORT

$ sh guide.sh plan two.yaml
    + load    endpoints.fraud.versions.v2: .../v2.py
    ~ set     endpoints.fraud.rules...
    ...

$ sh guide.sh apply two.yaml --reason 'the next one'
    + load    endpoints.fraud.versions.v2: .../v2.py
    ...
    revision 2

$ sh guide.sh apply two.yaml
    nothing to do: revision 2

$ for cohort in beta all; do curl -s localhost:$PORT/predict/fraud -H "x-cohort: $cohort" -d '{"x": [1]}'; echo; done
    {"model":"fraud","version":"v2","predictions":[{"y":3.0}]}
    {"model":"fraud","version":"v1","predictions":[{"y":2.0}]}

$ sh guide.sh traffic fraud v2=100
    fraud: v1 0 %, v2 100 %; revision 3

$ curl -s localhost:$PORT/predict/fraud -d '{"x": [1]}'
    {"model":"fraud","version":"v2","predictions":[{"y":3.0}]}

$ sh guide.sh traffic fraud v1=50 v2=60
    turnout: endpoints.fraud.traffic: the shares do not sum to 100; expected 100 percent in all; got 110. Example that works: traffic: ...
exit 1

$ sh guide.sh apply typo.yaml
    turnout: typo.yaml:5: endpoints.fraud.trafic: unknown; expected one of versions, traffic, ... Example that works: traffic: ...
exit 1

$ sh guide.sh apply broken.yaml
    turnout: endpoints.fraud.versions.v1: it does not load: ...
exit 1

$ sh guide.sh unload fraud
    turnout: model: 'fraud' is an endpoint; ...
exit 1

$ sh guide.sh undo
    revision 2 is in force again (it was 3)

$ sh guide.sh status
    MODEL  VERSION  STATE  FORMAT  WORKERS  MEMORY  ...
    fraud  v1       READY  python  1/1 ... 100 % of the traffic
    fraud  v2       READY  python  1/1 ... 0 % of the traffic
    fraud: revision 2

$ sh guide.sh history
    REVISION  AT  ...
    * 2 ... undo
      3 ... ~ move endpoints.fraud.traffic: v1 100 -> v2 100
      2 ... + load endpoints.fraud.versions.v2: .../v2.py (and 1 more)  the next one
      1 ... the server was started with it

file models.yaml
    server: {port: 0, grpc_port: 0, access_log: "off"}
    models: [{name: other, artifact: v2.py}]

$ sh guide.sh apply models.yaml
    ...
    - unload  endpoints.fraud.versions.v1: .../v1.py
    ...
    revision 4

$ curl -s localhost:$PORT/predict/fraud -d '{"x": [1]}'
    {"error": "there is no model 'fraud' here; ...

stop
    ...
