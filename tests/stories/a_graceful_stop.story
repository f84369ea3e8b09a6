# What is being answered when the server is told to stop is still answered.

file model.py
    import time

    example = {"seconds": [0.0]}


    def predict(seconds):
        time.sleep(float(seconds.max()))
        return {"slept": seconds}

start turnout serve slow=model.py --port 0 --grpc-port 0 --access-log off
    ...
      REST  http://127.0.0.1:(PORT) ...
    ...

$ (curl -s localhost:$PORT/v1/models/slow:predict -d '{"instances": [1.0]}' > answer.txt 2>&1 &) ; sleep 0.4; echo asked
    asked

stop
    ...

$ sleep 0.1; cat answer.txt
    {"predictions":[1.0]}
